"""What makes a code find the digits without labels: one ingredient at a time, by seed.

Each row trains a code of ten values on 20,000 coloured digits, and holds it against
what is known of 10,000 test images: digit, colour, ink and slant. Settings were chosen
with images of the training set; the test images served for these measurements alone.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch
from torch import Tensor

from course_utils.checks import check_option
from course_utils.data.colours import ColouredImages, grey_of, random_tints
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
VAE = {"method": "vae", "epochs": 6, "lr": 0.01}  # settings of the joint VAEs


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


@torch.no_grad()
def vae_code(vae: JointVAE, x: Tensor) -> Tensor:
    """The likeliest value of the last categorical variable of images x: (N,), int64."""
    places = vae.units()[-1]
    return torch.cat(
        [vae.posterior(part).mode()[:, places].argmax(dim=1) for part in x.split(1000)]
    )


def measure(seed: int, method: str = "views", **settings: Any) -> Measured:
    """Train a code and measure it on the test images.

    Args:
        seed: not used; all is drawn from torch's random numbers.
        method: ``views``, ``labels`` or ``vae``: whose training it is.
        settings: of it, see :func:`by_views` and :func:`by_vae`.
    """
    data, began = _data(), time.process_time()
    test = data.test
    assert isinstance(test, ColouredImages)
    check_option("method", method, ["views", "labels", "vae"])
    if method == "vae":
        code = by_vae(data, **settings)
    else:
        code = by_views(data, method == "labels", **settings)
    seconds = time.process_time() - began
    told = {
        f"nats of {name}": mutual_information(code, value)
        for name, value in known(test).items()
    }
    accuracy = one_to_one_accuracy(code, test.label)
    return {"accuracy": accuracy, **told, SECONDS: seconds}


def by_views(
    data: ImageSplits,
    labels_alone: bool = False,
    views: dict[str, Any] | None = None,
    colour: bool = False,
    **settings: Any,
) -> Tensor:
    """The code of the test images by :mod:`~course_utils.models.clustering`.

    Args:
        data: coloured images.
        labels_alone: whether 100 labels are all that it learns from.
        views: settings of :class:`Views`.
        colour: whether the network sees colour.
        settings: of the training.
    """
    model = DigitCode(colour=colour)
    training = train_labels if labels_alone else train_digit_code
    training(model, data, views=Views(**(views or {})), **settings)
    return model.code(data.test.image)


def by_vae(
    data: ImageSplits, continuous: int = 10, grey: bool = False, **settings: Any
) -> Tensor:
    """The code of the test images by a plain joint VAE, which learns ten of them.

    Args:
        data: coloured images.
        continuous: how many other latents there are.
        grey: whether the colours are taken away.
        settings: of the training.
    """
    if grey:
        data = ImageSplits(
            without_colour(data.train),
            without_colour(data.validation),
            without_colour(data.test),
            f"grey-{data.fingerprint}",
            data.complete,
        )
    vae = coloured_vae(continuous, (10,), shape=data.shape)
    train_joint_vae(vae, data, **settings)
    return vae_code(vae, data.test.image)


def without_colour(images: Images) -> Images:
    """The images in grey, with their digits."""
    return Images(grey_of(images.image), images.label, images.classes)


STUDY = Study(
    "digit_code",
    measure,
    {
        "joint VAE": VAE,
        "joint VAE, 2 latents": {**VAE, "continuous": 2},
        "joint VAE, 2 latents, grey": {**VAE, "continuous": 2, "grey": True},
        "mutual information alone": {"contrast": 0, "information": 12},
        "contrast and k-means": {"contrast": 12, "information": 0},
        "contrast, k-means, mutual information": {},
        "without another pen": {"views": {"pen": 0}},
        "without turn and slant": {"views": {"turn": 0, "shear": 0}},
        "without size and place": {"views": {"scale": 0, "shift": 0}},
        "colour seen": {"colour": True},
        "colour seen, other in each view": {
            "colour": True,
            "views": {"recolour": True},
        },
        "100 labels alone": {"method": "labels"},
        "100 labels added": {"labels": 10},
    },
)
