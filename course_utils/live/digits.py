"""A pad to draw a digit on, and the classifier that reads it."""

from __future__ import annotations

from typing import Any

from torch import nn

from course_utils.data.images import Images
from course_utils.data.mnist import DIGITS, SIDE
from course_utils.live.network import check_size, encode_grey, network_state
from course_utils.live.panel import LivePanel, self_contained
from course_utils.models.classifier import Classifier

SHAPE = (1, SIDE, SIDE)


class DigitPad(LivePanel):
    """The reader draws a digit, ``classifier`` reads it in the browser at each stroke.

    The drawing becomes an image as MNIST's digits did: scaled to fit 20 × 20 pixels,
    smoothed, its centre of mass in the middle of 28 × 28. The panel shows this image
    and the ten probabilities.

    Args:
        name: names the panel's state on the built site.
        classifier: trained; it runs as in evaluation.
        examples: images that a button shows one after the other.

    Raises:
        TypeError: not a :class:`Classifier`.
        ValueError: a classifier of other images or classes, examples that are not
            like its images, a state of more than 300,000 characters.
    """

    _esm = self_contained("digits.js")
    _css = self_contained("digits.css")
    module = "digits"

    def __init__(
        self, name: str, classifier: Classifier, examples: Images | None = None
    ) -> None:
        layers = classifier_layers(classifier)
        if examples is not None and examples.shape != SHAPE:
            raise ValueError(f"examples must have shape {SHAPE}, got {examples.shape}")
        state = {
            "layers": layers,
            "examples": encode_grey(examples.image) if examples is not None else "",
            "labels": examples.label.tolist() if examples is not None else [],
        }
        super().__init__(name, check_size(state))


def classifier_layers(classifier: Classifier) -> list[dict[str, Any]]:
    """The layers of a classifier of digits, images to logits.

    Raises:
        TypeError: not a :class:`Classifier`.
        ValueError: one of other images or classes.
    """
    if not isinstance(classifier, Classifier):
        got = type(classifier).__name__
        raise TypeError(f"the panel runs a Classifier, got {got}")
    classes = classifier.head.out_features
    if (classifier.shape, classes) != (SHAPE, DIGITS):
        raise ValueError(
            f"the panel reads images {SHAPE} of {DIGITS} classes, got a classifier"
            f" of {classifier.shape} and {classes}"
        )
    return network_state(nn.Sequential(*classifier.body, classifier.head))
