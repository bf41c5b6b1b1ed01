"""What makes a code find the digits without labels: one ingredient at a time, by seed.

Each row trains a code of ten values on 20,000 coloured digits, and holds it against what
is known of 10,000 test images: digit, colour, ink and slant. Settings were chosen with
images of the training set; the test images served for these measurements alone.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch
from torch import Tensor

from course_utils.data.colours import ColouredImages, random_tints
from course_utils.data.images import Images, ImageSplits
from course_utils.data.mnist import load_mnist
from course_utils.metrics import mutual_information, one_to_one_accuracy
from course_utils.models.clustering import (
    DigitCode,
    Views,
    train_digit_code,
    train_labels,
)
from course_utils.models.vae.joint import JointVAE, coloured_vae, train_joint_vae
from course_utils.studies.store import SECONDS, Measured, Study

TENTHS = 10  # groups that ink and slant are put into
EPOCHS = 17  # of a code; its two trainings share them


# --- what is known of an image --------------------------------------------------------


def ink(grey: Tensor) -> Tensor:
    """Mean grey level of images (N, 1, H, W), over the largest: (N,).

    It grows with the width of the stroke.
    """
    return (grey / grey.amax((2, 3), keepdim=True)).flatten(1).mean(1)


def slant(grey: Tensor) -> Tensor:
    """How far the ink moves to the left for each row down, (N,), in pixels.

    The slope of a line through the ink of images (N, 1, H, W) by least squares, as of
    columns over rows.
    """
    weight = grey[:, 0] / grey.sum((1, 2, 3))[:, None, None]  # (N, H, W)
    row = torch.arange(grey.shape[2]).to(grey)[:, None]
    column = torch.arange(grey.shape[3]).to(grey)
    down = row - (weight * row).sum((1, 2), keepdim=True)
    across = column - (weight * column).sum((1, 2), keepdim=True)
    slope = (weight * down * across).sum((1, 2)) / (weight * down**2).sum((1, 2))
    return -slope


def tenths(values: Tensor) -> Tensor:
    """Which tenth of all values each of them is in, 0 … 9, (N,), int64."""
    return values.argsort().argsort() * TENTHS // len(values)


def known(images: ColouredImages) -> dict[str, Tensor]:
    """What a code may have found: name → a whole number for each image, (N,)."""
    return {
        "digit": images.label,
        "colour": images.colour,
        "ink": tenths(ink(images.grey)),
        "slant": tenths(slant(images.grey)),
    }


# --- the codes ------------------------------------------------------------------------


@cache
def _data() -> ImageSplits:
    return random_tints(load_mnist())


def _without_colour(images: ColouredImages) -> Images:
    return Images(images.grey, images.label, images.classes)


@torch.no_grad()
def vae_code(vae: JointVAE, x: Tensor) -> Tensor:
    """The likeliest value of the last categorical variable of images x: (N,), int64."""
    places = vae.units()[-1]
    return torch.cat(
        [vae.posterior(part).mode()[:, places].argmax(dim=1) for part in x.split(1000)]
    )


def measure(
    seed: int,
    method: str = "clusters",
    views: dict[str, float] | None = None,
    colour: bool = True,
    **settings: Any,
) -> Measured:
    """Train a code and measure it.

    Args:
        seed: not used: all is drawn from torch's random numbers.
        method: ``clusters``, ``labels`` or ``vae``.
        views: settings of :class:`Views`, for what is not a VAE.
        colour: whether a VAE sees colour, where ``sees`` says it of the others.
        settings: of the training.
    """
    data, began = _data(), time.process_time()
    train, test = data.train, data.test
    assert isinstance(train, ColouredImages)
    assert isinstance(test, ColouredImages)
    x = test.image
    if method == "vae":
        if not colour:
            parts = (train, data.validation, test)
            data = ImageSplits(
                *(_without_colour(part) for part in parts), data.fingerprint
            )
        vae = coloured_vae(10, (10,), shape=data.shape)
        train_joint_vae(vae, data, **settings)
        seconds = time.process_time() - began
        code = vae_code(vae, data.test.image)
    else:
        model = DigitCode(colour=settings.pop("sees", False))
        training = train_labels if method == "labels" else train_digit_code
        training(model, data, views=Views(**(views or {})), **settings)
        seconds = time.process_time() - began
        code = model.code(x)
    told = {f"nats of the {k}": mutual_information(code, v) for k, v in known(test).items()}
    return {
        "one-to-one accuracy": one_to_one_accuracy(code, test.label),
        **told,
        SECONDS: seconds,
    }
