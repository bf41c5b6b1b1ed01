"""Noise on its way to the rings, with a choice of the solver and of its steps."""

from __future__ import annotations

from typing import Any

from course_utils.data import OlympicRings
from course_utils.live.panel import LivePanel, encode, linear_layers, self_contained
from course_utils.live.stage import scene
from course_utils.models.flow_matching import FlowMatching, VelocityNet


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
        TypeError: the velocity is not a preconditioned :class:`VelocityNet`.
        ValueError: the classes are not the five rings.
    """

    _esm = self_contained("flow.js")
    _css = self_contained("flow.css")
    module = "flow"

    def __init__(self, name: str, model: FlowMatching, data: OlympicRings) -> None:
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
    network = model.velocity
    if not isinstance(network, VelocityNet) or not network.preconditioned:
        plain = "a plain " if isinstance(network, VelocityNet) else ""
        raise TypeError(
            "the panel runs a preconditioned VelocityNet,"
            f" got {plain}{type(network).__name__}"
        )
    embedding = network.embedding
    return {
        "layers": linear_layers(network.net),
        "space_k": network.space.k.tolist(),
        "time_k": network.time.k.tolist(),
        "nearest": network.NEAREST,
        "classes": network.classes,
        "embedding": encode(embedding.weight) if embedding is not None else "",
    }
