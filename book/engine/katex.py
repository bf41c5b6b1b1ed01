"""Formulas, rendered to HTML and MathML at build time: no reader runs a script.

One Node process renders all formulas of a build: a line of JSON in, a line of JSON out.
It ends with the build. A formula that KaTeX cannot read is a warning, and builds fail
on warnings.
"""

from __future__ import annotations

import atexit
import html
import json
import subprocess
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

from engine import BOOK, frontend

LOGGER = logging.getLogger(__name__)


class Renderer:
    """A Node process that turns TeX into HTML."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._known: dict[tuple[str, bool], str] = {}

    def _ask(self, question: dict[str, Any]) -> dict[str, str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [frontend.node(), str(BOOK / "scripts" / "formulas.mjs")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            atexit.register(self.close)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the formula renderer ended without an answer")
        reply: dict[str, str] = json.loads(answer)
        return reply

    def render(self, tex: str, *, display: bool) -> str:
        """The HTML of one formula.

        Raises:
            ValueError: if KaTeX cannot read ``tex``.
        """
        key = (tex, display)
        if key not in self._known:
            options = {**self._options, "displayMode": display}
            reply = self._ask({"tex": tex, "options": options})
            if "error" in reply:
                raise ValueError(reply["error"])
            self._known[key] = reply["html"]
        return self._known[key]

    def close(self) -> None:
        """End the process; a later formula starts a new one."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None
            atexit.unregister(self.close)


def _render(self: HTML5Translator, node: nodes.Element, *, display: bool) -> str:
    renderer: Renderer = self.builder.app.formula_renderer  # type: ignore[attr-defined]
    try:
        return renderer.render(node.astext(), display=display)
    except ValueError as error:
        LOGGER.warning("%s", error, location=node, type="katex")
        return f"<code>{html.escape(node.astext())}</code>"


def _visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(self.starttag(node, "span", "", CLASS="math"))
    self.body.append(_render(self, node, display=False) + "</span>")
    raise nodes.SkipNode


def _visit_display(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", "", CLASS="math"))
    self.body.append(f'<div class="scroll">{_render(self, node, display=True)}</div>')
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def _start(app: Sphinx) -> None:
    app.formula_renderer = Renderer(app.config.katex_options)  # type: ignore[attr-defined]


def _end(app: Sphinx, exception: Exception | None) -> None:
    app.formula_renderer.close()  # type: ignore[attr-defined]


def register(app: Sphinx) -> None:
    """Make ``katex`` a choice of ``html_math_renderer``."""
    app.add_config_value("katex_options", {}, "html", dict)
    app.add_html_math_renderer(
        "katex",
        inline_renderers=(_visit_inline, None),
        block_renderers=(_visit_display, None),
    )
    app.connect("builder-inited", _start)
    app.connect("build-finished", _end)
