"""Both languages say the same, and the checker finds each way they can part."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from engine.anatomy import dissect, numbers
from engine.pairs import ROOT, notebook_paths, page_paths, wrap
from engine.parity import check_notebook, check_page, main
from engine.words import IN_HEBREW, Words, is_wordless
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TITLE_EN = (
    "(flows)=\n# Normalizing flows\n\n"
    "A flow with `torch` learns $p(x)$ from 20,000 points."
)
TITLE_HE = (
    "(flows)=\n# זרימות מנרמלות\n\n"
    "זרימה לומדת את $p(x)$ מתוך 20000 נקודות בעזרת `torch`."
)
BODY_EN = r"""
(nf1)=
## NF1 The loss

The loss in 2-D, see {ref}`the start <flows>`, [the paper](https://example.org/a)
and [](#flows):

$$
L = -\log p(x) + \text{constant}
$$ (loss)

```{math}
:label: floor
H = \int p
```

:::{note} Careful
:class: tip
The word <span lang="he">שלום</span> is data, and `אות` too.
:::

- one
- two

1. first

| a | b |
|---|---|
| c | d |

```python
x = 1  # a comment
```

<details class="clinic"><summary>A common mistake</summary>

Ranking by $p_Z$ alone.

</details>
"""
BODY_HE = r"""
(nf1)=
## NF1 ההפסד

ההפסד במישור הדו־ממדי, ראו [במאמר](https://example.org/a), {ref}`בהתחלה <flows>`
ו־[](#flows):

$$
L = -\log p(x)   + \text{קבוע}
$$ (loss)

```{math}
:label: floor
H = \int p
```

:::{note} זהירות
:class: tip
המילה שלום היא חלק מהנתונים, וגם `אות`.
:::

- אחת
- שתיים

1. ראשונה

| א | ב |
|---|---|
| ג | ד |

```python
x = 1  # a comment
```

<details class="clinic"><summary>טעות נפוצה</summary>

דירוג לפי $p_Z$ בלבד.

</details>
"""
FIGURE = {
    "name": "fig-loss",
    "caption": {"en": "The loss $L$ of 3 runs.", "he": "ההפסד $L$ של 3 ריצות."},
    "alt": {"en": "Three falling curves.", "he": "שלוש עקומות יורדות."},
}
CLAIM = "✓ NF1 gap to the entropy floor < 0.040 nats (measured 0.031)\n"
TABLE = (
    '<table class="measured" dir="ltr"><thead><tr><th scope="col">gap</th></tr></thead>'
    '<tbody><tr><th scope="row">RK4</th><td data-measured>0.1</td></tr></tbody></table>'
)
CHAPTER = {
    "picture": "fig-loss",
    "gives": {"en": "A flow of 2 layers.", "he": "זרימה של 2 שכבות."},
    "needs": {"en": "[the start](#flows) first", "he": "קודם [ההתחלה](#flows)"},
}
CLAIM_HE = "הפער מרצפת האנטרופיה < 0.040 נאטים"


def good_notebook() -> NotebookNode:
    """A title pair, a body pair, a figure (cell 5) and a claim (cell 6)."""
    image = new_output("display_data", data={"image/png": "", "text/plain": "<Figure>"})
    printed = new_output("stream", name="stdout", text="time: 3 seconds\n" + CLAIM)
    table = new_output("execute_result", data={"text/html": TABLE})
    cells = [
        new_markdown_cell(TITLE_EN, metadata={"lang": "en"}),
        new_markdown_cell(wrap(TITLE_HE), metadata={"lang": "he"}),
        new_markdown_cell(BODY_EN, metadata={"lang": "en"}),
        new_markdown_cell(wrap(BODY_HE), metadata={"lang": "he"}),
        new_code_cell(
            "plot(L)", metadata={"figure": FIGURE, "role": "figure"}, outputs=[image]
        ),
        new_code_cell(
            "check()",
            metadata={
                "claims": {"he": [CLAIM_HE]},
                "role": "table",
                "words": {"time: {} seconds": "זמן: {} שניות", "gap": "פער"},
            },
            outputs=[printed, table],
        ),
    ]
    notebook = new_notebook(cells=cells, metadata={"chapter": CHAPTER})
    # a copy of all metadata
    return nbformat.reads(nbformat.writes(notebook), as_version=4)


def problems_of(notebook: NotebookNode, folder: Path) -> list[str]:
    path = folder / "planted.ipynb"
    nbformat.write(notebook, path)
    return check_notebook(path)


@pytest.mark.parametrize(
    "path", notebook_paths(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_notebook_is_in_parity(path: Path) -> None:
    assert check_notebook(path) == []


@pytest.mark.parametrize(
    "path", page_paths(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_page_is_in_parity(path: Path) -> None:
    assert check_page(path) == []


def test_the_good_notebook_passes(tmp_path: Path) -> None:
    assert problems_of(good_notebook(), tmp_path) == []


TEXT_FAULTS = [
    # cell, what stands there, what is planted, what the checker says
    (
        4,
        "## NF1",
        "### NF1",
        "part 2: expected 'heading 2' (NF1 The loss) as in English",
    ),
    (4, "(nf1)=", "(nf2)=", "part 1: expected 'label nf1' as in English, got 'label"),
    (4, "$$ (loss)", "$$", "expected 'label loss' as in English, got 'equation L = "),
    (4, "L = -", "L = +", "expected 'equation L = -"),
    (4, r"H = \int p", r"H = \int q", "expected 'equation H = "),
    (
        4,
        "$p_Z$",
        "$p_X$",
        "<details> > paragraph: "
        "inline formulas: expected ['p_Z'] as in English, got ['p_X']",
    ),
    (4, "org/a", "org/b", "links and references: expected ['https://example.org/a']"),
    (4, "<flows>", "<rings>", "links and references: expected ['ref:flows']"),
    (4, "(#flows)", "(#rings)", "links and references: expected ['#flows']"),
    (
        2,
        "`torch`",
        "`numpy`",
        "inline code: expected ['torch'] as in English, got ['numpy']",
    ),
    (4, "x = 1", "x = 2", "expected 'code block python"),
    (
        4,
        "- שתיים\n",
        "",
        "expected 'bullet list > list item' as in English, got 'ordered list'",
    ),
    (4, "| ג | ד |\n", "", "expected 'table > tbody' as in English, got 'code block"),
    (
        4,
        "| ג | ד |",
        "| ג |",
        "expected 'table > tbody > tr > td' (d) as in English, got "
        "'table > tbody > tr > td empty'",
    ),
    (4, "clinic", "proof", "expected '<details> class=\"clinic\"' as in English, got "),
    (4, "{note}", "{tip}", "expected '{note} :class: tip' as in English, got '{tip}"),
    (4, ":label: floor", ":label: roof", "expected 'label floor' as in English, got "),
    (4, ":class: tip", ":class: hot", "expected '{note} :class: tip' as in English"),
    (2, "20000", "30,000", "numbers: expected ['20000'] as in English, got ['30000']"),
    (
        1,
        "A flow",
        "A flow (זרימה)",
        "expected no Hebrew letters in English, got 'זרימה'",
    ),
    (
        3,
        r"\text{constant}",
        r"\text{קבוע}",
        "expected no Hebrew letters in English, got ",
    ),
    (3, '<span lang="he">שלום</span>', "שלום", "expected no Hebrew letters in English"),
    (
        2,
        "זרימה לומדת את",
        "The flow learns the density of",
        "60% of the letters to be Hebrew",
    ),
    (2, "זרימה לומדת", "זְרימה לומדת", "expected no niqqud, got U+05B0"),
    (
        2,
        '<div dir="rtl" lang="he">',
        "<div>",
        "a Hebrew cell must be wrapped in <div dir=",
    ),
    (
        2,
        "\n\n</div>",
        "\n</div>",
        "expected an empty line after the opening and before </div>",
    ),
    (
        1,
        "# Norm",
        "## Norm",
        "expected the title, a heading of level 1, got levels [2]",
    ),
    (
        3,
        "## NF1",
        "# NF1",
        "expected one title a language, got another heading of level 1",
    ),
    (
        5,
        "plot(L)",
        "plot('אות')",
        "expected no Hebrew letters in code without metadata.hebrew_data",
    ),
    (
        2,
        "20000 נקודות",
        "20000 נקודות, או .5 מהן",
        "expected a digit before the point of a decimal, which else changes sides, got"
        " '.5'",
    ),
]


@pytest.mark.parametrize(("number", "old", "new", "message"), TEXT_FAULTS)
def test_planted_text_fault(
    tmp_path: Path, number: int, old: str, new: str, message: str
) -> None:
    notebook = good_notebook()
    cell = notebook.cells[number - 1]
    assert old in cell.source
    cell.source = cell.source.replace(old, new)
    _assert_told(problems_of(notebook, tmp_path), number, cell.id, message)


DATA_FAULTS = [
    (
        4,
        lambda c: c.metadata.pop("lang"),
        "metadata.lang: expected one of ('en', 'he'), got ''",
    ),
    (
        4,
        lambda c: c.metadata.update(lang="fr"),
        "expected one of ('en', 'he'), got 'fr'",
    ),
    (
        3,
        lambda c: c.metadata.update(lang="he"),
        "expected English directly before this Hebrew",
    ),
    (
        5,
        lambda c: c.metadata.pop("figure"),
        "expected metadata.figure beside an image, got none",
    ),
    (
        5,
        lambda c: c.metadata.figure.pop("name"),
        "metadata.figure.name: expected fig-…, got ''",
    ),
    (5, lambda c: c.metadata.figure.update(name="loss"), "expected fig-…, got 'loss'"),
    (
        5,
        lambda c: c.metadata.figure.pop("alt"),
        "metadata.figure.alt.en: expected a text, got ''",
    ),
    (
        5,
        lambda c: c.metadata.figure.alt.update(he=" "),
        "figure.alt.he: expected a text, got ' '",
    ),
    (
        5,
        lambda c: c.metadata.figure.caption.pop("he"),
        "figure.caption.he: expected a text",
    ),
    (
        5,
        lambda c: c.metadata.figure.caption.update(he="ההפסד $M$ של 3 ריצות."),
        "metadata.figure.caption.he: part 1, paragraph: inline formulas: "
        "expected ['L'] as in English, got ['M']",
    ),
    (
        5,
        lambda c: c.metadata.figure.caption.update(he="ההפסד $L$ של 4 ריצות."),
        "figure.caption.he: part 1, paragraph: "
        "numbers: expected ['3'] as in English, got ['4']",
    ),
    (
        5,
        lambda c: c.metadata.figure.alt.update(en="שלוש עקומות"),
        "metadata.figure.alt.en: expected no Hebrew letters in English",
    ),
    (
        5,
        lambda c: c.metadata.figure.alt.update(he="Three falling curves."),
        "metadata.figure.alt.he: "
        "expected at least 60% of the letters to be Hebrew, got 0%",
    ),
    (
        6,
        lambda c: c.metadata.pop("claims"),
        "metadata.claims.he: expected 1 entries, one for each claim printed, got 0",
    ),
    (
        6,
        lambda c: c.metadata.claims.he.append("עוד"),
        "metadata.claims.he: expected 1 entries, one for each claim printed, got 2",
    ),
    (
        6,
        lambda c: c.metadata.claims.update(he=[CLAIM_HE.replace("0.040", "0.050")]),
        "metadata.claims.he 1: numbers: "
        "expected ['0.040'] as in English, got ['0.050']",
    ),
    (
        6,
        lambda c: c.metadata.claims.update(
            he=["gap to the entropy floor < 0.040 nats"]
        ),
        "metadata.claims.he 1: "
        "expected at least 60% of the letters to be Hebrew, got 0%",
    ),
]


@pytest.mark.parametrize(("number", "plant", "message"), DATA_FAULTS)
def test_planted_metadata_fault(
    tmp_path: Path, number: int, plant: Callable[[NotebookNode], object], message: str
) -> None:
    notebook = good_notebook()
    cell = notebook.cells[number - 1]
    plant(cell)
    _assert_told(problems_of(notebook, tmp_path), number, cell.id, message)


def _assert_told(problems: list[str], number: int, identity: str, message: str) -> None:
    """One of the problems names the notebook, the cell and what is wrong."""
    place = f"planted.ipynb: cell {number} (id {identity}): "
    assert any(place in problem and message in problem for problem in problems), (
        problems
    )


def test_order_of_cells(tmp_path: Path) -> None:
    notebook = good_notebook()
    # the figure between the title's languages
    notebook.cells.insert(1, notebook.cells.pop(4))
    problems = problems_of(notebook, tmp_path)
    assert any("cell 1 " in p and "directly after it, got code" in p for p in problems)
    assert any("cell 3 " in p and "directly before this Hebrew" in p for p in problems)


def test_a_missing_translation(tmp_path: Path) -> None:
    notebook = good_notebook()
    del notebook.cells[3]
    (problem,) = problems_of(notebook, tmp_path)
    assert "cell 3 " in problem
    assert "expected Hebrew directly after it, got code" in problem


def test_a_notebook_without_text(tmp_path: Path) -> None:
    (problem, _) = problems_of(new_notebook(cells=[]), tmp_path)
    assert "expected at least one English and Hebrew pair, got none" in problem


def test_figure_names_are_unique(tmp_path: Path) -> None:
    notebook = good_notebook()
    again = nbformat.from_dict(dict(notebook.cells[4], id="again"))
    notebook.cells.append(again)
    (problem,) = problems_of(notebook, tmp_path)
    assert "cell 7 (id again): metadata.figure.name" in problem
    assert "expected a new name, got 'fig-loss' again" in problem


def test_hebrew_data_may_stand_in_marked_code(tmp_path: Path) -> None:
    notebook = good_notebook()
    notebook.cells[4].source = "draw('שלום')"
    notebook.cells[4].metadata["hebrew_data"] = True
    assert problems_of(notebook, tmp_path) == []


def test_quotations_may_be_in_the_other_language(tmp_path: Path) -> None:
    notebook = good_notebook()
    for cell, title in ((0, "the captions"), (1, "הכתוביות")):
        quoted = "“שבע אדום” and “a picture of a red seven, in this language, as it is”"
        said = quoted.replace("and", "ו") if cell else quoted
        notebook.cells[cell].source = notebook.cells[cell].source.replace(
            "#", f"# {title} {said}", 1
        )
    assert problems_of(notebook, tmp_path) == []


WORD = "metadata.words: expected the Hebrew of"
PATTERN_FAULTS = [
    # what is planted, what the checker says
    (lambda n: n.metadata.pop("chapter"), "metadata.chapter: expected picture, gives"),
    (
        lambda n: n.metadata.chapter.update(picture="fig-none"),
        "must name a figure of the notebook, got 'fig-none'",
    ),
    (
        lambda n: n.metadata.chapter.gives.update(he="זרימה של 3 שכבות."),
        "metadata.chapter.gives.he: numbers: expected ['2'] as in English, got ['3']",
    ),
    (
        lambda n: n.metadata.chapter.needs.pop("en"),
        "metadata.chapter.needs.en: expected",
    ),
    (lambda n: n.cells[4].metadata.pop("role"), "metadata.role: expected one of setup"),
    (
        lambda n: n.cells[4].metadata.update(role="table"),
        "role table: expected no image in its output",
    ),
    (
        lambda n: n.cells[5].metadata.update(role="figure"),
        "role figure: expected an image in its output",
    ),
    (
        lambda n: n.cells[5].metadata.update(role="setup"),
        "expected setup for the first code cell, which imports, and for no other",
    ),
    (
        lambda n: n.cells[4].update(source="import torch"),
        "expected setup for the first code cell, which imports, and for no other",
    ),
    (
        lambda n: n.cells[5].update(source="show_source(f)"),
        "role table: show_source(…) and the role listing go together",
    ),
    (
        lambda n: n.cells[5].update(
            source="claim(1)", metadata=dict(n.cells[5].metadata, role="code")
        ),
        "role code: expected no claim(, which belongs into a folded cell",
    ),
    (
        lambda n: n.cells[5].update(
            source="plt.plot(x)", metadata=dict(n.cells[5].metadata, role="code")
        ),
        "role code: expected nothing that draws, got plt.",
    ),
    (
        lambda n: n.cells[4].update(
            source="x = 1\n" * 30 + "from course_utils import y",
            metadata=dict(n.cells[4].metadata, role="scratch"),
        ),
        "role scratch: expected at most 30 lines, got 31",
    ),
    (
        lambda n: n.cells[4].update(
            source="from course_utils import y",
            metadata=dict(n.cells[4].metadata, role="scratch"),
        ),
        "role scratch: expected nothing of course_utils",
    ),
    (
        lambda n: n.cells[5].metadata.words.pop("gap"),
        f"{WORD} 'gap', got none",
    ),
    (
        lambda n: n.cells[5].metadata.pop("words"),
        f"{WORD} 'time: 3 seconds', got none",
    ),
    (
        lambda n: (
            n.cells[4]
            .outputs[0]
            .metadata.update({IN_HEBREW: {"words": {"the gap": None}}})
        ),
        f"{WORD} 'the gap', got none",
    ),
    (
        lambda n: (
            n.cells[4]
            .outputs[0]
            .metadata.update({IN_HEBREW: {"words": {"floor": "תקרה"}}})
        ),
        "'floor' is drawn as 'תקרה', but its Hebrew is 'רצפה': run make refresh",
    ),
]


@pytest.mark.parametrize(("plant", "message"), PATTERN_FAULTS)
def test_planted_fault_of_the_pattern(
    tmp_path: Path, plant: Callable[[NotebookNode], object], message: str
) -> None:
    notebook = good_notebook()
    plant(notebook)
    problems = problems_of(notebook, tmp_path)
    assert any(message in problem for problem in problems), problems


PAGE = f"""---
title: x
---
{TITLE_EN}

+++ {{"lang": "he"}}
{TITLE_HE}

+++ {{"lang": "en"}}
{BODY_EN}

+++ {{"lang": "he"}}
{BODY_HE}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# זרימות", "# זרימות", ""),
        ("## NF1 ההפסד", "### NF1 ההפסד", "block 4: part 2: expected 'heading 2'"),
        ('+++ {"lang": "en"}\n', "", "block 3: expected English directly before"),
        (TITLE_HE, "", "block 1: expected Hebrew directly after it, got English"),
        ("20000", "20001", "block 2: part 3, paragraph: numbers: expected ['20000']"),
    ],
)
def test_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    path = tmp_path / "page.md"
    assert old in PAGE
    path.write_text(PAGE.replace(old, new), encoding="utf-8")
    problems = check_page(path)
    assert bool(problems) == bool(message)
    assert any(f"{path}: {message}" in p for p in problems) or not message, problems
    assert main([str(path)]) == int(bool(message))
    assert capsys.readouterr().out.splitlines() == problems


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("20,000 and 0.040", ["20000", "0.040"]),
        (".83 or 0.83", ["0.83", "0.83"]),
        ("in 2-D and 3D, 2 of 5.", ["2", "5"]),
        ("1,2345", ["1", "2345"]),
        ("20\u202f000", ["20000"]),
        ("NF1 ב־3 ריצות", ["1", "3"]),
    ],
)
def test_numbers(text: str, found: list[str]) -> None:
    assert numbers(text) == found


