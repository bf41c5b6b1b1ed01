"""A book of two pages with all that the site engine serves, for the site tests."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import nbformat
from engine.pairs import wrap
from engine.words import IN_HEBREW as HEBREW

from course_utils.places import Place

TOC = """\
format: jb-book
root: index
parts:
  - caption: Flows
    chapters:
      - file: chapter
  - caption: Reference
    chapters:
      - file: claims
      - file: book/glossary
      - file: book/references
"""

INDEX = """\
(home)=
# A mini-book

English only, with {ref}`a link to a section <nf1>`.

```{chapters}
```

+++ {"lang": "he"}

(home)=
# ספרון

עברית בלבד, עם {ref}`קישור לסעיף <nf1>`.

```{chapters}
```
"""

CLAIMS = """\
# Claims

```{claims}
```

+++ {"lang": "he"}

# טענות

```{claims}
```
"""

REFERENCES = """\
# References

```{bibliography}
```

+++ {"lang": "he"}

# מקורות

```{bibliography}
```
"""

GLOSSARY = """\
# Glossary

```{terms}
```

+++ {"lang": "he"}

# מילון

```{terms}
```
"""

EN = [
    r"""# A fixture chapter

A paragraph with `code`, *emphasis*, **weight**, a [link](#nf1), and inline math
$p_x(x) = p_z(f(x))\,\lvert\det J\rvert$ of a density.

- first item
- second item with $\E[x]$
  1. nested
  2. list

> A quotation about densities.

| quantity | symbol | value |
|---|---|---|
| entropy | $H$ | 2.31 nats |
| a rather long description of a quantity that makes the table wide | $\log p$ | 0.031 |
""",
    r"""(nf1)=
## Question one

```{note}
A note with $x_t$ and a list:

- one
- two
```

```{warning}
A warning.
```

$$
\log p_x(x) = \log \N(f(x); 0, I)
 + \sum_{k=1}^{K} \sum_{d=1}^{D} s_{k,d}\left(x^{(k)}_{1:d}\right)
+ \text{a long term that is wide} + \log\left|\det \frac{\d f}{\d x}\right|
$$ (eq-change)

See {eq}`eq-change` and {numref}`fig-nf1`.

<details class="solution"><summary>Solution</summary>

The *solution*, with $a^2 + b^2$ and

$$
a = b
$$

</details>

<details class="clinic"><summary>A common mistake</summary>

Numbers: 3.2 instead of 2.31.

</details>
""",
    """(nf2)=
## Question two

Text about a velocity field that fills the page, as in {cite:t}`kingma2014auto`. A
second velocity field in $x_t$, and PyTorch, and 5 %.

### A section without a label

More text about couplings.
""",
]

HE = [
    r"""# פרק לדוגמה

פסקה עם `code`, עם *הדגשה*, עם **משקל**, עם [קישור](#nf1) ועם נוסחה בתוך השורה
$p_x(x) = p_z(f(x))\,\lvert\det J\rvert$ של צפיפות.

- פריט ראשון
- פריט שני עם $\E[x]$
  1. רשימה
  2. מקוננת

> ציטוט על צפיפויות.

| גודל | סימון | ערך |
|---|---|---|
| אנטרופיה | $H$ | 2.31 nats |
| תיאור ארוך למדי של גודל כלשהו, שבגללו הטבלה נעשית רחבה | $\log p$ | 0.031 |
""",
    r"""(nf1)=
## שאלה ראשונה

```{note}
הערה עם $x_t$ ועם רשימה:

- אחת
- שתיים
```

```{warning}
אזהרה, והמודלים הם זרימות.
```

$$
\log p_x(x) = \log \N(f(x); 0, I)
 + \sum_{k=1}^{K} \sum_{d=1}^{D} s_{k,d}\left(x^{(k)}_{1:d}\right)
+ \text{a long term that is wide} + \log\left|\det \frac{\d f}{\d x}\right|
$$ (eq-change)

ראו {eq}`eq-change` ואת {numref}`fig-nf1`.

<details class="solution"><summary>פתרון</summary>

*הפתרון*, עם $a^2 + b^2$ ועם

$$
a = b
$$

</details>

<details class="clinic"><summary>טעות נפוצה</summary>

במספרים: 3.2 במקום 2.31.

</details>
""",
    """(nf2)=
## שאלה שנייה

טקסט על שדה מהירות שממלא את העמוד, כמו אצל {cite:t}`kingma2014auto`. גם בשדה המהירות
השני ב־$x_t$, ב־PyTorch, ועוד 5 %.

### סעיף ללא תווית

עוד טקסט על שכבות צימוד.
""",
]

CODE = """from course_utils import Flow  # of a small flow

@torch.no_grad()
def sample(flow: Flow, n: int = 1000) -> torch.Tensor:
    # the inverse of every layer, last to first, in a comment that is long enough to scroll here
    return flow.inverse(torch.randn(n, 2)) * 0.5
"""  # noqa: E501

PRINTED = """\
step 100: loss 2.40
✓ NF1 spline flow: gap to the floor < 0.040 nats (measured 0.031)
✓ NF1a affine flow: gap < 0.2 nats, with a line long enough to wrap (measured 0.11)
"""

TABLE = (
    '<table class="measured" dir="ltr"><thead><tr><th scope="col">solver</th>'
    '<th scope="col">gap, %</th></tr></thead><tbody><tr><th scope="row">Euler</th>'
    "<td data-measured>4.5 %</td></tr></tbody></table>"
)

LIVE = """\
export default {
  render({ model, el }) {
    const text = document.createElement("output");
    text.textContent = `${model.get("lang")}: ${model.get("state").layers} layers`;
    el.append(text);
  },
};
"""


def png(height: float = 3) -> str:
    """A figure, as its notebook stores it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, height))
    axes.plot([0, 1, 2], [3, 2.4, 2.31], color="#0072B2")
    axes.axhline(2.31, color="#D55E00")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def _code(
    source: str, outputs: list[dict[str, Any]], **metadata: Any
) -> nbformat.NotebookNode:
    nodes = [nbformat.from_dict(output) for output in outputs]
    return nbformat.v4.new_code_cell(
        source, outputs=nodes, metadata=metadata, execution_count=1
    )


