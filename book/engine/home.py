"""The home page: a picture that moves, and a card for every chapter of the book.

``{chapters}`` draws the cards from the notebooks that ``_toc.yml`` names, so none can
be forgotten; ``{moving}`` shows points that a trained network carries from noise to
data, with the state of the live panel of the chapter it names.
"""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path
from typing import Any, cast

import nbformat
from docutils import nodes
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from course_utils.places import find_places
from engine.opening import figure_named, reading_minutes
from engine.pages import png_size
from engine.pairs import cell_language
from engine.reader import live_figure
from engine.results import title_of
from engine.strings import translate


class cards(nodes.General, nodes.Element):  # noqa: N801, docutils' way
    """The cards of one part of the book; ``chapters`` says what each of them shows."""


class Chapters(SphinxDirective):
    """A heading and the cards of its chapters for each part of the book."""

    def run(self) -> list[nodes.Node]:
        result: list[nodes.Node] = []
        site_map = self.config.external_site_map
        for part in site_map[site_map.root.docname].subtrees:
            chapters = [
                self._chapter(docname)
                for docname in part.items
                if Path(self.env.doc2path(str(docname))).suffix == ".ipynb"
            ]
            if chapters:
                result.append(nodes.rubric("", part.caption))
                result.append(cards(chapters=chapters))
        return result

    def _chapter(self, docname: Any) -> dict[str, Any]:
        """What the card of a chapter shows."""
        language = self.config.language
        path = Path(self.env.doc2path(str(docname)))
        self.env.note_dependency(str(path))
        notebook = nbformat.read(path, as_version=4)
        chapter = notebook.metadata.get("chapter", {})
        title = title_of(notebook, language)
        notebook.cells = [
            cell for cell in notebook.cells if cell_language(cell) in (None, language)
        ]
        return {
            "docname": str(docname),
            "title": title,
            "gives": chapter.get("gives", {}).get(language, ""),
            "read": reading_minutes(notebook),
            "run": chapter.get("minutes"),
            "thumbnail": chapter.get("thumbnail", {}).get(language, ""),
            "alt": _alt(notebook, chapter, language),
        }


def _alt(notebook: NotebookNode, chapter: dict[str, Any], language: str) -> str:
    """The alternative text of the figure that a card shows."""
    if not chapter:
        return ""
    figure = figure_named(notebook, chapter["picture"]).metadata.figure
    return str(figure.get("alt", {}).get(language, ""))


def _visit_cards(self: HTML5Translator, node: cards) -> None:
    builder = cast(StandaloneHTMLBuilder, self.builder)
    language = builder.config.language
    here = builder.current_docname
    self.body.append('<ul class="cards">')
    for chapter in node["chapters"]:
        address = builder.get_relative_uri(here, chapter["docname"])
        times = translate("{read} minutes to read", language).format(**chapter)
        if chapter["run"]:
            run = translate("{run} to run", language).format(**chapter)
            times += f" · {run}"
        self.body.append(
            f'<li><a href="{html.escape(address)}">{_thumbnail(self, chapter)}'
            f"<strong>{html.escape(chapter['title'])}</strong></a>"
            f"<p>{html.escape(chapter['gives'])}</p>"
            f"<small>{html.escape(times)}</small></li>"
        )
    self.body.append("</ul>\n")
    raise nodes.SkipNode


def _thumbnail(self: HTML5Translator, chapter: dict[str, Any]) -> str:
    """The picture of a card; an empty frame where none is stored."""
    if not chapter["thumbnail"]:
        return '<span class="frame"></span>'
    content = base64.b64decode(chapter["thumbnail"])
    digest = hashlib.sha256(content).hexdigest()[:8]
    builder = cast(StandaloneHTMLBuilder, self.builder)
    name = f"{Path(chapter['docname']).name}-{digest}.png"
    path = _folder(builder.app) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    up = "../" * builder.current_docname.count("/")
    source = f"{up}_static/thumbnails/{name}"
    alt = html.escape(chapter["alt"])
    size = png_size(path)
    shape = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return f'<span class="frame"><img src="{source}" alt="{alt}"{shape}></span>'


def _folder(app: Sphinx) -> Path:
    return Path(app.outdir) / "_static" / "thumbnails"


class Moving(SphinxDirective):
    """Points that the network of a chapter's live panel carries from noise to data."""

    required_arguments = 1  # the chapter

    def run(self) -> list[nodes.Node]:
        docname = self.arguments[0]
        path = Path(self.env.doc2path(docname))
        self.env.note_dependency(str(path))
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                places = find_places(output.get("data", {}).get("text/html", ""))
                if places:
                    state = output.metadata["text/html"]["state"]
                    place = places[0]._replace(module="moving")
                    shown = live_figure(place, state, self.config.language)
                    return [nodes.raw("", shown, format="html")]
        raise self.error(f"{docname} has no live panel")


def _prune(app: Sphinx, exception: Exception | None) -> None:
    """Remove the pictures that no card shows any more."""
    if exception is not None or app.builder.format != "html":
        return
    files = Path(app.outdir).rglob("*.html")
    pages = [path.read_text(encoding="utf-8") for path in files]
    for path in _folder(app).glob("*.png"):
        if not any(path.name in page for page in pages):
            path.unlink()


def register(app: Sphinx) -> None:
    """Add the directives."""
    app.add_node(cards, html=(_visit_cards, None))
    app.add_directive("chapters", Chapters)
    app.add_directive("moving", Moving)
    app.connect("build-finished", _prune)
