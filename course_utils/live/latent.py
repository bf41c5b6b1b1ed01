"""A map of a two-dimensional latent, and the image at the point the reader chooses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from course_utils.checks import check_labels, check_points
from course_utils.live.network import check_size, network_state
from course_utils.live.panel import LivePanel, encode, self_contained

DIGITS = 10


class LatentMap(LivePanel):
    """A point z on a square map and f(z), which ``decoder`` computes in the browser.

    Args:
        name: names the panel's state on the built site.
        decoder: f, layers in a row from (B, 2) to (B, 1, 28, 28), see
            :func:`~course_utils.live.network.network_state`.
        low, high: the map shows low ≤ z₁, z₂ ≤ high.
        means: posterior means of some images, (N, 2), drawn as faint dots.
        label: the digits of these images, (N,).

    Raises:
        TypeError: a layer that the browser lacks; a mean or a label of a wrong type.
        ValueError: low ≥ high; a decoder with other inputs or outputs; means without
            labels, or of other shapes; a state of more than 300,000 characters.
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
    ) -> None:
        if not low < high:
            raise ValueError(f"low must be below high, got {low!r} and {high!r}")
        if (means is None) != (label is None):
            raise ValueError("the panel needs means and labels, or neither of them")
        layers = network_state(decoder)
        _check_shapes(decoder)
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
        super().__init__(name, check_size(state))


@torch.no_grad()
def _check_shapes(decoder: nn.Module) -> None:
    """Refuse a decoder that does not make an image of two numbers."""
    expected = "a decoder from (B, 2) to (B, 1, 28, 28)"
    first = next(decoder.children(), None)
    if not isinstance(first, nn.Linear) or first.in_features != 2:
        raise ValueError(f"the panel needs {expected}, got one whose first is {first}")
    shape = tuple(decoder(torch.zeros(1, 2)).shape)
    if shape != (1, 1, 28, 28):
        raise ValueError(f"the panel needs {expected}, got one to {shape}")
