"""The book of Genesis in Hebrew, letters alone: a text in another script.

The text is the Westminster Leningrad Codex, which is in the public domain, as the Open
Scriptures Hebrew Bible has it. Of each verse the letters are left, with a space or a
maqaf between words and a full stop at the end; a verse is a line, and chapters are set
apart by an empty one.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from course_utils.cache import cache_folder
from course_utils.data.download import Address, RemoteFile, Source, fetch
from course_utils.data.registries import NpmPackage
from course_utils.data.text import HELD_OUT, Text, split_text

GENESIS = RemoteFile(
    "Gen.xml",
    1_859_690,
    "bb57b281324d3471758cde40a0fc250acfab2cbcec78c309c51a5b9d79b71e6f",
)
SOURCES: tuple[Source, ...] = (
    Address("https://cdn.jsdelivr.net/npm/morphhb@2.0.2/wlc/Gen.xml"),
    NpmPackage("morphhb", "2.0.2", "wlc"),  # 21 MB
)
OSIS = "{http://www.bibletechnologies.net/2003/OSIS/namespace}"
NO_LETTER = re.compile("[^א-ת]")
MAQAF, STOP = "־", "."


def load_genesis(share: float = HELD_OUT) -> Text:
    """The book from the cache, or fetched on first use (2 MB); the last tenth held out.

    Args:
        share: of the characters that are held out, from the end.

    Raises:
        TypeError, ValueError: a share that is no number between 0 and 1.
        CacheError: the cache cannot be used.
        DownloadError: no source has the file.
    """
    path = fetch([GENESIS], SOURCES, cache_folder("genesis"))[GENESIS.name]
    return split_text(letters(path), "genesis", share)


def letters(path: Path) -> str:
    """The letters of a book of the Bible, verse by verse, of a file in OSIS XML."""
    root = ElementTree.parse(path).getroot()
    chapters = [
        "\n".join(_verse(verse) for verse in chapter.iter(f"{OSIS}verse"))
        for chapter in root.iter(f"{OSIS}chapter")
    ]
    return "\n\n".join(chapters) + "\n"


def _verse(verse: ElementTree.Element) -> str:
    """Words and marks as they stand; notes, and signs that are not read, left out."""
    found = ""
    for part in verse:
        if part.tag == f"{OSIS}w":
            space = "" if not found or found.endswith(MAQAF) else " "
            found += space + NO_LETTER.sub("", "".join(part.itertext()))
        elif part.get("type") == "x-maqqef":
            found += MAQAF
        elif part.get("type") == "x-sof-pasuq":
            found += STOP
    return found