def test_what_a_text_is_taken_apart_into() -> None:
    source = (
        '# Title ![alt 1](a.png) <b title="x">bold</b> <!-- gone --> '
        "```not a fence```\n"
        "% a comment\n"
        "- see {cite}`kingma`, {math}`x^2`, {abbr}`VAE (variational)`, <https://a.org>\n"
        "````{admonition} Heading\n```python\n# no heading\n```\n````\n"
        r"\$5 and a note[^1]" + "\n"
        r"\begin{align}a&=b\end{align}" + "\n\n[^1]: well"
    )
    parts = dissect(source)
    assert [part.name for part in parts] == [
        "text",
        "heading 1",
        "bullet list",
        "bullet list > list item",
        "bullet list > list item > paragraph",
        "{admonition}",
        "{admonition} > title",
        "{admonition} > code block python\n# no heading",
        "paragraph",
        r"equation \begin{align}a&=b\end{align}",
        "footnote reference [^1]",
        "footnote reference > paragraph",
    ]
    prose = " ".join(word for part in parts for word in part.words)
    left = "Title alt 1 x bold see VAE variational Heading 5 and a note well"
    assert re.findall(r"\w+", prose) == left.split()
    found = [{*part.links, *part.code, *part.formulas} for part in parts]
    assert [one for one in found if one] == [
        {"a.png", "not a fence"},
        {"cite:kingma", "https://a.org", "x^2"},
        {"[^1]"},
    ]


# --- words of figures, tables and printed lines ---------------------------------------


@pytest.mark.parametrize(
    ("text", "he"),
    [
        ("training step", "צעד אימון"),
        ("epoch 5", "אפוק 5"),
        ("training time: 44.4 CPU-seconds", "זמן האימון: 44.4 שניות מעבד"),
        ("raw $x_1$", "$x_1$ מקורי"),
        ("from −1.5 to 1e-3", "בין −1.5 ל־1e-3"),
        ("RK4, 4", "RK4, 4"),
        ("$\\log p(x)$", "$\\log p(x)$"),
        ("epoch 5\nloss", "אפוק 5\nהפסד"),
        ("an unknown word", None),
        ("epoch 5\nunknown", None),
        ("epoch five", None),
    ],
)
def test_words_are_told_in_hebrew(text: str, he: str | None) -> None:
    assert Words({"from {} to {}": "בין {} ל־{}"})(text) == he


def test_a_cells_own_words_come_first() -> None:
    assert Words({"loss": "אובדן"})("loss") == "אובדן"
    assert is_wordless("KL, x = 3")
    assert not is_wordless("the KL")
    assert is_wordless("“Alice was”, 3 nats")
    assert not is_wordless("a quotation, “Alice was”")
