"""What makes a translation between two domains find the right colours, by seed.

Each row trains a CycleGAN and holds its translations of 10,000 test images against the
rules of the domains. Settings were chosen with images of the training and validation
sets; the test images served for these measurements alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from course_utils.checks import check_option
from course_utils.data.colours import COLOURS, ColouredImages, TwoDomains, grey_of
from course_utils.data.images import Images, ImageSplits
from course_utils.models.judge import REFUSED, Judge
from course_utils.models.translation import (
    ColourDiscriminator,
    CycleGAN,
    Discriminator,
    Generator,
    Translated,
    colour_confusion,
    rule_of,
    train_translation,
    translations,
    whole_image_generator,
)
from course_utils.recipes import grey_digits
from course_utils.studies.store import SECONDS, Measured, Study

RULE_A = tuple(range(10))
RULES_B = {
    # red ↔ turquoise, orange ↔ sky blue, yellow ↔ purple, green ↔ blue, pink ↔ white
    "mirrored": (4, 5, 7, 6, 0, 1, 3, 2, 9, 8),
    # a derangement drawn at random
    "scattered": (2, 9, 1, 7, 6, 8, 4, 5, 0, 3),
}
GENERATORS = {"local": Generator, "whole image": whole_image_generator}
DISCRIMINATORS = {"joint": Discriminator, "colour": ColourDiscriminator}


# --- data -----------------------------------------------------------------------------


def uneven(images: Images) -> Images:
    """The first (d + 1)/10 of the images of class d: no two are equally frequent."""
    places = []
    for c in range(images.classes):
        mine = (images.label == c).nonzero()[:, 0]
        places.append(mine[: len(mine) * (c + 1) // images.classes])
    kept = torch.cat(places).sort().values
    return Images(images.image[kept], images.label[kept], images.classes)


def two_domains(images: Images, rule: str, name: str, even: bool = True) -> TwoDomains:
    """The domains of a set of grey images, under one of the rules of B.

    Args:
        images: grey ones.
        rule: ``mirrored`` or ``scattered``.
        name: the fingerprint of the images.
        even: whether classes are as frequent as they are in MNIST, see :func:`uneven`.
    """
    check_option("rule", rule, RULES_B)
    kept, told = (images, name) if even else (uneven(images), f"uneven-{name}")
    return TwoDomains.of(kept, (RULE_A, RULES_B[rule]), told)


def domains_of(
    data: ImageSplits, rule: str = "mirrored", even: bool = True
) -> tuple[TwoDomains, TwoDomains, TwoDomains]:
    """The domains of training, validation and test images."""
    train, validation, test = (
        two_domains(images, rule, f"{data.fingerprint}-{name}", even)
        for name, images in (
            ("train", data.train),
            ("validation", data.validation),
            ("test", data.test),
        )
    )
    return train, validation, test


def first_of_each(domains: TwoDomains, rule: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One image of each class of A, and the same images in the colours of B."""
    x, label = domains.a.image, domains.a.label
    first = torch.stack([(label == c).nonzero()[0, 0] for c in range(10)])
    colour = COLOURS[torch.tensor(rule)]  # (10, 3)
    return x[first], grey_of(x[first]) * colour[:, :, None, None]


# --- measures -------------------------------------------------------------------------


def worn_by(found: Translated, images: ColouredImages, rule: Tensor) -> Tensor:
    """Whose colour the images of each class take most often, (classes,); −1: nobody's.

    Args:
        found: the images, translated.
        images: as they were.
        rule: class → colour in the other domain.
    """
    counts = colour_confusion(found.colour, images.label, images.classes)
    taken = counts.argmax(dim=1)  # (classes,), 10 for no colour
    owner = torch.full((len(COLOURS) + 1,), -1)
    owner[rule] = torch.arange(images.classes)
    return owner[taken]


