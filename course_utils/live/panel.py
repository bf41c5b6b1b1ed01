"""What every live panel shares.

A panel is one JavaScript module with anywidget's ``render``. In JupyterLab it is an
ipywidget. On a built page there is no kernel: the cell's ``text/html`` names the
module, its state travels in the output's metadata, and the site's loader calls the same
``render``. Weights that are too many to be loaded unasked travel beside the state, and
reach the reader when the panel asks for them. Elsewhere (GitHub, a notebook that has
not run yet) that HTML says how the figure comes to life. It holds no numbers, which
differ a little from one processor to the next.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from torch import Tensor, nn

from course_utils.places import Place

_HERE = Path(__file__).parent
_IMPORT = re.compile(
    r'^(?:import \{[^}]*\} from|@import) "\./([\w.]+)";\n', re.MULTILINE
)
_WORKER = re.compile(r'new URL\("\./(\w+\.js)", import\.meta\.url\)')

# What is shown where neither a kernel nor the site's script runs the panel
WAITING = (
    "<p>Run this cell to use the live figure.</p>"
    '<p dir="rtl" lang="he">הריצו את התא כדי להשתמש באיור האינטראקטיבי.</p>'
)


class LivePanel(anywidget.AnyWidget):
    """A widget that also works on a page without a kernel.

    A subclass names its module in ``module`` and has it in ``_esm`` and ``_css``, see
    :func:`self_contained`.

    Args:
        name: names the panel's state on the built site.
        state: what ``render`` needs, made of JSON's types.
        weights: what it needs once the reader asks for it, see ``weights.js``.
    """

    module: str
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, name: str, state: dict[str, Any], weights: bytes = b"") -> None:
        super().__init__(state=state)
        self.name, self.weights = name, weights
        if weights:
            self.on_msg(self._hear)

    def _hear(self, _: Any, asked: Any, __: Any) -> None:
        """Send the weights to a widget that asks for them."""
        if asked == {"kind": "weights"}:
            self.send(asked, [self.weights])

    def _repr_mimebundle_(
        self, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a kernel, the place on a page, and what anywidget adds.

        Its metadata is what Colab needs to find the widget's script.
        """
        bundle: Any = super()._repr_mimebundle_(**options) or {}
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        ours = {
            "text/plain": f"<live panel {self.name}>",
            "text/html": Place(self.module, self.name).html(WAITING),
        }
        beside: dict[str, Any] = {"state": self.state}
        if self.weights:
            beside["weights"] = base64.b64encode(self.weights).decode()
        return {**data, **ours}, {**metadata, "text/html": beside}


def as_bytes(x: Tensor, dtype: str = "<f4") -> bytes:
    """A tensor as numbers of a numpy dtype, row by row."""
    return x.detach().cpu().numpy().astype(np.dtype(dtype)).tobytes()


def encode(x: Tensor, dtype: str = "<f4") -> str:
    """The same as base64."""
    return base64.b64encode(as_bytes(x, dtype)).decode()


def linear_layers(network: nn.Sequential) -> list[dict[str, str]]:
    """Weights and biases of the linear layers, encoded."""
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return [
        {"weight": encode(layer.weight), "bias": encode(layer.bias)} for layer in linear
    ]


def self_contained(name: str) -> str:
    """A module or stylesheet of this folder, together with what it imports from here.

    The files of a page import each other; a widget has to be one piece, which holds
    each file once. The module of a worker, which is a page of its own, is a text in it.
    """
    taken: set[str] = set()

    def whole(name: str) -> str:
        if name in taken:
            return ""
        taken.add(name)
        text = (_HERE / name).read_text(encoding="utf-8")
        text = _IMPORT.sub(lambda found: whole(found[1]), text)
        return _WORKER.sub(lambda found: _address(self_contained(found[1])), text)

    return whole(name)


def _address(module: str) -> str:
    """JavaScript for an address where this module lies."""
    text = json.dumps(module)
    return f'URL.createObjectURL(new Blob([{text}], {{ type: "text/javascript" }}))'
