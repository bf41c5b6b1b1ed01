"""The parts of the site engine, without a browser."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import minibook
import nbformat
import pytest
import yaml
from engine import BOOK, build, claims, frontend, pages, reader
from engine.direction import is_short
from engine.katex import Renderer
from engine.search import HebrewSearch
from engine.strings import hebrew, translate

CONFIG = yaml.safe_load((BOOK.parent / "_config.yml").read_text(encoding="utf-8"))


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reader, "_states", tmp_path)
    return tmp_path


def read(lang: str) -> nbformat.NotebookNode:
    return reader.read_notebook(json.dumps(minibook.notebook()), lang)


@pytest.mark.parametrize(
    ("lang", "title", "caption"),
    [
        ("en", "# A fixture chapter", "The loss against $H$."),
        ("he", "# פרק לדוגמה", "ההפסד לעומת $H$."),
    ],
)
def test_reader_keeps_one_language(
    states: Path, lang: str, title: str, caption: str
) -> None:
    notebook = read(lang)
    markdown = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert [cell.metadata.lang for cell in markdown] == [lang] * 7
    assert markdown[0].source.startswith(title)
    assert not any("<div dir" in cell.source for cell in markdown)
    drawn = [cell for cell in notebook.cells if cell.source == "plot()"]
    assert "figure" not in drawn[0].metadata.mystnb  # the opening has no number
    figure = drawn[1]
    # what opens the chapter, and its sources, are made by the engine
    assert [cell.source.split("\n")[0] for cell in markdown[1:3]] == [
        ":::{container} opening-caption",
        ":::{container} opening-facts",
    ]
    assert markdown[-1].source.startswith("(references-fig-nf1)=")
    assert figure.metadata.mystnb["figure"] == {"name": "fig-nf1", "caption": caption}
    assert figure.metadata.mystnb["image"]["alt"]


def test_reader_turns_a_widget_into_a_live_figure(states: Path) -> None:
    notebook = read("he")
    assert "widgets" not in notebook.metadata
    (output,) = next(cell for cell in notebook.cells if cell.source == "dot").outputs
    assert list(output.data) == ["text/html"]
    assert "איור אינטראקטיבי" in output.data["text/html"]
    (state,) = (states / "chapter").iterdir()
    assert f'data-state="chapter/{state.stem}"' in output.data["text/html"]
    assert json.loads(state.read_text()) == {"layers": 7}


@pytest.mark.parametrize("lost", ["its state", "its only place"])
def test_reader_needs_the_state_of_a_live_figure(states: Path, lost: str) -> None:
    notebook = minibook.notebook()
    (output,) = next(cell for cell in notebook.cells if cell.source == "dot").outputs
    if lost == "its state":
        output.metadata = {}
    else:
        output.data["text/html"] *= 2
    with pytest.raises(ValueError, match="one live figure and its state"):
        reader.read_notebook(json.dumps(notebook), "en")


def test_reader_needs_the_language_of_each_cell(states: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("no language")]
    )
    with pytest.raises(ValueError, match="lang"):
        reader.read_notebook(json.dumps(notebook), "en")


@pytest.fixture(scope="module")
def renderer() -> Any:
    frontend.install()
    renderer = Renderer(CONFIG["sphinx"]["config"]["katex_options"])
    yield renderer
    renderer.close()


def test_formulas_are_html_with_the_books_macros(renderer: Renderer) -> None:
    html = renderer.render(
        r"\E_{x \sim \N(0, I)}[x] = \int x\,p(x)\,\d x", display=True
    )
    assert 'class="katex-display"' in html
    assert "<math" in html
    assert "ש" in renderer.render(r"\text{רצפה של ש}", display=False)


def test_a_formula_that_cannot_be_read_is_an_error(renderer: Renderer) -> None:
    with pytest.raises(ValueError, match="expected"):
        renderer.render(r"\frac{a}{", display=False)
    with pytest.raises(ValueError, match="Undefined"):
        renderer.render(r"\unknown", display=False)


WORDS = ["מודל", "המודל", "ושבמודלים", "בית", "לבית", "והבית", "flow", "של", "כשהזרימה"]


def test_search_drops_prefixes_alike_in_both_languages() -> None:
    search = HebrewSearch({})
    stems = [search.stem(word) for word in WORDS]
    assert stems[0] == stems[1]
    assert stems[3] == stems[4] == stems[5]
    assert stems[6:8] == ["flow", "של"]
    script = f"{search.js_stemmer_code}\nconst stemmer = new Stemmer();\n"
    stems_of = f"{json.dumps(WORDS)}.map((w) => stemmer.stemWord(w))"
    script += f"console.log(JSON.stringify({stems_of}))"
    command = [frontend.node(), "--eval", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(answer) == stems


def test_claims_have_a_hebrew_wording_each() -> None:
    cell = next(cell for cell in minibook.notebook().cells if cell.source == "check()")
    english, worded = (claims.claims_of(cell, language) for language in ("en", "he"))
    assert [claim.question for claim in english] == ["NF1", "NF1a"]
    assert [claim.measured for claim in worded] == ["0.031", "0.11"]
    assert worded[0].statement == "זרימת ספליין: הפער מהרצפה < 0.040 nats"
    cell.metadata.claims.he.pop()
    with pytest.raises(ValueError, match=r"prints 2 claims .* has 1"):
        claims.claims_of(cell, "he")


@pytest.mark.parametrize(
    ("text", "left_to_right"),
    [
        ("ההפרש < 0.010 nats", ["< 0.010 nats"]),
        ("מחוץ לתיבה [-1, 5] x [-2, 1] > 0.080", ["[-1, 5] x [-2, 1] > 0.080"]),
        ("דירוג לפי log p_Z בלבד: D (בחוץ) = 1", ["log p_Z", "D", "= 1"]),
        ("מרחק מ־1 + log 2π, ממוצע של 1,000", ["1 + log 2π", "1,000"]),
        ("gap < 0.040 nats", ["gap < 0.040 nats"]),
    ],
)
def test_left_to_right_islands_in_a_claim(text: str, left_to_right: list[str]) -> None:
    parts = claims.split_islands(text)
    assert "".join(part for _, part in parts) == text
    assert [part for island, part in parts if island] == left_to_right


def test_hebrew_edition_is_derived() -> None:
    original = copy.deepcopy(CONFIG)
    config = build.edition_config(CONFIG, "he")
    assert original == CONFIG
    assert config["title"] == hebrew()["title"]
    assert config["sphinx"]["config"]["language"] == "he"
    assert config["sphinx"]["config"]["nb_custom_formats"][".ipynb"][1] == {
        "lang": "he"
    }
    toc = {"root": "index", "parts": [{"caption": "Flows", "chapters": []}]}
    assert build.edition_toc(toc, "he")["parts"][0]["caption"] == "זרימות"
    assert build.edition_toc(toc, "en") == toc
    with pytest.raises(KeyError, match="Unheard"):
        build.edition_toc({"parts": [{"caption": "Unheard of"}]}, "he")


def test_every_part_has_a_hebrew_name() -> None:
    toc = yaml.safe_load((BOOK.parent / "_toc.yml").read_text(encoding="utf-8"))
    build.edition_toc(toc, "he")


def test_a_missing_hebrew_word_is_an_error() -> None:
    assert translate("Search", "en") == "Search"
    assert translate("Search", "he") == "חיפוש"
    with pytest.raises(KeyError, match="Nowhere"):
        translate("Nowhere", "he")


def test_lock_file_names_no_registry() -> None:
    assert "resolved" not in (BOOK / "package-lock.json").read_text()


def test_npm_packages_come_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure or an interruption leaves nothing, also of a folder of before."""
    for file in (".npmrc", "package.json", "package-lock.json"):
        shutil.copy(BOOK / file, tmp_path)
    modules = tmp_path / "node_modules"
    monkeypatch.setattr(frontend, "BOOK", tmp_path)
    monkeypatch.setattr(frontend, "MODULES", modules)
    monkeypatch.setattr(frontend, "_STAMP", modules / ".lock-digest")
    calls = []

    def half(folder: Path) -> None:
        calls.append(folder)
        (folder / "node_modules" / "katex").mkdir(parents=True)
        raise KeyboardInterrupt

    def whole(folder: Path) -> None:
        calls.append(folder)
        (folder / "node_modules" / "katex").mkdir(parents=True)

    monkeypatch.setattr(frontend, "_npm_ci", half)
    with pytest.raises(KeyboardInterrupt):
        frontend.install()
    assert len(list(tmp_path.iterdir())) == 3
    modules.mkdir()
    (modules / "of an older lock file").touch()
    monkeypatch.setattr(frontend, "_npm_ci", whole)
    for _ in range(2):
        frontend.install()
    assert len(calls) == 2
    assert {path.name for path in modules.iterdir()} == {"katex", ".lock-digest"}
    assert len(list(tmp_path.iterdir())) == 4