def _display(
    data: dict[str, Any], metadata: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data, "metadata": metadata or {}}


def _pair(number: int) -> list[nbformat.NotebookNode]:
    return [
        nbformat.v4.new_markdown_cell(EN[number], metadata={"lang": "en"}),
        nbformat.v4.new_markdown_cell(wrap(HE[number]), metadata={"lang": "he"}),
    ]


def notebook() -> nbformat.NotebookNode:
    """The chapter, with stored outputs of every kind."""
    stream = {"output_type": "stream", "name": "stdout", "text": PRINTED}
    figure = {
        "name": "fig-nf1",
        "caption": {"en": "The loss against $H$.", "he": "ההפסד לעומת $H$."},
        "alt": {"en": "A falling curve", "he": "עקומה יורדת"},
    }
    claims = {
        "he": [
            "זרימת ספליין: הפער מהרצפה < 0.040 nats",
            "זרימה אפינית: הפער < 0.2 nats",
        ]
    }
    live = Place("dot", "chapter/dot").html("<p>Run this cell to use it.</p>")
    live_outputs = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "0"},
        "text/html": live,
        "text/plain": "Dot()",
    }
    state = {"text/html": {"state": {"layers": 7}}}
    whole = f'<details class="whole"><summary>All</summary>\n\n```python\n{CODE}```\n\n'
    listing = f"```python\n{CODE}```\n\n{whole}</details>"
    source = {"text/markdown": listing, "text/plain": "<Markdown>"}
    drawn = {"image/png": png(), "text/plain": "<Figure>"}
    words = {
        "solver": "פותרן",
        "step {}: loss {}": "צעד {}: הפסד {}",
        "gap, %": "פער, %",
    }
    cells = [
        *_pair(0),
        _code(CODE, [], role="setup"),
        _code("show_source(sample)", [_display(source)], role="listing"),
        _code("sample(flow)", [], role="code"),
        *_pair(1),
        _code(
            "plot()",
            [_display(drawn, {HEBREW: {"words": {"loss": "הפסד"}, "image": png(2)}})],
            figure=figure,
            role="figure",
        ),
        _code("check()", [stream], claims=claims, role="claim", words=words),
        _code("table()", [_display({"text/html": TABLE})], words=words, role="table"),
        _code("dot", [_display(live_outputs, state)], role="panel"),
        *_pair(2),
    ]
    metadata = {
        "chapter": {
            "picture": "fig-nf1",
            "gives": {"en": "A small flow.", "he": "זרימה קטנה."},
            "needs": {"en": "[nothing](#home)", "he": "[דבר](#home)"},
            "minutes": 2,
            "thumbnail": {"en": png(), "he": png(2)},
        },
        "kernelspec": {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        },
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"0": {}}}},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def write(folder: Path) -> None:
    """Write the book's sources into ``folder``."""
    live = folder / "course_utils" / "live"
    live.mkdir(parents=True)
    (live / "dot.js").write_text(LIVE)
    (live / "dot.css").write_text(".live-figure { font-weight: 700; }\n")
    (folder / "_toc.yml").write_text(TOC)
    (folder / "index.md").write_text(INDEX)
    (folder / "claims.md").write_text(CLAIMS)
    (folder / "book").mkdir()
    (folder / "book" / "glossary.md").write_text(GLOSSARY)
    (folder / "book" / "references.md").write_text(REFERENCES)
    (folder / "chapter.ipynb").write_text(json.dumps(notebook()))
