"""A joint VAE whose codes are given: what it pays and what it obeys, by seed.

Each row trains the digit code without labels, finds the colours by k-means, and trains
the VAE on both; the rows differ in how long z is dear. Test images measure it.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from course_utils.data.colours import ColouredImages, grey_of, nearest_colour
from course_utils.metrics import one_to_one
from course_utils.models.clustering import DigitCode, train_digit_code
from course_utils.models.coded_vae import (
    CodedVAE,
    ColourCode,
    coded_vae,
    train_coded_vae,
)
from course_utils.models.judge import REFUSED, Judge
from course_utils.models.vae.control import reconstruction_control, swap_control
from course_utils.studies.store import SECONDS, Measured, Study
from course_utils.studies.vaes import coloured_digits


def measure(seed: int, **settings: Any) -> Measured:
    """Train codes and VAE, and measure them.

    Args:
        seed: of what is drawn after the training.
        settings: of ``train_coded_vae``.
    """
    (data, judge), began = coloured_digits(), time.process_time()
    digit = DigitCode()
    train_digit_code(digit, data)
    vae = coded_vae(digit, ColourCode.of(data))
    train_coded_vae(vae, data, **settings)
    seconds = time.process_time() - began
    validation, test = data.validation, data.test
    assert isinstance(validation, ColouredImages)
    assert isinstance(test, ColouredImages)
    return {**measured(vae.eval(), validation, test, judge, seed), SECONDS: seconds}


@torch.no_grad()
def meanings(
    vae: CodedVAE, images: ColouredImages
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which digit and which colour each code stands for, (10,) each, by labels.

    Args:
        vae: colour code and digit code are the last two of its units.
        images: whose labels say it, one to one.
    """
    mode = torch.cat([vae.posterior(x).mode() for x in images.image.split(1000)])
    colour, digit = (mode[:, places].argmax(1) for places in vae.units()[-2:])
    return one_to_one(digit, images.label), one_to_one(colour, images.colour)


@torch.no_grad()
def measured(
    vae: CodedVAE,
    known: ColouredImages,
    test: ColouredImages,
    judge: Judge,
    seed: int = 0,
) -> Measured:
    """Bound in nats an image, and shares of edits and of samples that are right.

    ``colour moved`` is a's digit and style in b's colour, ``digit moved`` is a's digit
    in b's style and colour; right means digit and colour, as the judge and the nearest
    colour see them.

    Args:
        vae: measured.
        known: images whose labels say what the codes stand for.
        test: images it is measured on.
        judge: of digits.
        seed: of latents and pairs.
    """
    draw = torch.Generator().manual_seed(seed)
    digits, colours = meanings(vae, known)
    z = vae.continuous
    parts = [vae(x, draw) for x in test.image.split(1000)]
    code = torch.cat([vae.posterior(x).mode() for x in test.image.split(1000)])
    again = reconstruction_control(vae, test, judge)
    colour = swap_control(vae, test, judge, [z], generator=draw)
    digit = swap_control(vae, test, judge, range(z + 1), generator=draw)

    drawn = vae.prior(2000).sample(draw)
    x = vae.decoder(drawn)
    of_colour, of_digit = (drawn[:, places].argmax(1) for places in vae.units()[-2:])
    seen = judge.digit(grey_of(x))
    right = (seen == digits[of_digit]) & (nearest_colour(x) == colours[of_colour])
    found = vae.posterior(x).mode()[:, vae.units()[-1]].argmax(1)
    shares = {
        "digit code right": digits[code[:, vae.units()[-1]].argmax(1)] == test.label,
        "reconstructed": again.both,
        "colour moved": colour.both,
        "digit moved": digit.both,
        "samples right": right,
        "samples refused": seen == REFUSED,
        "code recovered": found == of_digit,
    }
    kl = torch.cat([part.kl for part in parts])
    return {
        "−ELBO": -float(torch.cat([part.elbo for part in parts]).mean()),
        "KL": float(kl.mean()),
        **{name: float(share.double().mean()) for name, share in shares.items()},
    }


STUDY = Study(
    "coded_vae",
    measure,
    {
        "−ELBO from the start": {"first": 1.0},
        "z dear for half of it": {"until": 0.5},
        "z dear for four fifths": {},
    },
)
