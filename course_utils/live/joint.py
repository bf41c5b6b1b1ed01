"""A panel on a latent with parts for the digit, for the colour and for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_utils.checks import check_count, check_labels, check_samples
from course_utils.data.colours import COLOURS
from course_utils.data.mnist import DIGITS, SIDE
from course_utils.live.colours import palette
from course_utils.live.network import check_decoder, check_size, network_state
from course_utils.live.panel import LivePanel, encode, self_contained


class Dial(NamedTuple):
    """What one control of the panel puts into the latent, and what that stands for.

    Attributes:
        units: the places that it sets.
        rows: what it puts there, one row for each of its R positions, (R, places).
        stands_for: the digit of each row, or its place in
            :data:`~course_utils.data.colours.COLOURS`, (R,); several rows may stand for
            the same, and none for some.
    """

    units: Sequence[slice]
    rows: Tensor
    stands_for: Sequence[int]

    @classmethod
    def one_hot(cls, unit: slice, stands_for: Sequence[int]) -> Dial:
        """A categorical variable: each position is one of its codes."""
        return cls([unit], torch.eye(len(stands_for)), stands_for)


class JointPanel(LivePanel):
    """f(latent) for a digit, a colour and a style of the reader's choice.

    The digit's and the colour's places of the latent are set by the two dials; the rest
    is the style, z ~ N(0, I), of which two numbers have sliders. The panel shows the
    image large, and all the digits in the same colour and style.

    Args:
        name: names the panel's state on the built site.
        decoder: f, layers in a row from (B, D) to (B, 3, 28, 28), see
            :func:`~course_utils.live.network.network_state`.
        latent: D.
        digit, colour: the dials.
        sliders: the places of the style that have sliders; None takes the first two.

    Raises:
        TypeError: a layer that the browser lacks; places or rows of a wrong type.
        ValueError: a decoder with other inputs or outputs; dials or sliders whose
            places are not D's or overlap, rows of another size, what is no digit or
            colour; a state of more than 300,000 characters.
    """

    _esm = self_contained("joint.js")
    _css = self_contained("joint.css")
    module = "joint"

    def __init__(
        self,
        name: str,
        decoder: nn.Module,
        latent: int,
        digit: Dial,
        colour: Dial,
        sliders: Sequence[int] | None = None,
    ) -> None:
        latent = check_count("latent", latent)
        layers = network_state(decoder)
        check_decoder(decoder, latent, (3, SIDE, SIDE))
        dials = {
            "digit": _dial_state("digit", digit, latent, DIGITS),
            "colour": _dial_state("colour", colour, latent, len(COLOURS)),
        }
        taken = [*dials["digit"]["places"], *dials["colour"]["places"]]
        if len(set(taken)) < len(taken):
            raise ValueError(f"the dials must set different places, got {taken}")
        style = [place for place in range(latent) if place not in taken]
        chosen = style[:2] if sliders is None else list(sliders)
        if len(set(chosen)) < len(chosen) or not set(chosen) <= set(style):
            raise ValueError(
                f"sliders must be different places of the style, {style}, got {chosen}"
            )
        state = {
            "layers": layers,
            "latent": latent,
            **dials,
            "sliders": [[place, style.index(place) + 1] for place in chosen],
            "palette": palette(),
        }
        super().__init__(name, check_size(state))


def _dial_state(name: str, dial: Dial, latent: int, classes: int) -> dict[str, Any]:
    """A dial for the browser, its positions in the order of what they stand for.

    Raises:
        TypeError, ValueError: see :class:`JointPanel`.
    """
    places = [place for unit in dial.units for place in range(latent)[unit]]
    if not places:
        raise ValueError(
            f"the {name}'s dial must set some of {latent} places, got {dial.units}"
        )
    check_samples(dial.rows, shape=(len(places),), name=f"the {name}'s rows")
    stands_for = torch.as_tensor(dial.stands_for)
    check_labels(stands_for, classes=classes, batch=len(dial.rows))
    order = stands_for.argsort(stable=True)
    return {
        "places": places,
        "rows": encode(dial.rows[order]),
        "stands_for": stands_for[order].tolist(),
    }
