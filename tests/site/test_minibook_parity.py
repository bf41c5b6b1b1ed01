"""Whatever block one language of the mini-book loses, the checker tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import minibook
import pytest
from engine.anatomy import parser
from engine.parity import check_page
from markdown_it.token import Token

TEXTS = {"en": minibook.EN, "he": minibook.HE}


def blocks(source: str, start: int = 0) -> Iterator[tuple[int, int]]:
    """The lines of every block of some markdown, those of nested ones too."""
    for token in parser().parse(source):
        if token.map and token.type != "inline":
            first, last = token.map
            yield start + first, start + last
            if _holds_blocks(token):
                yield from blocks(token.content, start + first + 1)


def _holds_blocks(token: Token) -> bool:
    return token.type == "fence" and token.info.startswith("{")


def without(source: str, first: int, last: int) -> str:
    lines = source.splitlines(keepends=True)
    return "".join(lines[:first] + lines[last:])


LOSSES = [
    pytest.param(lang, number, span, id=f"{lang} {number} lines {span[0]}-{span[1]}")
    for lang, texts in TEXTS.items()
    for number, text in enumerate(texts)
    for span in sorted({*blocks(text)})
]


def check(texts: dict[str, list[str]], folder: Path) -> list[str]:
    path = folder / "page.md"
    pairs = zip(texts["en"], texts["he"], strict=True)
    marked = [
        f'+++ {{"lang": "en"}}\n{english}\n+++ {{"lang": "he"}}\n{hebrew}'
        for english, hebrew in pairs
    ]
    path.write_text("\n".join(marked), encoding="utf-8")
    return check_page(path)


def test_the_mini_book_is_in_parity(tmp_path: Path) -> None:
    assert check(TEXTS, tmp_path) == []


@pytest.mark.parametrize(("lang", "number", "span"), LOSSES)
def test_a_lost_block_is_told(
    tmp_path: Path, lang: str, number: int, span: tuple[int, int]
) -> None:
    texts = {language: [*whole] for language, whole in TEXTS.items()}
    texts[lang][number] = without(texts[lang][number], *span)
    place = f"block {2 * number + 2}: "
    assert any(place in problem for problem in check(texts, tmp_path))
