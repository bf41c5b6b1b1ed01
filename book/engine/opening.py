"""How a chapter opens: its picture, what to know before, minutes to read and to run.

``metadata.chapter`` of a notebook says it:

    {"picture": "fig-nf2", "gives": {"en": …, "he": …}, "needs": {"en": …, "he": …},
     "minutes": 2}

``picture`` names the figure that the chapter shows first; ``gives`` is the sentence on
its card on the home page; ``minutes``, of a run on one core, is written by a refresh.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from engine.strings import translate

WORDS_A_MINUTE = 200
MINUTES_A_FIGURE = 0.25
_HEAD = re.compile(r"\s*(?:\([\w-]+\)=\s*)?# .+\n+(?:[^\n]+\n?)+")
_CITATION = "{cite:"


def figure_named(notebook: NotebookNode, name: str) -> NotebookNode:
    """The code cell that draws a figure.

    Raises:
        ValueError: no cell of the notebook draws it.
    """
    for cell in notebook.cells:
        if cell.metadata.get("figure", {}).get("name") == name:
            return cell
    raise ValueError(
        f"metadata.chapter.picture must name a figure of the notebook, got {name!r}"
    )


def reading_minutes(notebook: NotebookNode) -> int:
    """Minutes to read a notebook of one language: its text and its figures."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    words = sum(len(text.split()) for text in texts)
    figures = sum("figure" in cell.metadata for cell in notebook.cells)
    minutes = words / WORDS_A_MINUTE + figures * MINUTES_A_FIGURE
    return 5 * max(1, round(minutes / 5))


def open_chapter(notebook: NotebookNode, lang: str) -> None:
    """Put picture and facts after the first paragraph, and the sources at the end.

    Args:
        notebook: of one language, its figures localised; it is changed.
        lang: the language.
    """
    chapter = notebook.metadata.get("chapter")
    if not chapter:
        return
    first = notebook.cells[0]
    head = _HEAD.match(first.source)
    if head is None:
        raise ValueError("a chapter must begin with its title and a paragraph")
    rest = first.source[head.end() :].strip()
    first.source = head.group().rstrip()
    picture = _picture(figure_named(notebook, chapter["picture"]), lang)
    facts = _text(_facts(notebook, chapter, lang), lang)
    notebook.cells[1:1] = [*picture, facts]
    if rest:
        notebook.cells.insert(1 + len(picture) + 1, _text(rest, lang))
    if any(_CITATION in cell.source for cell in notebook.cells):
        notebook.cells.append(_text(_sources(chapter, lang), lang))


def _text(source: str, lang: str) -> NotebookNode:
    return new_markdown_cell(source, metadata={"lang": lang})


def _picture(cell: NotebookNode, lang: str) -> list[NotebookNode]:
    """The output of a figure again, without a number, and a line that leads to it."""
    shown = copy.deepcopy(cell)
    shown.id = f"opening-{cell.id}"[:64]
    settings: dict[str, Any] = shown.metadata.get("mystnb", {})
    caption = settings.pop("figure", {}).get("caption", "")
    shown.metadata = NotebookNode(
        {"tags": ["remove-input"], "mystnb": settings, "role": "figure"}
    )
    shown.outputs = [
        output for output in shown.outputs if "image/png" in output.get("data", {})
    ][:1]
    name = cell.metadata["figure"]["name"]
    line = f":::{{container}} opening-caption\n{{numref}}`{name}`: {caption}\n:::"
    return [shown, _text(line, lang)]


def _facts(notebook: NotebookNode, chapter: dict[str, Any], lang: str) -> str:
    """What to know before, and the minutes."""
    needs = f"**{translate('Before you start', lang)}:** {chapter['needs'][lang]}"
    minutes = translate("{read} minutes to read", lang).format(
        read=reading_minutes(notebook)
    )
    if chapter.get("minutes"):
        run = translate("{run} minutes to run on one core", lang)
        minutes += " · " + run.format(run=chapter["minutes"])
    return f":::{{container}} opening-facts\n{needs}\n\n{minutes}\n:::"


def _sources(chapter: dict[str, Any], lang: str) -> str:
    label = f"references-{chapter['picture']}"
    title = translate("References", lang)
    listing = ":list: bullet\n:filter: docname in docnames"
    return f"({label})=\n## {title}\n\n```{{bibliography}}\n{listing}\n```"
