"""Claims on pages: a table in the reader's language instead of what a cell printed.

A claim is a line of a cell's printed output; ``course_utils.claims`` says what it looks
like. The Hebrew wording of a cell's claims stands in its ``metadata.claims.he``, in the
order of the lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape, unescape
from typing import Any

from course_utils.claims import Claim, parse_claims
from engine.direction import PERCENT
from engine.strings import translate
from engine.words import Words

# Words without Hebrew that stand together, after a space or a maqaf: they read
# from left to right
_ISLAND = re.compile(
    r"(?<![^\s־])([^\sא-ת־]+(?:\s+[^\sא-ת־]+)*(?<![,:;.]))(?=[,:;.]?(?:\s|$))"
)
_CELL = re.compile(r"(<(?:th|td)\b[^>]*>)([^<]*)(?=</t[hd]>)")


def printed(cell: Mapping[str, Any]) -> str:
    """What a code cell printed."""
    outputs = (o for o in cell.get("outputs", []) if o.get("name") == "stdout")
    return "".join("".join(output["text"]) for output in outputs)


def claims_of(cell: Mapping[str, Any], language: str) -> list[Claim]:
    """The claims of one code cell, worded in ``language``.

    Raises:
        ValueError: if the cell has Hebrew wordings, but not one for each claim.
    """
    claims = parse_claims(printed(cell))
    if language == "en" or not claims:
        return claims
    worded = cell["metadata"].get("claims", {}).get(language, [])
    if len(worded) != len(claims):
        raise ValueError(
            f"a cell prints {len(claims)} claims ({claims[0].question} …)"
            f" but its metadata.claims has {len(worded)} in {language!r}"
        )
    pairs = zip(claims, worded, strict=True)
    return [replace(claim, statement=str(text)) for claim, text in pairs]


class Numbered:
    """Gives each claim of a notebook an id: ``claim-nf1-2`` is the second of NF1."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def __call__(self, claim: Claim) -> str:
        question = claim.question.lower()
        self._count[question] += 1
        return f"claim-{question}-{self._count[question]}"


def split_printed(text: str) -> Iterator[tuple[int, str]]:
    """A printed text in runs: ``(number of claims, "")`` or ``(0, other lines)``."""
    claims, lines = 0, list[str]()
    for line in text.splitlines():
        if parse_claims(line):
            if lines:
                yield 0, "\n".join(lines)
                lines = []
            claims += 1
        else:
            if claims:
                yield claims, ""
                claims = 0
            lines.append(line)
    if claims:
        yield claims, ""
    if lines and any(line.strip() for line in lines):
        yield 0, "\n".join(lines)


def split_islands(text: str) -> list[tuple[bool, str]]:
    """The parts of a text, and whether each reads from left to right within Hebrew."""
    parts = _ISLAND.split(text)
    return [(bool(n % 2), part) for n, part in enumerate(parts) if part]


def islands(text: str) -> str:
    """A text as HTML; numbers, names and relations keep their order within Hebrew."""
    return "".join(
        f'<span class="ltr">{escape(part)}</span>' if island else escape(part)
        for island, part in split_islands(text)
    )


def shown_parts(claim: Claim, language: str) -> tuple[str, str, str]:
    """What a table shows of a claim: its text, its bound, what was measured."""
    text, bound = claim.parts
    shown = (text, bound, claim.measured)
    if language != "he":
        return shown
    return tuple(PERCENT.sub("%", part) for part in shown)  # type: ignore[return-value]


def claims_table(rows: Sequence[tuple[str, Claim]], language: str) -> str:
    """Claims as an HTML table.

    Args:
        rows: an id and a claim for each row.
        language: of the claims' words.
    """
    heads = [translate(word, language) for word in ("Claim", "Bound", "Measured")]
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in heads)
    body = []
    for name, claim in rows:
        text, bound, measured = shown_parts(claim, language)
        tick = '<span class="tick" aria-hidden="true">✓</span> '
        body.append(
            f'<tr id="{name}"><th scope="row">{tick}{islands(text)}</th>'
            f'<td><span class="ltr">{escape(bound)}</span></td>'
            f'<td><span class="ltr">{escape(measured)}</span></td></tr>'
        )
    return (
        f'<table class="claims"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def translate_table(html: str, words: Words) -> str:
    """A measured table with its words in Hebrew, from right to left."""
    if '<table class="measured"' not in html:
        return html

    def hebrew(found: re.Match[str]) -> str:
        text = unescape(found[2])
        said = words(text)
        shown = text if said is None else said
        return found[1] + islands(PERCENT.sub("%", shown))

    return _CELL.sub(hebrew, html.replace(' dir="ltr"', ""))


def table_words(html: str) -> list[str]:
    """The texts of a measured table."""
    if '<table class="measured"' not in html:
        return []
    return [unescape(text) for _, text in _CELL.findall(html)]
