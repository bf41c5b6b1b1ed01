"""A slider over the layers of an affine coupling flow."""

from __future__ import annotations

from typing import Any

from torch import nn

from course_utils.data.rings import OlympicRings
from course_utils.live.panel import LivePanel, linear_layers, self_contained
from course_utils.live.stage import scene
from course_utils.models.normalizing_flow import (
    AffineCoupling,
    NormalizingFlow,
    Permutation,
)


class LayersPanel(LivePanel):
    """Points after each layer of ``flow``, computed in the browser.

    Args:
        name: names the panel's state on the built site.
        flow: a flow of affine couplings over the rings.
        data: the rings it was trained on, for their scale.

    Raises:
        TypeError: the flow has layers other than affine couplings and permutations.
    """

    _esm = self_contained("layers.js")
    _css = self_contained("layers.css")
    module = "layers"

    def __init__(self, name: str, flow: NormalizingFlow, data: OlympicRings) -> None:
        super().__init__(name, {**scene(data), "couplings": flow_state(flow)})


def flow_state(flow: NormalizingFlow) -> list[dict[str, Any]]:
    """The couplings of an affine flow for the browser, in the coordinates of the data.

    ``fixed`` is the axis a coupling keeps; a swap between couplings only renames the
    axes, so it turns into another ``fixed``.
    """
    swaps_ahead = sum(_swaps(layer) for layer in flow.layers)
    couplings = []
    for layer in flow.layers:
        if isinstance(layer, Permutation):
            swaps_ahead -= _swaps(layer)
        elif isinstance(layer, AffineCoupling):
            couplings.append(
                {
                    "fixed": swaps_ahead % 2,
                    "k": layer.features.k.tolist(),
                    "max_log_scale": layer.max_log_scale,
                    "log_scale": linear_layers(layer.log_scale),
                    "shift": linear_layers(layer.shift),
                }
            )
        else:
            raise TypeError(
                "the panel runs affine couplings and permutations,"
                f" got {type(layer).__name__}"
            )
    return couplings


def _swaps(layer: nn.Module) -> int:
    """1 for a permutation that swaps the two coordinates, else 0."""
    return int(isinstance(layer, Permutation) and layer.order.tolist() == [1, 0])
