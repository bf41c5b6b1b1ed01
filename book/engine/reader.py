"""Reads a notebook for one edition.

A notebook holds both languages (see ``engine.pairs``). The reader keeps one: it drops
the other's markdown cells, unwraps the Hebrew ones, and gives each figure the picture,
the caption and the alternative text of the edition. Code folds by its role, printed
claims become a table, and what a run tabulates or prints is put into the reader's
language. Where an output carries a live figure, it drops the widget that only a running
kernel can serve and puts the figure's state into a file beside the page, and weights
that it loads later into another.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_output
from sphinx.application import Sphinx
from sphinx.util import logging

from course_utils.claims import Claim
from course_utils.places import Place, find_places
from engine.claims import (
    Numbered,
    claims_of,
    claims_table,
    split_printed,
    translate_table,
)
from engine.opening import open_chapter
from engine.pairs import cell_language, unwrap
from engine.roles import fold
from engine.strings import translate
from engine.words import IN_HEBREW, Words

LOGGER = logging.getLogger(__name__)
_WIDGET = "application/vnd.jupyter.widget-view+json"

# The summary of a listing's whole source, see course_utils.notebook.show_source
_WHOLE = re.compile(r'(<details class="whole"><summary>)[^<]*(</summary>)')

_states = Path()  # the folder that takes the states of live figures; set by each build


def states_folder(app: Sphinx) -> Path:
    """Where a build keeps the states: beside the read pages, where they come from."""
    return Path(app.doctreedir) / "live"


def read_notebook(text: str, lang: str) -> nbformat.NotebookNode:
    """The notebook in ``text`` in one language, for ``nb_custom_formats``."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata.pop("widgets", None)
    cells = []
    numbered = Numbered()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            fold(cell)
            _localise_figure(cell, lang)
            cell.outputs = [_without_widget(output, lang) for output in cell.outputs]
            cells += [cell, *_localise_outputs(cell, lang, numbered)]
            continue
        elif (language := cell_language(cell)) is not None:
            if language != lang:
                continue
            if language == "he":
                cell.source = unwrap(cell.source)
        cells.append(cell)
    notebook.cells = cells
    open_chapter(notebook, lang)
    return notebook


def _localise_figure(cell: nbformat.NotebookNode, lang: str) -> None:
    figure = cell.metadata.get("figure")
    if not figure:
        return
    settings: dict[str, Any] = cell.metadata.setdefault("mystnb", {})
    caption = (figure.get("caption") or {}).get(lang)
    if caption:
        settings["figure"] = {"caption": caption}
        if figure.get("name"):
            settings["figure"]["name"] = figure["name"]
    alt = (figure.get("alt") or {}).get(lang)
    if alt:
        settings["image"] = {**settings.get("image", {}), "alt": alt}


def _localise_outputs(
    cell: nbformat.NotebookNode, lang: str, numbered: Numbered
) -> list[nbformat.NotebookNode]:
    """Put the outputs into the edition's language, in place.

    Returns:
        cells that follow with what the cell printed: claims, as tables, and other
        lines. They follow a figure, whatever was printed first.
    """
    words = Words(cell.metadata.get("words")) if lang == "he" else None
    try:
        told = claims_of(cell, lang)
    except ValueError as error:
        LOGGER.warning("%s", error)
        told = claims_of(cell, "en")
    printed: list[nbformat.NotebookNode] = []
    shown: list[nbformat.NotebookNode] = []
    for output in cell.outputs:
        if output.get("name") == "stdout":
            printed += _printed(output.text, words, told, lang, numbered)
            continue
        data = output.get("data", {})
        hebrew = output.get("metadata", {}).pop(IN_HEBREW, {})
        if "image" in hebrew and lang == "he":
            data["image/png"] = hebrew["image"]
        if "text/markdown" in data:
            summary = translate("With all checks and details", lang)
            data["text/markdown"] = _WHOLE.sub(
                rf"\g<1>{summary}\g<2>", data["text/markdown"]
            )
        if words and "text/html" in data:
            data["text/html"] = translate_table(data["text/html"], words)
        shown.append(output)
    pictures = [one for one in shown if "image/png" in one.get("data", {})]
    # beside a figure, what the last line returned is of no interest
    cell.outputs = pictures if "figure" in cell.metadata else shown
    if not printed:
        return []
    # a cell without code is not shown
    after = new_code_cell("...", outputs=printed, metadata={"tags": ["remove-input"]})
    after.id = f"printed-{cell.id}"[:64]
    return [after]


