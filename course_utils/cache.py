"""The folder that keeps what was fetched and what was trained.

It is the folder that the environment variable ``COURSE_CACHE`` names, or the user's own
cache folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pooch

VARIABLE = "COURSE_CACHE"  # names the folder of the cache


class CacheError(OSError):
    """The folder of the cache cannot be used."""


def cache_folder(*parts: str) -> Path:
    """The folder ``parts`` of the cache; it need not exist.

    Raises:
        CacheError: the cache is a file.
    """
    named = os.environ.get(VARIABLE)
    root = Path(named) if named else pooch.os_cache("generative-models-course")
    root = root.expanduser().absolute()
    if root.exists() and not root.is_dir():
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
        raise CacheError(
            f"the cache must be a folder that can be written to, got {folder} "
            f"({error.strerror}); let the variable {VARIABLE} name another one"
        ) from error
