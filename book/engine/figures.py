"""Draws each figure of a notebook in Hebrew too. Runs in the kernel, for a refresh.

``engine.refresh`` has the kernel execute ``figures.start(words)``. From then on, every
figure that a cell shows is drawn a second time with its texts in Hebrew, into an output
of the type :data:`IN_HEBREW`. No cell knows of it, and a reader's own kernel does
nothing of the kind.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from bidi.algorithm import get_display  # which mirrors brackets
from IPython.core.formatters import BaseFormatter
from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure
from matplotlib.text import Text
from traitlets import Unicode

from engine.words import IN_HEBREW, MATH, Words

_HEBREW = re.compile("[א-ת]")
_FORMULA = "\ufffc"  # "something else stands here": no letter, no digit


class HebrewFormatter(BaseFormatter):
    """PNG images of figures whose texts are Hebrew."""

    format_type = Unicode(IN_HEBREW)
    print_method = Unicode("_repr_he_png_")
    _return_type = (str, tuple)


def start(words: Mapping[str, str]) -> None:
    """Draw each figure that this kernel shows in Hebrew too, with these words."""
    known = Words(words)
    # a method of figures: choosing their resolution forgets what is registered for them
    Figure._repr_he_png_ = lambda figure: in_hebrew(figure, known)  # type: ignore[attr-defined]
    shell: Any = get_ipython()
    shown = shell.display_formatter
    shown.formatters[IN_HEBREW] = HebrewFormatter(parent=shown)
    if IN_HEBREW not in shown.active_types:
        shown.active_types = [*shown.active_types, IN_HEBREW]


def in_hebrew(figure: Figure, words: Words) -> tuple[str, dict[str, Any]]:
    """The figure in Hebrew as base64, with what was said for what.

    The second one is ``{"words": {english: hebrew}}``; a text that has no Hebrew is
    drawn as it is and stands there with None.
    """
    said: dict[str, str | None] = {}
    english = Text.get_text

    def hebrew(text: Text) -> str:
        drawn = english(text)
        if not drawn:
            return drawn
        he = words(drawn)
        if he != drawn:
            said[drawn] = he
        return arranged(drawn if he is None else he)

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the layout: said once already
        figure.canvas.draw()  # the English texts of ticks come before they are read
        with patch.object(Text, "get_text", hebrew):
            figure.savefig(
                file,
                format="png",
                dpi=2 * figure.dpi,
                bbox_inches="tight",
                facecolor=figure.get_facecolor(),
            )
        figure.canvas.draw()
    return base64.b64encode(file.getvalue()).decode(), {"words": said}


def arranged(text: str) -> str:
    """A text in the order in which matplotlib draws it.

    It arranges lines of plain text by itself. Where a formula stands in a line, it
    draws one sign after the other from the left.
    """
    return "\n".join(map(_arranged_line, text.split("\n")))


def _arranged_line(line: str) -> str:
    formulas = MATH.findall(line)
    if not formulas or not _HEBREW.search(line):
        return line
    shown = get_display(MATH.sub(_FORMULA, line), base_dir="R")
    for formula in reversed(formulas):
        shown = shown.replace(_FORMULA, formula, 1)
    return shown