def _printed(
    text: str, words: Words | None, told: list[Claim], lang: str, numbered: Numbered
) -> list[nbformat.NotebookNode]:
    """What a cell printed: lines as they are, and each run of claims as a table."""
    parts: list[nbformat.NotebookNode] = []
    for count, lines in split_printed(text):
        if count:
            rows = [(numbered(one), one) for one in told[:count]]
            del told[:count]
            table = claims_table(rows, lang)
            parts.append(new_output("display_data", {"text/html": table}))
            continue
        if words:
            lines = "\n".join(words(line) or line for line in lines.split("\n"))
        stream = {"output_type": "stream", "name": "stdout", "text": lines}
        parts.append(nbformat.from_dict(stream))
    return parts


def _without_widget(output: nbformat.NotebookNode, lang: str) -> nbformat.NotebookNode:
    data = output.get("data")
    if not data or "text/html" not in data:
        return output
    data.pop(_WIDGET, None)
    places = find_places(data["text/html"])
    if places:
        beside = output.get("metadata", {}).pop("text/html", {})
        state, weights = beside.get("state"), beside.get("weights", "")
        if len(places) > 1 or state is None:
            raise ValueError(
                f"an output holds one live figure and its state, got {places}"
                f" {'without a state' if state is None else 'with one'}:"
                " run the notebook again"
            )
        output["data"] = nbformat.from_dict(
            {"text/html": live_figure(places[0], state, lang, weights)}
        )
    return output


def live_figure(
    place: Place, state: dict[str, Any], lang: str, weights: str = ""
) -> str:
    """The place of a live figure on the page; its state goes into a file.

    So do weights that it loads when the reader asks, if any, given in base64. The files
    are named by their content too: two figures of one name do not meet, and a browser
    that kept an old state does not take it for the new one.
    """
    content = json.dumps(state, ensure_ascii=False).encode()
    later = base64.b64decode(weights)
    digest = hashlib.sha256(content + later).hexdigest()[:16]
    place = place._replace(state=f"{place.state}-{digest}")
    path = _states / f"{place.state}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if later:
        path.with_suffix(".bin").write_bytes(later)
    waiting = html.escape(translate("Interactive figure", lang))
    no_script = html.escape(translate("It needs JavaScript.", lang))
    return place.html(
        f'<p class="live-waiting">{waiting}<noscript> {no_script}</noscript></p>',
        failed=translate("It could not be loaded.", lang),
    )


def _keep_states(app: Sphinx) -> None:
    global _states
    _states = states_folder(app)


def _publish_states(app: Sphinx, exception: Exception | None) -> None:
    """Copy the states that pages name, and remove all others."""
    if exception is not None or app.builder.format != "html":
        return
    pages = [
        path.read_text(encoding="utf-8") for path in Path(app.outdir).rglob("*.html")
    ]
    named = {place.state for page in pages for place in find_places(page)}
    kept, shown = states_folder(app), Path(app.outdir) / "_static" / "live"
    for name in named:
        state, weights = kept / f"{name}.json", kept / f"{name}.bin"
        (shown / name).parent.mkdir(parents=True, exist_ok=True)
        for path in (state, weights) if weights.exists() else (state,):
            shutil.copyfile(path, (shown / name).with_name(path.name))
    for folder in (kept, shown):
        for path in (*folder.rglob("*.json"), *folder.rglob("*.bin")):
            if path.relative_to(folder).with_suffix("").as_posix() not in named:
                path.unlink()


def register(app: Sphinx) -> None:
    """Keep the states of live figures with the pages they came from."""
    app.connect("builder-inited", _keep_states)
    app.connect("build-finished", _publish_states)
