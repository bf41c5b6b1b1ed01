"""The parts of the site engine, without a browser."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import docutils.nodes
import minibook
import nbformat
import pytest
import yaml
from engine import BOOK, build, frontend, reader, results
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
    assert [cell.metadata.lang for cell in markdown] == [lang] * 3
    assert markdown[0].source.startswith(title)
    assert not any("<div dir" in cell.source for cell in markdown)
    figure = next(cell for cell in notebook.cells if cell.source == "plot()")
    assert figure.metadata.mystnb["figure"] == {"name": "fig-nf1", "caption": caption}
    assert figure.metadata.mystnb["image"]["alt"]


def test_reader_turns_a_widget_into_a_live_figure(states: Path) -> None:
    notebook = read("he")
    assert "widgets" not in notebook.metadata
    (output,) = next(cell for cell in notebook.cells if cell.source == "dot").outputs
    assert list(output.data) == ["text/html"]
    assert "איור אינטראקטיבי" in output.data["text/html"]
    assert json.loads((states / "chapter" / "dot.json").read_text()) == {"layers": 7}


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


def test_a_wrong_formula_stops_the_build(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    minibook.write(source)
    index = source / "index.md"
    index.write_text(index.read_text().replace("English only", r"Wrong $\frac{a$"))
    with pytest.raises(SystemExit, match="en edition"):
        build.build_site(source, tmp_path / "site")
    printed = capfd.readouterr().err
    assert "KaTeX parse error" in printed
    assert "index.md" in printed


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
    english, worded = (results.claims_of(cell, language) for language in ("en", "he"))
    assert [claim.question for claim in english] == ["NF1", "NF1a"]
    assert [claim.measured for claim in worded] == ["0.031", "0.11"]
    assert worded[0].statement == "זרימת ספליין: הפער מהרצפה < 0.040 nats"
    cell.metadata.claims.he.pop()
    with pytest.raises(ValueError, match=r"prints 2 claims .* has 1"):
        results.claims_of(cell, "he")


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
    parts = results.islands(text)
    assert "".join(part.astext() for part in parts) == text
    inline = [
        part.astext() for part in parts if isinstance(part, docutils.nodes.inline)
    ]
    assert inline == left_to_right


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
