"""Noise on its way to the rings, with a choice of the solver and of its steps."""

from __future__ import annotations

from typing import Any

from course_utils.data.rings import OlympicRings
from course_utils.live.panel import LivePanel, encode, linear_layers, self_contained
from course_utils.live.stage import scene
from course_utils.models.flow_matching.model import FlowMatching
from course_utils.models.flow_matching.velocity import TimeFeatures, VelocityNet
from course_utils.networks.basic import MLPBackbone
from course_utils.networks.conditioning import ClassLabels, Unconditional


class FlowPanel(LivePanel):
    """Points that ``model`` carries from noise to the rings, computed in the browser.

    The reader chooses solver, steps and, if the model has classes, the ring; the panel
    shows the points at every time and the share that ends off the rings (with classes:
    off the ring of their class).

    Args:
        name: names the panel's state on the built site.
        model: a flow over the rings, with the rings as its classes or without any.
        data: the rings it was trained on, for their scale.

    Raises:
        TypeError: the velocity is not a preconditioned :class:`VelocityNet` of linear
            layers, or knows something else than classes.
        ValueError: samples that are no points of the plane; classes that are not the
            five rings.
    """

    _esm = self_contained("flow.js")
    _css = self_contained("flow.css")
    module = "flow"

    def __init__(self, name: str, model: FlowMatching, data: OlympicRings) -> None:
        if model.shape != (2,):
            raise ValueError(f"the panel shows points of shape (2,), got {model.shape}")
        if model.classes not in (0, len(data.NAMES)):
            raise ValueError(
                f"the panel knows {len(data.NAMES)} classes or none,"
                f" got {model.classes}"
            )
        state = {
            **scene(data),
            "velocity": velocity_state(model),
            "class_names": list(data.NAMES) if model.classes else [],
        }
        super().__init__(name, state)


def velocity_state(model: FlowMatching) -> dict[str, Any]:
    """The velocity network for the browser.

    The inputs of its first layer are the Fourier features of y/c with ``space_k``,
    those of the time with ``time_k``, and the class's row of ``embedding``.
    """
    expected = "the panel runs a preconditioned VelocityNet of linear layers"
    network = model.velocity
    if not isinstance(network, VelocityNet):
        raise TypeError(f"{expected}, got {type(network).__name__}")
    backbone, time, known = network.backbone, network.time, network.condition
    if not isinstance(time, TimeFeatures):
        raise TypeError(f"{expected}, got a plain VelocityNet")
    if not isinstance(backbone, MLPBackbone):
        raise TypeError(f"{expected}, got one with {type(backbone).__name__}")
    if not isinstance(known, Unconditional | ClassLabels):
        raise TypeError(f"{expected}, with classes or without, got one with {known}")
    table = known.table if isinstance(known, ClassLabels) else None
    return {
        "layers": linear_layers(backbone.net),
        "space_k": backbone.space.k.tolist(),
        "time_k": time.waves.k.tolist(),
        "nearest": time.NEAREST,
        "classes": network.classes,
        "embedding": encode(table.weight) if table is not None else "",
    }
