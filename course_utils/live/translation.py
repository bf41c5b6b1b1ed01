"""A digit of one domain of colours, carried to the other and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from course_utils.data.colours import check_rule
from course_utils.data.images import Images
from course_utils.data.mnist import DIGITS, SIDE
from course_utils.live.colours import palette
from course_utils.live.digits import SHAPE, classifier_layers
from course_utils.live.network import check_size, encode_grey, network_state
from course_utils.live.panel import LivePanel, self_contained
from course_utils.models.classifier import Classifier
from course_utils.networks.basic import frozen


class TranslationPanel(LivePanel):
    """x, G(x) and F(G(x)) of a digit that the reader takes or draws, and tints.

    The digit has the colour of its class in domain A until the reader chooses another.
    Below each of the three images stands the nearest of the ten colours, and whose
    colour it is in that domain.

    Args:
        name: names the panel's state on the built site.
        to_b, to_a: G, from A to B, and F, from B to A: layers in a row from
            (B, 3, 28, 28) to the same shape, pixels in [0, 1], see
            :func:`~course_utils.live.network.network_state`.
        examples: grey digits to take, at least one.
        rules: digit → colour, of A and of B.
        classifier: reads which digit is drawn; without one a drawing keeps the colour
            that was there.

    Raises:
        TypeError: a layer that the browser lacks, a classifier of another type, rules
            that are no rows of whole numbers.
        ValueError: a generator to another shape; examples of another shape; a rule
            without a colour for each of ten digits; a classifier of other images or
            classes; a state of more than 300,000 characters.
    """

    _esm = self_contained("translation.js")
    _css = self_contained("translation.css")
    module = "translation"

    def __init__(
        self,
        name: str,
        to_b: nn.Module,
        to_a: nn.Module,
        examples: Images,
        rules: tuple[Sequence[int], Sequence[int]],
        classifier: Classifier | None = None,
    ) -> None:
        layers = [network_state(generator) for generator in (to_b, to_a)]
        for generator in (to_b, to_a):
            _check_shape(generator)
        if examples.shape != SHAPE:
            raise ValueError(f"examples must have shape {SHAPE}, got {examples.shape}")
        if not len(examples):
            raise ValueError("there must be at least one example, got none")
        told = [check_rule(rule) for rule in rules]
        if [len(rule) for rule in told] != [DIGITS, DIGITS]:
            raise ValueError(
                f"there must be two rules for {DIGITS} digits each, got {told}"
            )
        state = {
            "to_b": layers[0],
            "to_a": layers[1],
            "classifier": classifier_layers(classifier) if classifier else [],
            "examples": encode_grey(examples.image),
            "labels": examples.label.tolist(),
            "rules": [list(rule) for rule in told],
            "palette": palette(),
        }
        super().__init__(name, check_size(state))


@torch.no_grad()
def _check_shape(generator: nn.Module) -> None:
    """Refuse a generator that does not make coloured images of coloured images."""
    weight = next(generator.parameters(), torch.zeros(()))
    x = weight.new_zeros(1, 3, SIDE, SIDE)
    with frozen(generator):
        shape = tuple(generator(x).shape)
    if shape != tuple(x.shape):
        raise ValueError(
            "the panel needs generators from (B, 3, 28, 28) to (B, 3, 28, 28), got one"
            f" to {shape}"
        )