# What Safari knows under the name of its engine, at least up to version 17
PREFIXED = "backdrop-filter|box-decoration-break|text-size-adjust|user-select"
SHEETS = [*BOOK.glob("styles/*.css"), *BOOK.parent.glob("course_utils/live/*.css")]


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda path: path.name)
def test_styles_are_there_for_safari_too(sheet: Path) -> None:
    for rule in re.findall(r"\{([^{}]*)\}", sheet.read_text(encoding="utf-8")):
        said = dict(re.findall(r"([\w-]+):\s*([^;]+);", rule))
        for name in re.findall(rf"(?<![\w-])(?:{PREFIXED})(?=:)", rule):
            assert said.get(f"-webkit-{name}") == said[name], f"{name} in {rule}"


@pytest.mark.parametrize(
    ("tex", "short"),
    [
        (r"\log p(x)", True),
        (r"x_t = \alpha(t)\,x_0 + \sigma(t)\,\varepsilon", True),
        (r"\frac{2t-1}{c^2}\,y", True),
        (r"\log p(y)=\log p_Z(\varphi^{-1}(y))+\log\left|\det J\right|", False),
        (r"v^*(y,t)=\mathbb{E}[\,y_1-y_0\mid y_t=y\,]", True),
        (r"\E\|v-(y_1-y_0)\|^2=\E\|v^*-(y_1-y_0)\|^2", False),
    ],
)
def test_a_formula_is_kept_whole_if_it_fits_a_phone(tex: str, short: bool) -> None:
    assert is_short(tex) == short


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a\n✓ NF1 x < 1 (measured 0)\n", [(0, "a"), (1, "")]),
        (
            "✓ NF1 x < 1 (measured 0)\n✓ NF2 y = 1 (measured 1)\nb\n",
            [(2, ""), (0, "b")],
        ),
        ("\n", []),
        ("a\nb", [(0, "a\nb")]),
    ],
)
def test_what_is_printed_is_split_into_claims_and_lines(
    text: str, parts: list[tuple[int, str]]
) -> None:
    assert list(claims.split_printed(text)) == parts


