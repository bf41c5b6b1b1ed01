"""Data files that keep arriving: several sources, checksums, one cache.

A file is known by the SHA-256 of its raw content, so it does not matter where it comes
from. :func:`fetch` asks one source after another, verifies what came and moves it into
the cache as a whole; from then on it needs no network.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pooch
from filelock import Timeout
from tqdm.auto import tqdm

from course_utils.cache import VARIABLE, locked, make_folder, unusable
from course_utils.progress import bars_are_off

WAIT = 1800.0  # seconds to wait for another process that is downloading
_log = logging.getLogger(__name__)


class SourceError(RuntimeError):
    """One source could not give a file."""


class DownloadError(RuntimeError):
    """No source gave the files; the message says what to do by hand.

    Attributes:
        files: those that are missing.
        folder: where they belong.
        tried: a line for each source, why it failed.
    """

    def __init__(
        self, files: Sequence[RemoteFile], folder: Path, tried: Sequence[str]
    ) -> None:
        super().__init__(files, folder, tried)
        self.files, self.folder, self.tried = files, folder, tried

    def __str__(self) -> str:
        lines = [
            "data files are missing, and no source gave them:",
            *(f"  {line}" for line in self.tried),
            f"Put these, as they are or compressed as NAME.gz, into {self.folder}",
            f"(or let the variable {VARIABLE} name another cache):",
            *(f"  {file.name}  SHA-256 {file.sha256}" for file in self.files),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class RemoteFile:
    """A file by its content.

    Attributes:
        name: its name in the cache and, with ".gz" added, on a mirror.
        size: its length in bytes, not compressed.
        sha256: the hexadecimal SHA-256 of its content, not compressed.
    """

    name: str
    size: int
    sha256: str

    def problem(self, path: Path) -> str | None:
        """What is wrong with a copy of the file; None if it is intact."""
        try:
            with path.open("rb") as copy:
                if (size := os.fstat(copy.fileno()).st_size) != self.size:
                    begin = copy.read(16)
                    return f"{size} bytes, expected {self.size}; it begins {begin!r}"
                digest = hashlib.file_digest(copy, "sha256").hexdigest()
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"not readable ({error.strerror})"
        if digest == self.sha256:
            return None
        return f"SHA-256 {digest}, expected {self.sha256}"


class Source(Protocol):
    """Where files come from."""

    @property
    def name(self) -> str:
        """What a reader calls it."""

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        """Put the files into ``folder`` under their names; nothing is verified here.

        Raises:
            Exception: anything, when the source fails; files that are already in the
                folder count nevertheless.
        """


@dataclass(frozen=True)
class Mirror:
    """A folder of a web server that holds each file as NAME.gz.

    Attributes:
        url: the folder's address, with a slash at its end.
        timeout: seconds to wait for a connection, and for each next byte.
        least_speed: bytes per second below which the mirror is given up,
        patience: when this lasts for so many seconds.
    """

    url: str
    timeout: float = 10.0
    least_speed: float = 20_000.0
    patience: float = 20.0

    @property
    def name(self) -> str:
        return self.url

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        for file in files:
            with Unpacked(folder / file.name, file.size) as target:
                self._download(f"{self.url}{file.name}.gz", target)

    def _download(self, url: str, target: Unpacked) -> None:
        """Download in a thread, which is left alone if the server is too slow.

        A server that sends a byte now and then keeps a read waiting for ever without
        any timeout; only another thread can tell.
        """
        failed: list[Exception] = []

        def download() -> None:
            get = pooch.HTTPDownloader(chunk_size=2**14, timeout=self.timeout)
            try:
                get(url, target, None)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=download, daemon=True)
        thread.start()
        start, before = time.monotonic(), 0
        with tqdm(
            desc=url.rpartition("/")[2],
            total=target.size,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=bars_are_off(),
        ) as bar:
            while thread.is_alive():
                thread.join(0.05)
                bar.update(target.written - bar.n)
                if time.monotonic() - start > self.patience:
                    if target.received - before < self.least_speed * self.patience:
                        raise SourceError(
                            f"slower than {self.least_speed:g} bytes a second "
                            f"for {self.patience:g} seconds"
                        )
                    start, before = time.monotonic(), target.received
        if failed:
            raise failed[0]


@dataclass(frozen=True)
class Address(Mirror):
    """A web server that holds one file, as it is, at ``url``."""

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        for file in files:
            with Unpacked(folder / file.name, file.size) as target:
                self._download(self.url, target)


def fetch(
    files: Sequence[RemoteFile], sources: Sequence[Source], folder: Path
) -> dict[str, Path]:
    """Where the files are in ``folder``, after fetching those that are not.

    Intact files need no network, no lock and no permission to write. A file that was
    put into the folder by hand, raw or as NAME.gz, is taken if its content is right.

    Args:
        files: what is wanted.
        sources: whom to ask, in this order.
        folder: a folder of the cache.

    Returns:
        name → path, for each of the files.

    Raises:
        CacheError: files are missing and the folder cannot be written to, or is full.
        DownloadError: no source gave the files.
    """
    if any(file.problem(folder / file.name) for file in files):
        make_folder(folder)
        try:
            with locked(folder / ".lock", timeout=WAIT) as alone:
                _fill(files, sources, folder, alone)
        except Timeout:
            waited = f"another process has been downloading for {WAIT:g} seconds"
            raise DownloadError(files, folder, [waited]) from None
        except OSError as error:
            raise unusable(folder, error) from error
    return {file.name: folder / file.name for file in files}


def _fill(
    files: Sequence[RemoteFile], sources: Sequence[Source], folder: Path, alone: bool
) -> None:
    """Fetch what is missing; ``alone`` if it is sure that no other process does."""
    for left_over in folder.glob(".download-*") if alone else ():
        shutil.rmtree(left_over, ignore_errors=True)  # by a process that was killed
    offers: list[tuple[Source, Sequence[RemoteFile]]] = [
        (_ByHand(packed), [file])
        for file in files
        if (packed := folder / f"{file.name}.gz").exists()
    ]
    offers += [(source, files) for source in sources]
    tried = []
    for source, offered in offers:
        missing = [file for file in offered if file.problem(folder / file.name)]
        failure = _take(source, missing, folder) if missing else ""
        if failure:
            _log.info("%s: %s", source.name, failure)
            tried.append(f"{source.name}: {failure}")
    problems = {file: file.problem(folder / file.name) for file in files}
    missing = [file for file, problem in problems.items() if problem]
    if missing:
        tried += [
            f"damaged in the cache: {file.name}: {problems[file]}"
            for file in missing
            if problems[file] != "missing"
        ]
        raise DownloadError(missing, folder, tried)


def _take(source: Source, files: Sequence[RemoteFile], folder: Path) -> str:
    """Move what a source gives into ``folder`` if it is right; say what went wrong."""
    failure, handled = "", sys.exception()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        try:
            source.fetch(files, Path(scratch))
        except Exception as error:
            failure = _reason(error, handled)
        for file in files:
            came = Path(scratch) / file.name
            problem = file.problem(came)
            if problem is None:
                os.replace(came, folder / file.name)
            elif not failure:
                failure = f"{file.name}: {problem}"
    return failure


@dataclass(frozen=True)
class _ByHand:
    """A compressed file that a person put into the cache."""

    path: Path

    @property
    def name(self) -> str:
        return f"put there by hand, {self.path}"

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        for file in files:
            with (
                self.path.open("rb") as packed,
                Unpacked(folder / file.name, file.size) as target,
            ):
                shutil.copyfileobj(packed, target)


class Unpacked:
    """A file that unpacks what is written to it, if that is packed by gzip.

    Attributes:
        size: how many bytes may come out; more are refused.
        received, written: how many bytes came in and went out.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self.received = self.written = 0
        self._file = path.open("wb")
        self._unpack = zlib.decompressobj(wbits=31)
        self._packed = True

    def write(self, data: bytes) -> None:
        if not self.received:  # some servers and browsers unpack it themselves
            self._packed = data.startswith(b"\x1f\x8b")
        self.received += len(data)
        if self._packed:
            data = self._unpack.decompress(data, self.size - self.written + 1)
        if self.written + len(data) > self.size:
            raise SourceError(f"more than {self.size} bytes came")
        self.written += self._file.write(data)

    def flush(self) -> None:
        """Writing is not urgent."""

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _reason(error: BaseException, handled: BaseException | None) -> str:
    """What is at the root of an error, on one line.

    Args:
        error: what was raised,
        handled: while this one was handled, which is not among its causes.
    """
    while cause := error.__cause__ or (
        None if error.__suppress_context__ else error.__context__
    ):
        if cause is handled:
            break
        error = cause
    text = " ".join(str(error).split())
    if not isinstance(error, SourceError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) < 300 else f"{text[:300]} …"
