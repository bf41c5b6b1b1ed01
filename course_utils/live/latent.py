"""A map of a two-dimensional latent, and the image at the point the reader chooses."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from course_utils.checks import check_labels, check_points
from course_utils.data.colours import COLOURS
from course_utils.data.mnist import DIGITS, SIDE
from course_utils.live.colours import palette
from course_utils.live.network import check_decoder, check_size, network_state
from course_utils.live.panel import LivePanel, encode, self_contained


class LatentMap(LivePanel):
    """A point z on a square map and f(z), which ``decoder`` computes in the browser.

    Args:
        name: names the panel's state on the built site.
        decoder: f, layers in a row from (B, 2) to (B, 1, 28, 28) or (B, 3, 28, 28), see
            :func:`~course_utils.live.network.network_state`.
        low, high: the map shows low ≤ z₁, z₂ ≤ high.
        means: posterior means of some images, (N, 2), drawn as faint dots.
        label: the digits of these images, (N,).
        colour: their places in :data:`~course_utils.data.colours.COLOURS`, (N,); the
            reader then chooses whether the dots show digits or colours.

    Raises:
        TypeError: a layer that the browser lacks; a mean, label or colour of a wrong
            type.
        ValueError: low ≥ high; a decoder with other inputs or outputs; means without
            labels, colours without means, or of other shapes; a state of more than
            300,000 characters.
    """

    _esm = self_contained("latent.js")
    _css = self_contained("latent.css")
    module = "latent"

    def __init__(
        self,
        name: str,
        decoder: nn.Module,
        low: float,
        high: float,
        means: Tensor | None = None,
        label: Tensor | None = None,
        colour: Tensor | None = None,
    ) -> None:
        if not low < high:
            raise ValueError(f"low must be below high, got {low!r} and {high!r}")
        if (means is None) != (label is None):
            raise ValueError("the panel needs means and labels, or neither of them")
        if colour is not None and means is None:
            raise ValueError("the panel needs means with colours, got colours alone")
        layers = network_state(decoder)
        check_decoder(decoder, 2, (1, SIDE, SIDE), (3, SIDE, SIDE))
        dots: dict[str, Any] = {"z": "", "label": []}
        if means is not None and label is not None:
            check_points(means)
            check_labels(label, classes=DIGITS, batch=len(means))
            dots = {"z": encode(means, "<f2"), "label": label.tolist()}
        state = {
            "layers": layers,
            "low": float(low),
            "high": float(high),
            "dots": dots,
        }
        if means is not None and colour is not None:
            check_labels(colour, classes=len(COLOURS), batch=len(means))
            dots["colour"] = colour.tolist()
            state["palette"] = palette()
        super().__init__(name, check_size(state))