# --- figures in Hebrew ---


def test_a_figure_is_drawn_in_hebrew_and_stays_english() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from engine.figures import in_hebrew
    from engine.words import Words
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots()
    axis.plot([0, 1], label="floor of $x_1$")
    axis.set(xlabel="loss", xticks=[0, 1], xticklabels=["data", "RK4"], title="untold")
    axis.legend()
    _, said = in_hebrew(figure, Words({"floor of $x_1$": "הרצפה של $x_1$"}))
    assert said["words"] == {
        "loss": "הפסד",
        "data": "נתונים",
        "floor of $x_1$": "הרצפה של $x_1$",
        "untold": None,
    }
    assert axis.get_xlabel() == "loss"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["data", "RK4"]
    plt.close(figure)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("הפסד", "הפסד"),  # matplotlib arranges plain text by itself
        ("loss $x$", "loss $x$"),
        ("ההפסד של $x_1$", "$x_1$ לש דספהה"),
        ("$x_1$ (גלם)", "(םלג) $x_1$"),
        ("ההפסד $a$ ו־$b$\nכאן", "$b$־ו $a$ דספהה\nכאן"),
    ],
)
def test_hebrew_beside_a_formula_is_arranged_for_drawing(text: str, drawn: str) -> None:
    from engine.figures import arranged

    assert arranged(text) == drawn


@pytest.mark.parametrize(
    ("lang", "body", "expected"),
    [
        (
            "en",
            "<p>a “red 7”, “שבע אדום”</p>",
            '<p>a “red 7”, <bdi class="quoted" lang="he">“שבע אדום”</bdi></p>',
        ),
        (
            "he",
            "<p>אחת “a red 7”, “שבע אדום”, “שבע in red”</p>",
            '<p>אחת <bdi class="quoted" lang="en">“a red 7”</bdi>, “שבע אדום”,'
            " “שבע in red”</p>",
        ),
        (
            "en",
            '<img alt="“שבע”"><code>“שבע”</code><td class="quoted">“שבע”</td>',
            '<img alt="“שבע”"><code>“שבע”</code><td class="quoted">“שבע”</td>',
        ),
        (
            "en",
            '<td class="quoted"><span>“א”</span></td><td>“ב”</td>',
            '<td class="quoted"><span>“א”</span></td>'
            '<td><bdi class="quoted" lang="he">“ב”</bdi></td>',
        ),
    ],
)
def test_quotations_in_the_other_language_are_marked(
    lang: str, body: str, expected: str
) -> None:
    assert pages.mark_quotations(body, lang) == expected
