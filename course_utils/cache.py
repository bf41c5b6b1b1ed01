"""The folder that keeps what was fetched and what was trained.

It is the folder that the environment variable ``COURSE_CACHE`` names, or the user's own
cache folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pooch
from filelock import FileLock

VARIABLE = "COURSE_CACHE"  # names the folder of the cache


class CacheError(OSError):
    """The folder of the cache cannot be used."""


def cache_folder(*parts: str) -> Path:
    """The folder ``parts`` of the cache; it need not exist.

    Raises:
        CacheError: the variable does not name one folder, whatever the working folder;
            or the cache is a file, or in another user's folder.
    """
    named = os.environ.get(VARIABLE)
    try:
        root = Path(named or pooch.os_cache("generative-models-course")).expanduser()
    except RuntimeError as error:  # ~ without a home
        raise CacheError(
            f"{VARIABLE} must name a folder, got {named} ({error})"
        ) from None
    if not root.is_absolute():
        raise CacheError(
            f"{VARIABLE} must name a folder from / or ~ on, got {named!r}, which is"
            " another one in each working folder"
        )
    try:
        is_file = root.exists() and not root.is_dir()
    except OSError as error:
        raise unusable(root, error) from error
    if is_file:
        raise CacheError(f"{VARIABLE} must name a folder, got the file {root}")
    return root.joinpath(*parts)


def make_folder(folder: Path) -> Path:
    """Return a folder of the cache that exists and can be written to.

    Raises:
        CacheError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise unusable(folder, error) from error


def unusable(folder: Path, error: OSError) -> CacheError:
    """What to say of a folder that the system refuses."""
    return CacheError(
        f"the cache must be a folder that can be written to, got {folder} "
        f"({error.strerror or error}); let the variable {VARIABLE} name another one"
    )


@contextmanager
def locked(lock: Path, timeout: float = -1.0) -> Iterator[bool]:
    """Inside, no other process is; whether that could be arranged.

    It cannot on a drive without locks, or where the lock is another user's. The work
    goes on then: what is put into the cache is put there as a whole.

    Args:
        lock: a file that is there as long as it is needed.
        timeout: seconds to wait for the other process, −1 for ever.

    Raises:
        filelock.Timeout: it takes longer.
    """
    was_there = os.path.lexists(lock)
    try:
        held = FileLock(lock, timeout=timeout)
        held.acquire()
    except TimeoutError:
        raise
    except (OSError, NotImplementedError):
        if not was_there:
            remove(lock)
        yield False
    else:
        try:
            yield True
        finally:
            remove(lock)  # who waits for it notices, and makes a new one
            held.release()


def remove(path: Path) -> None:
    """Remove a file if possible."""
    with suppress(OSError):
        path.unlink()