@torch.no_grad()
def measured(model: CycleGAN, domains: TwoDomains, judge: Judge) -> Measured:
    """What the translations of two domains are worth, name → value.

    ``right``: share of images in the right colour; ``shape error``, ``cycle error``:
    mean absolute errors, of the worse direction; ``digit kept``: share of translations
    in which the judge sees the digit of the original, and ``refused``, in which it sees
    none; ``lawful``: share whose colour is that of the digit that the judge sees.
    ``0 to B`` … : whose colour the 0s of A mostly wear in B.
    """
    found = translations(model, domains)
    told: Measured = {}
    kept, refused, lawful = [], [], []
    sides = {"A to B": (domains.a, domains.b), "B to A": (domains.b, domains.a)}
    wrong = 0
    for direction, (images, other) in sides.items():
        here, rule = found[direction], rule_of(other)
        told[f"right {direction}"] = float(here.right.float().mean())
        seen = judge.digit(grey_of(here.image))
        kept.append(seen == images.label)
        refused.append(seen == REFUSED)
        lawful.append((seen != REFUSED) & (here.colour == rule[seen.clamp(min=0)]))
        for c, worn in enumerate(worn_by(here, images, rule).tolist()):
            told[f"{c} {direction[2:]}"] = worn
            wrong += worn != c
    right = min(told[f"right {direction}"] for direction in sides)
    errors = {
        name: max(float(getattr(each, place).mean()) for each in found.values())
        for name, place in (
            ("shape error", "shape_error"),
            ("cycle error", "cycle_error"),
        )
    }
    shares = {"digit kept": kept, "refused": refused, "lawful": lawful}
    return {
        "right, worse direction": right,
        **errors,
        "wrong classes": wrong,
        **{
            name: float(torch.cat(each).float().mean()) for name, each in shares.items()
        },
        **told,
    }


def measure(
    seed: int,
    rule: str = "mirrored",
    even: bool = True,
    generator: str = "local",
    discriminator: str = "joint",
    shrink: int = 2,
    paired: bool = False,
    labelled: bool = False,
    **settings: Any,
) -> Measured:
    """Train a CycleGAN on the training images and measure it on the test images.

    Args:
        seed: not used; all is drawn from torch's random numbers.
        rule, even: of the domains, see :func:`two_domains`.
        generator: ``local``, or one that draws the ``whole image``.
        discriminator: ``joint`` sees shape and colour, ``colour`` the colour alone.
        shrink: of the images in training.
        paired: whether one image of each class is given in both domains.
        labelled: whether the discriminators are told the digit.
        settings: of :func:`train_translation`.
    """
    data, judge = grey_digits()
    train, validation, test = domains_of(data, rule, even)
    make: Any = DISCRIMINATORS[
        check_option("discriminator", discriminator, DISCRIMINATORS)
    ]
    make_generator: Any = GENERATORS[check_option("generator", generator, GENERATORS)]
    model = CycleGAN(
        shrink=shrink,
        make_generator=make_generator,
        make_discriminator=partial(make, classes=10) if labelled else make,
    )
    if paired:
        settings["pairs"] = first_of_each(train, RULES_B[rule])
    history = train_translation(
        model, train, validation, labelled=labelled, steps_per_epoch=350, **settings
    )
    last = {name: values[-1] for name, values in history.measured.items()}
    return {
        SECONDS: history.seconds,
        "cycle loss": last["cycle"],
        "discriminator loss": (last["D_A"] + last["D_B"]) / 2,
        **measured(model, test, judge),
    }


NAIVE = {
    "kind": "entropy",
    "cycle": 10,
    "background": None,
    "warm_up": 0,
    "shrink": 1,
    "lr": 2e-3,
    "steps": 300,
}

STUDY = Study(
    "translation",
    measure,
    {
        "recipe": {},
        "naive": NAIVE,
        "without warm-up": {"warm_up": 0},
        "plain cycle loss": {"background": None},
        "at full size": {"shrink": 1},
        "cross-entropy": {"kind": "entropy"},
        "without pools": {"pool": 0},
        "without cycle loss": {"cycle": 0},
        "cycle weight 5": {"cycle": 5},
        "generators slower": {"lr": 2e-3},
        "identity loss 0.5": {"identity": 0.5},
        "scattered": {"rule": "scattered"},
        "scattered, 10 pairs": {"rule": "scattered", "paired": True},
        "scattered, labels": {"rule": "scattered", "labelled": True},
        "colour alone": {"discriminator": "colour"},
        "colour alone, uneven": {"discriminator": "colour", "even": False},
        "colour alone, 10 pairs": {"discriminator": "colour", "paired": True},
        "whole image": {"generator": "whole image", "shrink": 1, "warm_up": 600},
    },
)
