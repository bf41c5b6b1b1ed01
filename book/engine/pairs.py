"""One source, two languages: how English and Hebrew stand side by side.

In a notebook, every markdown cell carries ``metadata.lang`` (``"en"`` or ``"he"``); a
Hebrew cell follows its English twin and is wrapped in ``<div dir="rtl" lang="he">`` so
that JupyterLab shows it right to left. In a prose page, ``+++ {"lang": "he"}`` starts a
Hebrew block and ``+++ {"lang": "en"}`` an English one; what stands before the first
mark is English.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "he")
RTL_OPEN = '<div dir="rtl" lang="he">'
RTL_CLOSE = "</div>"

_BLOCK_BREAK = re.compile(r"^\+\+\+[ \t]*(\{.*\})[ \t]*$", re.MULTILINE)


def wrap(source: str) -> str:
    """Wrap Hebrew markdown so that JupyterLab shows it right to left."""
    return f"{RTL_OPEN}\n\n{source.strip()}\n\n{RTL_CLOSE}"


def unwrap(source: str) -> str:
    """Undo :func:`wrap`.

    Raises:
        ValueError: if ``source`` is not wrapped.
    """
    text = source.strip()
    if not (text.startswith(RTL_OPEN) and text.endswith(RTL_CLOSE)):
        wanted = f"{RTL_OPEN} … {RTL_CLOSE}"
        raise ValueError(
            f"a Hebrew cell must be wrapped in {wanted}, got {text[:40]!r}"
        )
    return text[len(RTL_OPEN) : -len(RTL_CLOSE)].strip()


def cell_language(cell: dict[str, Any]) -> str | None:
    """The language of a markdown cell, or None for a cell that serves both editions."""
    if cell["cell_type"] != "markdown":
        return None
    language = cell.get("metadata", {}).get("lang")
    if language not in LANGUAGES:
        wanted = " or ".join(map(repr, LANGUAGES))
        raise ValueError(
            f"metadata.lang of a markdown cell must be {wanted}, got {language!r}"
        )
    return language


def page_blocks(text: str) -> list[tuple[str, str]]:
    """Split a prose page into ``(language, markdown)`` blocks, in order."""
    blocks: list[tuple[str, str]] = []
    language, start = "en", 0
    for match in _BLOCK_BREAK.finditer(text):
        mark = json.loads(match.group(1))
        if mark.get("lang") not in LANGUAGES:
            continue
        blocks.append((language, text[start : match.start()].strip()))
        language, start = mark["lang"], match.end()
    blocks.append((language, text[start:].strip()))
    return [(lang, block) for lang, block in blocks if block]


def notebook_paths(folder: Path = ROOT / "notebooks") -> list[Path]:
    """Every notebook below ``folder``, without Jupyter's checkpoints."""
    found = sorted(folder.rglob("*.ipynb"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def page_paths(folder: Path = ROOT / "book") -> list[Path]:
    """Every prose page of ``folder``."""
    return sorted(folder.glob("*.md"))
