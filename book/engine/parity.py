"""Do both languages say the same? ``python -m engine.parity [paths…]`` tells.

What a translation shares with its twin (headings, labels, formulas, code, links,
numbers …) is compared part by part, so a pair of which only one side was edited is
caught; see ``engine.anatomy`` for the parts. Each problem names the file and the cell,
counted from 1.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_utils.claims import parse_claims
from engine.anatomy import Anatomy, dissect
from engine.pairs import (
    LANGUAGES,
    notebook_paths,
    page_blocks,
    page_paths,
    unwrap,
    wrap,
)

MOSTLY = 0.6  # of a Hebrew text's letters
FEW_LETTERS = 12  # a text with fewer is not judged
_HEBREW = re.compile("[א-ת]")
# not the maqaf, 05be
_NIQQUD = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)

_ORDERED = {
    "headings": "heading level",
    "labels": "label",
    "equations": "equation",
    "fences": "fenced block",
    "directives": "directive or option",
    "folded": "details or summary tag",
    "table_rows": "table row (number of bars)",
    "list_items": "list item",
}
_COUNTED = {
    "formulas": "inline formulas",
    "code": "inline code",
    "links": "links and references",
    "numbers": "numbers",
}


@dataclass(frozen=True)
class Block:
    """One piece of a chapter. ``lang`` is None for code, "" where it is missing."""

    where: str
    lang: str | None
    text: str


def check_notebook(path: Path) -> list[str]:
    """The problems of a notebook, each with ``path`` and the cell; none in parity."""
    notebook = nbformat.read(path, as_version=4)
    named = [
        (f"{path}: cell {number} (id {cell.get('id')})", cell)
        for number, cell in enumerate(notebook.cells, start=1)
    ]
    problems: list[str] = []
    blocks = [_cell_block(where, cell, problems) for where, cell in named]
    problems += _check_blocks(str(path), blocks)
    figures: set[str] = set()
    for where, cell in named:
        if cell.cell_type == "code":
            problems += _check_code(where, cell)
            problems += _check_figure(where, cell, figures)
            problems += _check_claims(where, cell)
    return problems


def check_page(path: Path) -> list[str]:
    """The problems of a page, each with ``path`` and the block; none in parity."""
    text = _FRONT_MATTER.sub("", path.read_text(encoding="utf-8"))
    blocks = [
        Block(f"{path}: block {number}", lang, block)
        for number, (lang, block) in enumerate(page_blocks(text), start=1)
    ]
    return _check_blocks(str(path), blocks)


def main(arguments: list[str]) -> int:
    """Print the problems of the files in ``arguments``, or of all; 1 if any."""
    paths = [Path(name) for name in arguments] or [*notebook_paths(), *page_paths()]
    problems: list[str] = []
    for path in paths:
        problems += (
            check_notebook(path) if path.suffix == ".ipynb" else check_page(path)
        )
    for problem in problems:
        print(problem)
    return int(bool(problems))


def _cell_block(where: str, cell: NotebookNode, problems: list[str]) -> Block:
    """A cell as a block; a Hebrew one unwrapped."""
    if cell.cell_type != "markdown":
        return Block(where, None, cell.source)
    lang = cell.metadata.get("lang", "")
    if lang not in LANGUAGES:
        problems.append(
            f"{where}: metadata.lang: expected one of {LANGUAGES}, got {lang!r}"
        )
        return Block(where, "", cell.source)
    if lang == "en":
        return Block(where, lang, cell.source)
    try:
        text = unwrap(cell.source)
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return Block(where, lang, cell.source)
    if cell.source.strip() != wrap(text):
        problems.append(
            f"{where}: expected an empty line after the opening and before </div>"
        )
    return Block(where, lang, text)


def _check_blocks(file: str, blocks: list[Block]) -> list[str]:
    """English and Hebrew alternate, each pair agrees, only the first has the title."""
    problems: list[str] = []
    pairs: list[tuple[Block, Block]] = []
    for here, after in zip_longest(blocks, blocks[1:]):
        if here.lang == "en" and after is not None and after.lang == "he":
            pairs.append((here, after))
        elif here.lang == "en":
            problems.append(
                f"{here.where}: expected Hebrew directly after it, got {_kind(after)}"
            )
    paired = {he.where for _, he in pairs}
    problems += [
        f"{block.where}: expected English directly before this Hebrew, got none"
        for block in blocks
        if block.lang == "he" and block.where not in paired
    ]
    if not pairs:
        problems.append(
            f"{file}: expected at least one English and Hebrew pair, got none"
        )
    for number, (en, he) in enumerate(pairs):
        problems += _check_title(en, first=number == 0)
        problems += _check_title(he, first=number == 0)
        problems += _check_pair(en, he)
    return problems


def _kind(block: Block | None) -> str:
    """What stands there, in a word."""
    if block is None:
        return "the end"
    return {None: "code", "en": "English", "he": "Hebrew"}.get(
        block.lang, "text of no language"
    )


def _check_title(block: Block, *, first: bool) -> list[str]:
    headings = dissect(block.text).headings
    if first and headings[:1] != [1]:
        return [
            f"{block.where}: expected the title, a heading of level 1,"
            f" got levels {headings}"
        ]
    if 1 in headings[int(first) :]:
        return [
            f"{block.where}: expected one title a language,"
            " got another heading of level 1"
        ]
    return []


def _check_pair(en: Block, he: Block) -> list[str]:
    """Each text is in its language, and all but the prose is the same."""
    english, hebrew = dissect(en.text), dissect(he.text)
    problems = _check_english(en.where, english) + _check_hebrew(he.where, hebrew)
    for part, name in _ORDERED.items():
        difference = _first_difference(
            name, getattr(english, part), getattr(hebrew, part)
        )
        problems += [f"{he.where}: {text}" for text in difference]
    for part, name in _COUNTED.items():
        difference = _counted_difference(
            name, getattr(english, part), getattr(hebrew, part)
        )
        problems += [f"{he.where}: {text}" for text in difference]
    return problems


def _first_difference(
    name: str, english: Sequence[object], hebrew: Sequence[object]
) -> list[str]:
    """Where two lists part, if they do."""
    for number, (en, he) in enumerate(zip_longest(english, hebrew), start=1):
        if en != he:
            expected, got = (
                repr(item) if item is not None else "nothing" for item in (en, he)
            )
            return [f"{name} {number}: expected {expected} as in English, got {got}"]
    return []


def _counted_difference(
    name: str, english: Counter[str], hebrew: Counter[str]
) -> list[str]:
    """What only one of two collections has, if anything."""
    missing, extra = english - hebrew, hebrew - english
    if not missing and not extra:
        return []
    expected, got = (
        sorted(items.elements()) or "nothing" for items in (missing, extra)
    )
    return [f"{name}: expected {expected} as in English, got {got}"]


def _check_english(where: str, parts: Anatomy) -> list[str]:
    text = " ".join([parts.prose, *parts.math_words, *parts.equations, *parts.formulas])
    found = "".join(_HEBREW.findall(text))
    return (
        [f"{where}: expected no Hebrew letters in English, got {found[:20]!r}"]
        if found
        else []
    )


def _check_hebrew(where: str, parts: Anatomy) -> list[str]:
    problems: list[str] = []
    niqqud = _NIQQUD.findall(parts.prose)
    if niqqud:
        problems.append(f"{where}: expected no niqqud, got U+{ord(niqqud[0]):04X}")
    letters = [letter for letter in parts.prose if letter.isalpha()]
    share = len(_HEBREW.findall(parts.prose)) / max(len(letters), 1)
    if len(letters) >= FEW_LETTERS and share < MOSTLY:
        wanted = f"at least {MOSTLY:.0%} of the letters to be Hebrew"
        problems.append(f"{where}: expected {wanted}, got {share:.0%}")
    return problems


def _check_code(where: str, cell: NotebookNode) -> list[str]:
    found = "".join(_HEBREW.findall(cell.source))
    if not found or cell.metadata.get("hebrew_data") is True:
        return []
    wanted = "no Hebrew letters in code without metadata.hebrew_data"
    return [f"{where}: expected {wanted}, got {found[:20]!r}"]


def _check_figure(where: str, cell: NotebookNode, names: set[str]) -> list[str]:
    """A figure has its own name, and caption and alternative text in both languages."""
    figure = cell.metadata.get("figure")
    if figure is None:
        images = [kind for kind in _output_types(cell) if kind.startswith("image/")]
        missing = f"{where}: expected metadata.figure beside an image, got none"
        return [missing] if images else []
    problems: list[str] = []
    name = str(figure.get("name", ""))
    if not re.fullmatch(r"fig-[\w-]+", name):
        problems.append(f"{where}: metadata.figure.name: expected fig-…, got {name!r}")
    if name in names:
        problems.append(
            f"{where}: metadata.figure.name: expected a new name, got {name!r} again"
        )
    names.add(name)
    for part in ("caption", "alt"):
        problems += _check_worded(
            f"{where}: metadata.figure.{part}", figure.get(part) or {}
        )
    return problems


def _check_worded(where: str, texts: dict[str, str]) -> list[str]:
    """A text that metadata gives in both languages."""
    en, he = (Block(f"{where}.{lang}", lang, texts.get(lang, "")) for lang in LANGUAGES)
    empty = [
        f"{b.where}: expected a text, got {b.text!r}"
        for b in (en, he)
        if not b.text.strip()
    ]
    return empty or _check_pair(en, he)


def _check_claims(where: str, cell: NotebookNode) -> list[str]:
    """Each claim that the cell printed has a Hebrew wording with the same numbers."""
    printed = [out.text for out in cell.outputs if out.get("name") == "stdout"]
    claims = parse_claims("".join(printed))
    worded = cell.metadata.get("claims", {}).get("he", [])
    if len(worded) != len(claims):
        wanted = f"{len(claims)} entries, one for each claim printed"
        return [f"{where}: metadata.claims.he: expected {wanted}, got {len(worded)}"]
    problems: list[str] = []
    for number, (claim, text) in enumerate(zip(claims, worded, strict=True), start=1):
        en = Block(f"{where}: claim {number}", "en", claim.statement)
        problems += _check_pair(
            en, Block(f"{where}: metadata.claims.he {number}", "he", text)
        )
    return problems


def _output_types(cell: NotebookNode) -> list[str]:
    return [kind for output in cell.outputs for kind in output.get("data", {})]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
