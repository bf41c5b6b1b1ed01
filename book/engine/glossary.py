"""The glossary: one file of terms, a page that lists them, links where they are used.

``book/strings/glossary.yml`` has each term in both languages. The ``{terms}`` directive
lists them; on every other page the first mention of a term becomes a link to its
definition, which a script shows in place (``scripts/preview.js``).
"""

from __future__ import annotations

import functools
import re
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from engine import BOOK
from engine.search import PREFIXES

_NEVER_INSIDE = (
    nodes.reference,
    addnodes.pending_xref,
    nodes.title,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.caption,
    nodes.table,
    nodes.container,
    nodes.strong,
    nodes.bullet_list,
)


@functools.cache
def terms() -> dict[str, dict[str, Any]]:
    """The content of ``glossary.yml``: id → language → term, forms, means."""
    path = BOOK / "strings" / "glossary.yml"
    content: dict[str, dict[str, Any]] = yaml.safe_load(
        path.read_text(encoding="utf-8")
    )
    return content


@functools.cache
def _forms(language: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern that finds any form of a linked term, and the id of each form."""
    found = {
        form.lower(): name
        for name, entry in terms().items()
        if entry.get("link", True)
        for form in [entry[language]["term"], *entry[language].get("forms", [])]
    }
    longest_first = sorted(found, key=len, reverse=True)
    forms = "|".join(map(re.escape, longest_first))
    if language == "he":
        prefix = rf"(?<![\w״־])([{PREFIXES}]{{0,2}}|[{PREFIXES}]{{1,3}}־)"
        return re.compile(rf"{prefix}({forms})(?![\w״])"), found
    return re.compile(rf"(?<![\w-])()({forms})(?![\w-])", re.IGNORECASE), found


def _place(entry: dict[str, Any], language: str) -> str:
    """Where a term stands in the list: an article before it does not count."""
    term: str = entry[language]["term"].lower()
    bare = term.removeprefix("ה")
    return bare if bare in entry[language].get("forms", []) else term


class Terms(SphinxDirective):
    """All terms with their definitions, in the order of their names."""

    def run(self) -> list[nodes.Node]:
        language = self.config.language
        listed = nodes.definition_list(classes=["terms"])
        entries = sorted(terms().items(), key=lambda item: _place(item[1], language))
        for name, entry in entries:
            own = entry[language]
            label = f"term-{name}"
            term = nodes.term("", own["term"], ids=[label], names=[label])
            if language == "he" and own["term"] != entry["en"]["term"]:
                other = nodes.inline("", entry["en"]["term"], classes=["ltr", "other"])
                term += [nodes.Text(" ("), other, nodes.Text(")")]
            definition = nodes.definition()
            source = self.get_source_info()[0]
            self.state.nested_parse(
                StringList([own["means"]], source), self.content_offset, definition
            )
            listed += nodes.definition_list_item("", term, definition)
            domain = self.env.get_domain("std")
            domain.note_hyperlink_target(  # type: ignore[attr-defined]
                label, self.env.docname, label, own["term"]
            )
        return [listed]


class LinkTerms(SphinxTransform):
    """The first mention of each term on a page leads to the glossary."""

    default_priority = 880  # after references of MyST became nodes

    def apply(self, **kwargs: Any) -> None:
        page = self.config.glossary_page
        if page not in self.env.found_docs or self.env.docname == page:
            return
        pattern, ids = _forms(self.config.language)
        seen: set[str] = set()
        for text in list(self.document.findall(nodes.Text)):
            if _may_link(text):
                self._link(text, pattern, ids, seen)

    def _link(
        self,
        text: nodes.Text,
        pattern: re.Pattern[str],
        ids: dict[str, str],
        seen: set[str],
    ) -> None:
        parts: list[nodes.Node] = []
        start, whole = 0, str(text)
        for found in pattern.finditer(whole):
            name = ids[found[2].lower()]
            if name in seen:
                continue
            seen.add(name)
            parts += [nodes.Text(whole[start : found.start(2)])]
            start = found.end()
            link = addnodes.pending_xref(
                "",
                nodes.inline("", found[2]),
                refdomain="std",
                reftype="ref",
                refexplicit=True,
                reftarget=f"term-{name}",
                refdoc=self.env.docname,
                refwarn=True,
            )
            parts.append(link)
        if parts:
            rest = [nodes.Text(whole[start:])] if start < len(whole) else []
            text.parent.replace(text, [*(p for p in parts if p.astext()), *rest])


def _may_link(text: nodes.Text) -> bool:
    """Whether a text stands in a paragraph, and not in a link, a name or a box."""
    node, inside = text.parent, False
    while node is not None and not isinstance(node, nodes.document):
        if isinstance(node, _NEVER_INSIDE):
            return False
        inside = inside or isinstance(node, nodes.paragraph)
        node = node.parent
    return inside


def register(app: Sphinx) -> None:
    """Add the directive and the links."""
    app.add_config_value("glossary_page", "book/glossary", "env", str)
    app.add_directive("terms", Terms)
    app.add_transform(LinkTerms)
