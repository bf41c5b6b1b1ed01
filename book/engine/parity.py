"""Do both languages say the same? ``python -m engine.parity [paths…]`` tells.

Twins have the same blocks in the same order and nesting (headings, labels, paragraphs,
lists, tables, equations, code, notes, details …), and each block has the same formulas,
code, links and numbers as its twin; see ``engine.anatomy`` for the parts. Hebrew is
free in the order of what stands within a block, and in what it emphasises: it sets a
term in bold where it first names it. Each problem names the file and the cell, counted
from 1.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from course_utils.claims import parse_claims
from course_utils.console import say
from engine.anatomy import Part, definitions, dissect, plain
from engine.claims import table_words
from engine.opening import figure_named
from engine.pairs import (
    LANGUAGES,
    notebook_paths,
    page_blocks,
    page_paths,
    unwrap,
    wrap,
)
from engine.roles import misfits
from engine.words import IN_HEBREW, QUOTED, Words

MOSTLY = 0.6  # of a Hebrew text's letters
FEW_LETTERS = 12  # a text with fewer is not judged
_HEBREW = re.compile("[א-ת]")
# not the maqaf, 05be
_NIQQUD = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_BARE_DECIMAL = re.compile(r"(?<![\w.)\]])\.\d+")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)

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


class Side(NamedTuple):
    """One side of a pair: where it stands and its parts."""

    where: str
    parts: list[Part]


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
    problems += _check_chapter(str(path), notebook)
    figures: set[str] = set()
    code = [(where, cell) for where, cell in named if cell.cell_type == "code"]
    for number, (where, cell) in enumerate(code):
        misfit = misfits(cell, first=number == 0)
        problems += [f"{where}: {problem}" for problem in misfit]
        problems += _check_code(where, cell)
        problems += _check_figure(where, cell, figures)
        problems += _check_claims(where, cell)
        problems += _check_words(where, cell)
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
        say(problem)
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
    for number, (en, he) in enumerate(_dissected(pairs)):
        problems += _check_title(en, first=number == 0)
        problems += _check_title(he, first=number == 0)
        problems += _check_pair(en, he)
    return problems


def _dissected(pairs: list[tuple[Block, Block]]) -> list[tuple[Side, Side]]:
    """Both sides of each pair, taken apart; what one text defines, another may use."""
    english = definitions(en.text for en, _ in pairs)
    hebrew = definitions(he.text for _, he in pairs)
    return [
        (
            Side(en.where, dissect(en.text, english)),
            Side(he.where, dissect(he.text, hebrew)),
        )
        for en, he in pairs
    ]


def _kind(block: Block | None) -> str:
    """What stands there, in a word."""
    if block is None:
        return "the end"
    return {None: "code", "en": "English", "he": "Hebrew"}.get(
        block.lang, "text of no language"
    )


def _check_title(side: Side, *, first: bool) -> list[str]:
    levels = [int(part.content) for part in side.parts if part.kind == "heading"]
    if first and levels[:1] != [1]:
        return [
            f"{side.where}: expected the title, a heading of level 1,"
            f" got levels {levels}"
        ]
    if 1 in levels[int(first) :]:
        return [
            f"{side.where}: expected one title a language,"
            " got another heading of level 1"
        ]
    return []


def _check_pair(en: Side, he: Side) -> list[str]:
    """Each text is in its language, and all but the prose is the same."""
    differences = _differences(en.parts, he.parts)
    return [
        *_check_english(en),
        *_check_hebrew(he),
        *(f"{he.where}: {difference}" for difference in differences),
    ]


def _differences(english: list[Part], hebrew: list[Part]) -> list[str]:
    """How two texts differ, up to the first block that is not the same."""
    differences: list[str] = []
    for number, (en, he) in enumerate(zip_longest(english, hebrew)):
        if en is None or he is None or en.name != he.name:
            return [
                *differences,
                f"part {number}: expected {_shown(en)} as in English, got {_shown(he)}",
            ]
        where = f"part {number}, {he.place}: " if number else ""
        differences += [f"{where}{text}" for text in _differences_within(en, he)]
    return differences


def _shown(part: Part | None) -> str:
    """A part for a message, with its first words to find it by."""
    if part is None:
        return "nothing"
    words = textwrap.shorten(" ".join(part.words), 40, placeholder=" …")
    return f"{part.name!r} ({words})" if words else repr(part.name)


def _differences_within(en: Part, he: Part) -> list[str]:
    """How the texts of two blocks differ."""
    differences: list[str] = []
    if en.worded != he.worded:
        expected, got = ("words" if part.worded else "no words" for part in (en, he))
        differences.append(f"expected {expected} as in English, got {got}")
    for attribute, name in _COUNTED.items():
        english: Counter[str] = getattr(en, attribute)
        hebrew: Counter[str] = getattr(he, attribute)
        missing = sorted((english - hebrew).elements()) or "nothing"
        extra = sorted((hebrew - english).elements()) or "nothing"
        if english != hebrew:
            differences.append(f"{name}: expected {missing} as in English, got {extra}")
    return differences


def _check_english(side: Side) -> list[str]:
    texts = (text for part in side.parts for text in [*part.words, *part.tex])
    found = "".join(_HEBREW.findall(_unquoted(" ".join(texts))))
    return (
        [f"{side.where}: expected no Hebrew letters in English, got {found[:20]!r}"]
        if found
        else []
    )


def _check_hebrew(side: Side) -> list[str]:
    problems: list[str] = []
    prose = " ".join(text for part in side.parts for text in part.words)
    niqqud = _NIQQUD.findall(prose)
    if niqqud:
        problems.append(f"{side.where}: expected no niqqud, got U+{ord(niqqud[0]):04X}")
    bare = _BARE_DECIMAL.findall(prose)
    if bare:
        problems.append(
            f"{side.where}: expected a digit before the point of a decimal, which else"
            f" changes sides, got {bare[0]!r}"
        )
    own = _unquoted(prose)
    letters = [letter for letter in own if letter.isalpha()]
    share = len(_HEBREW.findall(own)) / max(len(letters), 1)
    if len(letters) >= FEW_LETTERS and share < MOSTLY:
        wanted = f"at least {MOSTLY:.0%} of the letters to be Hebrew"
        problems.append(f"{side.where}: expected {wanted}, got {share:.0%}")
    return problems


def _unquoted(text: str) -> str:
    """A text without what stands between “ and ”, which both languages quote as is."""
    return QUOTED.sub("", text)


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
    for key, read in (("caption", dissect), ("alt", plain)):
        problems += _check_worded(
            f"{where}: metadata.figure.{key}", figure.get(key) or {}, read
        )
    return problems


def _check_chapter(file: str, notebook: NotebookNode) -> list[str]:
    """What a chapter says of itself, in both languages."""
    chapter = notebook.metadata.get("chapter")
    if not chapter:
        return [f"{file}: metadata.chapter: expected picture, gives, needs, got none"]
    problems: list[str] = []
    for key, read in (("gives", plain), ("needs", dissect)):
        problems += _check_worded(
            f"{file}: metadata.chapter.{key}", chapter.get(key) or {}, read
        )
    try:
        figure_named(notebook, chapter.get("picture", ""))
    except ValueError as error:
        problems.append(f"{file}: {error}")
    return problems


def _check_words(where: str, cell: NotebookNode) -> list[str]:
    """What figures, tables and printed lines say has its Hebrew."""
    words = Words(cell.metadata.get("words"))
    problems: list[str] = []
    said: list[str] = []
    for output in cell.outputs:
        data = output.get("data", {})
        said += table_words(data.get("text/html", ""))
        if output.get("name") == "stdout":
            lines = output.text.splitlines()
            said += [line for line in lines if not parse_claims(line)]
        drawn = output.get("metadata", {}).get(IN_HEBREW, {}).get("words", {})
        for text, he in drawn.items():
            if he is not None and words(text) != he:
                problems.append(
                    f"{where}: {text!r} is drawn as {he!r}, but its Hebrew is"
                    f" {words(text)!r}: run make refresh"
                )
        said += [text for text, he in drawn.items() if he is None]
    missing = [text for text in dict.fromkeys(said) if words(text) is None]
    return problems + [
        f"{where}: metadata.words: expected the Hebrew of {text!r}, got none"
        for text in missing
    ]


def _check_worded(
    where: str, texts: dict[str, str], read: Callable[[str], list[Part]]
) -> list[str]:
    """A text that metadata gives in both languages."""
    given = {f"{where}.{lang}": texts.get(lang, "") for lang in LANGUAGES}
    empty = [
        f"{place}: expected a text, got {text!r}"
        for place, text in given.items()
        if not text.strip()
    ]
    en, he = (Side(place, read(text)) for place, text in given.items())
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
        en = Side(f"{where}: claim {number}", plain(claim.statement))
        he = Side(f"{where}: metadata.claims.he {number}", plain(text))
        problems += _check_pair(en, he)
    return problems


def _output_types(cell: NotebookNode) -> list[str]:
    return [kind for output in cell.outputs for kind in output.get("data", {})]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
