"""Pages: one language of each prose page, section ids, finishing the HTML."""

from __future__ import annotations

import html
import re
import struct
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri

from course_utils.places import find_places
from engine import frontend
from engine.pairs import page_blocks
from engine.strings import hebrew, translate
from engine.words import QUOTED

DIRECTIONS = {"en": "ltr", "he": "rtl"}
_TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
_QUOTED = re.compile(r'<td data-measured>((?:<span class="ltr">)?“)')
_TAG = re.compile(r"(<[^>]*>)")
_AS_IS = re.compile(r'<(pre|code|script)\b|<(td) class="quoted"')
_LETTERS = {"en": re.compile("[A-Za-z]"), "he": re.compile("[א-ת]")}
_IMAGE = re.compile(r'<img\b([^>]*?)\bsrc="([^"]+)"([^>]*?)/?>')
# The prompt says what the label says, so the label can go.
_TOGGLE = re.compile(r'<summary aria-label="Toggle hidden content">')
_PROMPT = re.compile(
    r'(<p class="(?:collapsed|expanded) admonition-title">)(Show|Hide) the (\w+)'
)
_NUMBERED = re.compile(r'(<span class="caption-number">[^<]*?)\s*</span>')
# Where sources are listed, which are in English: on their page, and in each chapter
_SOURCES = re.compile(
    r'(<div class="citation"|<section id="references-(?:(?!</section>).)*?<ul)',
    re.DOTALL,
)
_FOLDED = re.compile(r'<details class="[^"]*\bhide\b')
_STYLE = re.compile(r'\s*\bstyle="([^"]*)"')
_PIXELS = re.compile(r"\b(width|height): (\d+)(?:\.\d+)?px")
# What the list of chapters tells assistive technology
_CONTENTS = {
    '<a class="current reference internal" href="#">': (
        '<a aria-current="page" href="#">'
    ),
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
}


def _pick_language(app: Sphinx, docname: str, source: list[str]) -> None:
    """Keep the blocks of this edition's language (prose pages only)."""
    if app.env.doc2path(docname).endswith(".md"):
        blocks = page_blocks(source[0])
        source[0] = "\n\n".join(
            text for lang, text in blocks if lang == app.config.language
        )


class SectionIds(SphinxTransform):
    """Put an id first that both editions share: the label, else the place on the page.

    Ids made from titles differ between languages; they stay, in second place.
    """

    default_priority = 300  # after labels have reached their sections

    def apply(self, **kwargs: Any) -> None:
        for number, section in enumerate(self.document.findall(nodes.section)):
            labels = [
                self.document.nameids[name]
                for name in section["names"]
                if self.document.nametypes.get(name) and self.document.nameids.get(name)
            ]
            if labels:
                stable = labels[0]
            else:
                stable = f"part-{number}"
                self.document.ids[stable] = section
            section["ids"] = [stable, *(one for one in section["ids"] if one != stable)]


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG file; None for another kind of file."""
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def _finish_image(app: Sphinx, found: re.Match[str]) -> str:
    """Tell the browser the size of an image, so that the page does not jump.

    The size stands in attributes, not in styles: the stylesheet may then make the image
    smaller and keep its shape.
    """
    before, address, after = found.groups()
    rest = _STYLE.sub("", before + after).rstrip()
    said = dict(_PIXELS.findall("".join(_STYLE.findall(before + after))))
    if not said and "width=" not in rest:
        name = Path(address).name
        original = next(
            (src for src, (_, to) in app.env.images.items() if to == name), None
        )
        size = png_size(Path(app.srcdir) / original) if original else None
        said = {"width": str(size[0]), "height": str(size[1])} if size else {}
    extra = "".join(f' {name}="{value}"' for name, value in sorted(said.items()))
    return f'<img{rest} src="{address}"{extra} loading="lazy" decoding="async">'


def finish(app: Sphinx, body: str) -> str:
    """What Sphinx's writer cannot say: scrolling tables, quotations, image sizes."""
    language = app.config.language
    box = (
        f'<div class="scroll" role="group" aria-label="{translate("Table", language)}">'
    )
    body = _TABLE.sub(lambda found: f"{box}{found.group()}</div>", body)
    body = _QUOTED.sub(r'<td class="quoted" dir="auto">\1', body)
    body = mark_quotations(body, language)
    body = _IMAGE.sub(lambda found: _finish_image(app, found), body)
    if language == "he":
        body = _SOURCES.sub(r'\1 lang="en" dir="ltr"', body)
    body = _NUMBERED.sub(r"\1:</span> ", body)
    body = _TOGGLE.sub("<summary>", body)
    return _PROMPT.sub(
        lambda found: found[1] + html.escape(_prompt(found[2], found[3], language)),
        body,
    )


def mark_quotations(body: str, language: str) -> str:
    """Mark what “ and ” quote from the other language: it runs in its own direction."""
    parts = _TAG.split(body)  # text, tag, text, tag, …, text
    ends = ""  # of what stands as it is
    for i, part in enumerate(parts):
        if i % 2:
            found = _AS_IS.match(part)
            if ends:
                ends = "" if part == ends else ends
            elif found:
                ends = f"</{found[1] or found[2]}>"
        elif not ends:
            parts[i] = QUOTED.sub(lambda said: _marked(said.group(), language), part)
    return "".join(parts)


def _marked(said: str, language: str) -> str:
    """A quotation, with its language if that is not the edition's."""
    other = "he" if language == "en" else "en"
    foreign = _LETTERS[other].search(said)
    if not foreign or (language == "he" and _LETTERS["he"].search(said)):
        return said
    return f'<bdi class="quoted" lang="{other}">{said}</bdi>'


def _prompt(verb: str, what: str, language: str) -> str:
    """The words above folded code. MyST-NB fills in the English name of what folds."""
    what = "code" if what == "source" else what
    return translate(f"{verb} the {{type}}", language).format(
        type=translate(what, language)
    )


def description(doctree: nodes.document | None) -> str:
    """A page's first words that hold no formula, for search engines and previews."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if isinstance(paragraph.parent, nodes.section) and not paragraph.next_node(
            nodes.math
        ):
            return textwrap.shorten(paragraph.astext(), width=160, placeholder=" …")
    return ""


def _complete_context(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    language = app.config.language
    context["description"] = description(doctree)
    context["dir"] = DIRECTIONS[language]
    context["t"] = lambda word: translate(word, language)
    context["version_of"] = lambda name: frontend.version(app, name)
    context["search_words"] = hebrew()["search"] if language == "he" else {}
    toctree = context["toctree"]
    contents = toctree(collapse=False, includehidden=True, titles_only=True)
    for found, better in _CONTENTS.items():
        contents = contents.replace(found, better)
    context["contents"] = contents
    context["sibling"] = ""
    if app.config.edition_sibling:
        here = app.builder.get_target_uri(pagename)
        up = relative_uri(here, "")
        context["sibling"] = (
            f"{'' if up == './' else up}{app.config.edition_sibling}/{here}"
        )
    if context.get("body"):
        context["body"] = finish(app, context["body"])
    body = context.get("body", "")
    context["folds"] = _FOLDED.search(body) is not None
    context["previews"] = 'class="reference internal"' in body
    live = {place.module for place in find_places(context.get("body", ""))}
    context["live"] = bool(live)
    styles = (path for path in frontend.live_modules(app) if path.suffix == ".css")
    context["live_styles"] = [path.name for path in styles if path.stem in live]


def register(app: Sphinx) -> None:
    """Connect the steps that pages go through."""
    app.connect("source-read", _pick_language)
    app.add_transform(SectionIds)
    app.connect("html-page-context", _complete_context)
