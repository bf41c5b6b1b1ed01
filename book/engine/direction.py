"""What keeps its order and its place within Hebrew lines.

A prefix with its maqaf stays with the formula, the name or the code that follows, and a
short formula with the sign after it; a formula that fits a line is not broken; no space
stands before a percent sign.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

SHORT = 25  # signs: such a formula fits a line of a phone, with its prefix
# Commands that are words on the page; any other is one sign, or none
_WORD = re.compile(r"\\(log|exp|det|min|max|sin|cos|dim|KL)(?![A-Za-z])")
_LAYOUT = re.compile(
    r"\\(left|right|[bB]igg?[lr]?|frac|tfrac|text|mathrm|mathbb|mathcal|operatorname"
    r"|hat|bar|tilde|sqrt|[,;:! ])(?![A-Za-z])|[{}^_&\s]"
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_PREFIX = re.compile(r"(?:^|(?<=[\s(״]))[\u0590-\u05ff]{1,4}־$")
_MARK = re.compile(r"^[.,:;?!)״]+")
_JOINED = re.compile(r"(?<![\u0590-\u05ff])[\u05d0-\u05ea]{1,4}־[A-Za-z\d][\w-]*")
PERCENT = re.compile(r"(?<=\d)[ \u00a0]%")


def is_short(tex: str) -> bool:
    """Whether a formula is short enough not to be broken."""
    signs = _COMMAND.sub("x", _LAYOUT.sub("", _WORD.sub(r"\1", tex)))
    return len(signs) <= SHORT


class KeepTogether(SphinxPostTransform):
    """Wraps what must not be torn apart in ``<span class="together">``."""

    default_priority = 500
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        hebrew = self.config.language == "he"
        for formula in list(self.document.findall(nodes.math)):
            if is_short(formula.astext()):
                _wrap(formula, hebrew)
        if not hebrew:
            return
        for code in list(self.document.findall(nodes.literal)):
            if len(code.astext()) <= SHORT:
                _wrap(code, hebrew)
        for text in list(self.document.findall(nodes.Text)):
            if not isinstance(text.parent, nodes.TextElement) or isinstance(
                text.parent,
                nodes.literal
                | nodes.math
                | nodes.literal_block
                | nodes.raw
                | nodes.math_block,
            ):
                continue
            _join(text)


def _wrap(node: nodes.Element, hebrew: bool) -> None:
    """Put a node into a span with the prefix before it and the mark after it."""
    parent = node.parent
    at = parent.index(node)
    together = nodes.inline(classes=["together"])
    before = parent[at - 1] if at else None
    after = parent[at + 1] if at + 1 < len(parent) else None
    prefix = _PREFIX.search(str(before)) if isinstance(before, nodes.Text) else None
    mark = _MARK.match(str(after)) if isinstance(after, nodes.Text) else None
    if not (hebrew and prefix) and not mark and isinstance(node, nodes.literal):
        return
    parts: list[nodes.Node] = [node.deepcopy()]
    if hebrew and prefix:
        parts.insert(0, nodes.Text(prefix[0]))
        parent.replace(before, nodes.Text(str(before)[: prefix.start()]))
    if mark:
        parts.append(nodes.Text(mark[0]))
        parent.replace(after, nodes.Text(str(after)[mark.end() :]))
    together += parts
    parent.replace(node, together)


def _join(text: nodes.Text) -> None:
    """Keep Hebrew prefixes with Latin words; no space before a percent sign."""
    said = PERCENT.sub("%", str(text))
    parts: list[nodes.Node] = []
    start = 0
    for found in _JOINED.finditer(said):
        parts += [
            nodes.Text(said[start : found.start()]),
            nodes.inline("", found[0], classes=["together"]),
        ]
        start = found.end()
    if parts or said != str(text):
        rest = nodes.Text(said[start:])
        text.parent.replace(text, [p for p in [*parts, rest] if p.astext()])


def register(app: Sphinx) -> None:
    """Keep together what belongs together."""
    app.add_post_transform(KeepTogether)
