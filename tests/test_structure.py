"""Twins have the same structure, and the checker finds what of it can differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.anatomy import definitions, dissect, plain
from engine.parity import check_page

PAGE = """# Title

+++ {{"lang": "he"}}
# כותרת

+++ {{"lang": "en"}}
{english}

+++ {{"lang": "he"}}
{hebrew}
"""


def problems_of(english: str, hebrew: str, folder: Path) -> list[str]:
    path = folder / "page.md"
    path.write_text(PAGE.format(english=english, hebrew=hebrew), encoding="utf-8")
    return check_page(path)


DIFFERENT = {
    # English, Hebrew that says the same, Hebrew that does not, what the checker says
    "a nested list and a flat one": (
        "- one\n  - two",
        "- אחת\n  - שתיים",
        "- אחת\n- שתיים",
        "part 4: expected 'bullet list > list item > bullet list' as in English, "
        "got 'bullet list > list item'",
    ),
    "a deeper list": (
        "- one\n  - two\n    - three\n  - four",
        "- אחת\n  - שתיים\n    - שלוש\n  - ארבע",
        "- אחת\n  - שתיים\n    - שלוש\n    - ארבע",
        "expected 'bullet list > list item > bullet list > list item' as in English, "
        "got 'bullet list > list item > bullet list > list item > bullet list > list",
    ),
    "numbers and bullets": (
        "1. one\n2. two",
        "1. אחת\n2. שתיים",
        "- אחת\n- שתיים",
        "part 1: expected 'ordered list' as in English, got 'bullet list'",
    ),
    "the first number": (
        "3. one",
        "3. אחת",
        "4. אחת",
        "expected 'ordered list start=3' as in English, got 'ordered list start=4'",
    ),
    "one list and two": (
        "- one\n- two",
        "* אחת\n* שתיים",
        "- אחת\n* שתיים",
        "expected 'bullet list > list item' as in English, got 'bullet list'",
    ),
    "a list in a note": (
        "```{note}\n- one\n- two\n```",
        "```{note}\n- אחת\n- שתיים\n```",
        "```{note}\n- אחת\n```\n\n- שתיים",
        "expected '{note} > bullet list > list item' as in English, got 'bullet list'",
    ),
    "a note in colons": (
        ":::{note}\n1. one\n   - two\n:::",
        ":::{note}\n1. אחת\n   - שתיים\n:::",
        ":::{note}\n1. אחת\n- שתיים\n:::",
        "expected '{note} > ordered list > list item > bullet list' as in English, "
        "got '{note} > bullet list'",
    ),
    "a list in a quotation": (
        "> - one\n> - two",
        "> - אחת\n> - שתיים",
        "> - אחת\n\n- שתיים",
        "expected 'blockquote > bullet list > list item' as in English, "
        "got 'bullet list'",
    ),
    "code in a list item": (
        "- one\n\n  ```python\n  x\n  ```",
        "- אחת\n\n  ```python\n  x\n  ```",
        "- אחת\n\n```python\nx\n```",
        "expected 'bullet list > list item > code block python\\nx' as in English, "
        "got 'code block python\\nx'",
    ),
    "an equation in a list item": (
        "- one\n\n  $$\n  x\n  $$\n- two",
        "- אחת\n\n  $$\n  x\n  $$\n- שתיים",
        "- אחת\n\n$$\nx\n$$\n\n- שתיים",
        "expected 'bullet list > list item > equation x' as in English, "
        "got 'equation x'",
    ),
    "an equation in a sentence": (
        "one\n\n$$\nx\n$$",
        "אחת\n\n$$\nx\n$$",
        "אחת $x$",
        "part 2: expected 'equation x' as in English, got nothing",
    ),
    "a column": (
        "|a|b|\n|-|-|\n|c|d|",
        "א|ב\n-|-\nג|ד",
        "|א|\n|-|\n|ג|",
        "expected 'table > thead > tr > th' (b) as in English, got 'table > tbody'",
    ),
    "a row": (
        "|a|\n|-|\n|b|\n|c|",
        "|א|\n|-|\n|ב|\n|ג|",
        "|א|\n|-|\n|ב|",
        "expected 'table > tbody > tr' as in English, got nothing",
    ),
    "the alignment of a column": (
        "|a|\n|:-|\n|b|",
        "|א|\n|:-|\n|ב|",
        "|א|\n|-:|\n|ב|",
        "th style=text-align:left' (a) as in English, got 'table > thead > tr > th sty",
    ),
    "an empty cell": (
        "|a|b|\n|-|-|\n|c||",
        "|א|ב|\n|-|-|\n|ג||",
        "|א|ב|\n|-|-|\n||ג|",
        "expected 'table > tbody > tr > td' (c) as in English, "
        "got 'table > tbody > tr > td empty'",
    ),
    "the order of cells": (
        "|a|b|\n|-|-|\n|1|2|",
        "|א|ב|\n|-|-|\n|1|2|",
        "|א|ב|\n|-|-|\n|2|1|",
        "part 8, table > tbody > tr > td: numbers: expected ['1'] as in English, "
        "got ['2']",
    ),
    "a paragraph": (
        "one\n\ntwo\n\nthree",
        "אחת\n\nשתיים\n\nשלוש",
        "אחת\n\nשתיים\nשלוש",
        "part 3: expected 'paragraph' (three) as in English, got nothing",
    ),
    "a paragraph in a list item": (
        "- one\n\n  two",
        "- אחת\n\n  שתיים",
        "- אחת\n\nשתיים",
        "expected 'bullet list > list item > paragraph' (two) as in English, "
        "got 'paragraph' (שתיים)",
    ),
    "a number of another paragraph": (
        "1 run\n\n2 runs",
        "ריצה 1\n\n2 ריצות",
        "2 ריצות\n\nריצה 1",
        "part 1, paragraph: numbers: expected ['1'] as in English, got ['2']",
    ),
    "the words of a cell": (
        "|a|\n|-|\n|one $x$|",
        "|א|\n|-|\n|אחת $x$|",
        "|א|\n|-|\n|$x$|",
        "td: expected words as in English, got no words",
    ),
    "a line break": (
        "one\\\ntwo",
        "אחת<br>שתיים",
        "אחת\nשתיים",
        "part 2: expected 'paragraph > <br>' as in English, got nothing",
    ),
    "a rule": ("one\n\n---", "אחת\n\n***", "אחת", "expected 'hr' as in English"),
    "a definition": (
        "one\n: two",
        "אחת\n: שתיים",
        "אחת\n\nשתיים",
        "part 1: expected 'dl' as in English, got 'paragraph' (אחת)",
    ),
    "what a label names": (
        "(a)=\n## One\n\ntwo",
        "(a)=\n## אחת\n\nשתיים",
        "## אחת\n\n(a)=\nשתיים",
        "part 1: expected 'label a' as in English, got 'heading 2' (אחת)",
    ),
    "the equation that a label names": (
        "$$\nx\n$$ (a)\n\n$$\ny\n$$",
        "```{math}\n:label: a\nx\n```\n\n$$\ny\n$$",
        "$$\nx\n$$\n\n$$\ny\n$$ (a)",
        "part 1: expected 'label a' as in English, got 'equation x'",
    ),
    "a label in HTML": (
        '<span id="a"></span>one',
        '<span id="a"></span>אחת',
        '<span id="b"></span>אחת',
        "expected 'paragraph > label a' as in English, got 'paragraph > label b'",
    ),
    "what details fold": (
        "<details><summary>one</summary>\n\ntwo\n\n</details>\n\nthree",
        "<details><summary>אחת</summary>\n\nשתיים\n\n</details>\n\nשלוש",
        "<details><summary>אחת</summary>\n\n</details>\n\nשתיים\n\nשלוש",
        "expected '<details> > paragraph' (two) as in English, got 'paragraph' (שתיים)",
    ),
    "the end of details": (
        "<details><summary>one</summary>\n\ntwo\n\n</details>",
        "<details><summary>אחת</summary>\n\nשתיים\n\n</details>",
        "<details><summary>אחת</summary>\n\nשתיים",
        "expected nothing as in English, got '<details> > unclosed tag <details>'",
    ),
    "the start of details": (
        "<details>\n\ntwo\n\n</details>",
        "<details>\n\nשתיים\n\n</details>",
        "שתיים\n\n</details>",
        "part 1: expected '<details>' as in English, got 'paragraph' (שתיים)",
    ),
    "the summary of details": (
        "<details><summary>one</summary>\n\ntwo\n\n</details>",
        "<details><summary>אחת</summary>\n\nשתיים\n\n</details>",
        "<details><summary></summary>\n\nשתיים\n\n</details>",
        "<details> > <summary>: expected words as in English, got no words",
    ),
    "details that are open": (
        "<details open>\n\none\n\n</details>",
        "<details open>\n\nאחת\n\n</details>",
        "<details>\n\nאחת\n\n</details>",
        "expected '<details> open=\"\"' as in English, got '<details>'",
    ),
    "a number in a link": (
        "[the 3 runs](#a)",
        "[3 הריצות](#a)",
        "[4 הריצות](#a)",
        "paragraph: numbers: expected ['3'] as in English, got ['4']",
    ),
    "the target of an image": (
        "![one](a.png)",
        "![אחת](a.png)",
        "![אחת](b.png)",
        "links and references: expected ['a.png'] as in English, got ['b.png']",
    ),
    "a target in HTML": (
        '<a href="#a">one</a>',
        "[אחת](#a)",
        '<a href="#b">אחת</a>',
        "links and references: expected ['#a'] as in English, got ['#b']",
    ),
    "a bare address": (
        "one https://a.org/b",
        "אחת <https://a.org/b>",
        "אחת https://a.org/c",
        "expected ['https://a.org/b'] as in English, got ['https://a.org/c']",
    ),
    "an escaped dollar in a formula": (
        r"one $a\$b$ of \$5",
        r"אחת $a\$b$ ב־\$5",
        r"אחת $a\$c$ ב־\$5",
        r"inline formulas: expected ['a\\$b'] as in English, got ['a\\$c']",
    ),
    "escaped dollars around no formula": (
        r"\$5 and \$6 and $x$",
        r"\$5 ועוד \$6 ועוד $x$",
        r"$5 ועוד $6 ועוד $x$",
        "inline formulas: expected nothing as in English, got",
    ),
    "a number in the words of a formula": (
        r"$\text{2 runs}$",
        r"$\text{2 ריצות}$",
        r"$\text{3 ריצות}$",
        "numbers: expected ['2'] as in English, got ['3']",
    ),
    "a number that may be broken": (
        "20,000 runs",
        "20\u202f000 ריצות",
        "20 000 ריצות",
        "numbers: expected ['20000'] as in English, got ['000', '20']",
    ),
    "a directive in a directive": (
        "````{note}\n```{tip}\none\n```\n````",
        "::::{note}\n:::{tip}\nאחת\n:::\n::::",
        "```{note}\n```\n\n```{tip}\nאחת\n```",
        "expected '{note} > {tip}' as in English, got '{tip}'",
    ),
    "a fault in a directive in a directive": (
        "````{note}\n```{tip}\n$x$\n```\n````",
        "````{note}\n```{tip}\n$x$\n```\n````",
        "````{note}\n```{tip}\n$y$\n```\n````",
        "{note} > {tip} > paragraph: inline formulas: expected ['x']",
    ),
    "the title of an admonition": (
        "```{admonition} One $x$\ntwo\n```",
        "```{admonition} אחת $x$\nשתיים\n```",
        "```{admonition} אחת $y$\nשתיים\n```",
        "part 2, {admonition} > title: inline formulas: expected ['x']",
    ),
    "the file of a figure": (
        "```{figure} a.png\n:alt: one\ntwo\n```",
        "```{figure} a.png\n:alt: אחת\nשתיים\n```",
        "```{figure} b.png\n:alt: אחת\nשתיים\n```",
        "part 1: expected '{figure} a.png' as in English, got '{figure} b.png'",
    ),
    "the alternative text of a figure": (
        "```{figure} a.png\n:alt: one\ntwo\n```",
        "```{figure} a.png\n:alt: אחת\nשתיים\n```",
        "```{figure} a.png\nשתיים\n```",
        "part 2: expected '{figure} > alt' (one) as in English, got '{figure} > para",
    ),
    "options as YAML": (
        "```{note}\n---\nclass: a\n---\none\n```",
        "```{note}\n:class: a\n\nאחת\n```",
        "```{note}\n---\nclass: b\n---\nאחת\n```",
        "expected '{note} :class: a' as in English, got '{note} :class: b'",
    ),
    "a footnote": (
        "one[^1]\n\n[^1]: two",
        "אחת[^1]\n\n[^1]: שתיים",
        "אחת\n\n[^1]: שתיים",
        "paragraph: links and references: expected ['[^1]'] as in English, got nothing",
    ),
    "the text of a footnote": (
        "one[^1]\n\n[^1]: two $x$\n\n    three",
        "אחת[^1]\n\n[^1]: שתיים $x$\n\n    שלוש",
        "אחת[^1]\n\n[^1]: שתיים $x$",
        "expected 'footnote reference > paragraph' (three) as in English, got nothing",
    ),
    "a footnote that nothing defines": (
        "one[^a]\n\n[^a]: two",
        "אחת[^a]\n\n[^a]: שתיים",
        "אחת[^a]",
        "links and references: expected ['[^a]'] as in English, got nothing",
    ),
    "a link that is defined below": (
        "[one][a]\n\n[a]: https://a.org",
        "[אחת][b]\n\n[b]: https://a.org",
        "[אחת][a]\n\n[a]: https://b.org",
        "expected ['https://a.org'] as in English, got ['https://b.org']",
    ),
}


@pytest.mark.parametrize(
    ("english", "hebrew", "other", "message"), DIFFERENT.values(), ids=DIFFERENT
)
def test_what_differs_is_told(
    tmp_path: Path, english: str, hebrew: str, other: str, message: str
) -> None:
    assert problems_of(english, hebrew, tmp_path) == []
    problems = problems_of(english, other, tmp_path)
    assert any("block 4: " in problem and message in problem for problem in problems), (
        problems
    )


ALIKE = {
    "loose and tight lists": ("- one\n- two", "- אחת\n\n- שתיים"),
    "numbers that the page counts": ("1. one\n2. two", "1. אחת\n1. שתיים"),
    "emphasis": ("**one** and *two*", "אחת ו*שתיים*"),
    "the order within a sentence": ("$x$ of `a` in 2 [b](#b)", "[ב](#b) 2 `a` $x$"),
    "a comment": ("one\n\n% two", "אחת <!-- שתיים -->"),
    "a direction": ("one", '<div dir="rtl">\n\n<span dir="rtl">אחת</span>\n\n</div>'),
    "a note that starts at once": ("```{note} one\n```", "```{note}\nאחת\n```"),
    "another language": ("the word <span lang='he'>שלום</span>", "המילה שלום"),
    "spaces in a formula": ("$a  b$\n\n$$\na  =\nb\n$$", "$a b$\n\n$$\na = b\n$$"),
    "inline code in two marks": ("`` a  b ``", "`a b`"),
}


@pytest.mark.parametrize(("english", "hebrew"), ALIKE.values(), ids=ALIKE)
def test_what_looks_alike_is_alike(tmp_path: Path, english: str, hebrew: str) -> None:
    assert problems_of(english, hebrew, tmp_path) == []


def test_a_text_may_use_what_another_defines(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    below = '\n+++ {"lang": "en"}\n[a]: #c\n\n+++ {"lang": "he"}\n[a]: #d\n'
    page = PAGE.format(english="[one][a]", hebrew="[אחת][a]") + below
    path.write_text(page, encoding="utf-8")
    (problem,) = check_page(path)
    assert "block 4: part 1, paragraph: links and references: " in problem
    assert "expected ['#c'] as in English, got ['#d']" in problem


def test_definitions_are_those_of_all_texts() -> None:
    known = definitions(["[a]: #b", "one", "[^2]: two"])
    (_, paragraph) = dissect("[one][a] and[^2] [three][c]", known)
    assert set(paragraph.links) == {"#b", "[^2]"}
    assert "".join(paragraph.words) == "one and [three][c]"


def test_plain_text_has_no_markdown() -> None:
    (part,) = plain("- $x$ is <b>2</b>")
    assert "".join(part.words) == "- $x$ is <b>2</b>"
    assert list(part.numbers) == ["2"]
    assert not part.formulas
