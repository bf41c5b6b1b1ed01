"""The ``{claims}`` directive: every claim that the committed notebooks printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from course_utils.claims import Claim
from engine.claims import claims_of, shown_parts, split_islands
from engine.pairs import cell_language, unwrap
from engine.strings import translate

LOGGER = logging.getLogger(__name__)

_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def inline_islands(text: str) -> list[nodes.Node]:
    """The text; numbers, names and relations keep their order within Hebrew."""
    return [
        nodes.inline("", part, classes=["ltr"]) if island else nodes.Text(part)
        for island, part in split_islands(text)
    ]


def title_of(notebook: dict[str, Any], language: str) -> str:
    """The text of the first heading in ``language``."""
    for cell in notebook["cells"]:
        if cell_language(cell) == language:
            source = "".join(cell["source"])
            found = _TITLE.search(unwrap(source) if language == "he" else source)
            if found:
                return found.group(1).strip()
    raise ValueError(f"the notebook has no title in {language!r}")


class Claims(SphinxDirective):
    """One table of claims for each notebook of the book."""

    def run(self) -> list[nodes.Node]:
        language = self.config.language
        result: list[nodes.Node] = []
        for docname in self.config.external_site_map:  # in the order of _toc.yml
            path = Path(self.env.doc2path(docname))
            if path.suffix == ".ipynb":
                self.env.note_dependency(str(path))
                result += self._section(
                    docname, json.loads(path.read_text(encoding="utf-8"))
                )
        if not result:
            none = translate(
                "There are no claims yet: no chapter prints one.", language
            )
            result.append(nodes.paragraph("", none))
        return result

    def _section(self, docname: str, notebook: dict[str, Any]) -> list[nodes.Node]:
        language = self.config.language
        claims: list[Claim] = []
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            try:
                claims += claims_of(cell, language)
            except ValueError as error:
                LOGGER.warning("%s: %s", docname, error, location=self.get_location())
                claims += claims_of(cell, "en")
        if not claims:
            return []
        title = title_of(notebook, language)
        caption = nodes.rubric("", title)
        return [caption, self._table(docname, claims)]

    def _table(self, docname: str, claims: list[Claim]) -> nodes.table:
        language = self.config.language
        heads = [
            translate(word, language)
            for word in ("Question", "Claim", "Bound", "Measured")
        ]
        group = nodes.tgroup("", cols=4)
        group += [nodes.colspec(colwidth=width) for width in (10, 54, 18, 18)]
        group += nodes.thead("", _row([nodes.paragraph("", head) for head in heads]))
        body = nodes.tbody()
        for claim in claims:
            text, bound, measured = shown_parts(claim, language)
            link = addnodes.pending_xref(
                "",
                nodes.inline("", claim.question, classes=["std", "std-ref"]),
                refdomain="std",
                reftype="ref",
                refexplicit=True,
                reftarget=claim.question.lower(),
                refdoc=self.env.docname,
                refwarn=True,
                claim_of=docname,
            )
            numbers = (
                nodes.inline("", one, classes=["ltr"]) for one in (bound, measured)
            )
            body += _row(
                [
                    nodes.paragraph("", "", link),
                    nodes.paragraph("", "", *inline_islands(text)),
                    *(nodes.paragraph("", "", one) for one in numbers),
                ]
            )
        group += body
        return nodes.table("", group, classes=["claims"])


def _row(paragraphs: list[nodes.paragraph]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", paragraph) for paragraph in paragraphs))


def _part_of_a_question(
    app: Sphinx,
    env: BuildEnvironment,
    node: addnodes.pending_xref,
    content: nodes.Element,
) -> nodes.Element | None:
    """A claim ``NF3a`` without a section of its own belongs to ``NF3``."""
    if "claim_of" not in node or not node["reftarget"][-1].isalpha():
        return None
    whole = node["reftarget"][:-1]
    return env.get_domain("std").resolve_xref(
        env, node["refdoc"], app.builder, "ref", whole, node, content
    )


def register(app: Sphinx) -> None:
    """Add the directive."""
    app.add_directive("claims", Claims)
    app.connect("missing-reference", _part_of_a_question)
