"""Which latents suit coloured digits best: continuous, categorical, or both, by seed.

Each row has its latents; networks, data, epochs and the rest are the same. The bounds
are those of test images; which part of the latent carries the colour is found on
validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from course_utils.data.colours import ColouredImages, random_tints
from course_utils.data.images import ImageSplits
from course_utils.data.mnist import load_mnist
from course_utils.models.judge import Judge
from course_utils.models.vae.codes import MOST_SHARED, exact_log_prob, held_out_elbo
from course_utils.models.vae.control import (
    colour_units,
    reconstruction_control,
    shift_control,
    swap_control,
)
from course_utils.models.vae.joint import JointVAE, coloured_vae, train_joint_vae
from course_utils.models.vae.likelihood import importance_log_prob
from course_utils.recipes import digit_judge
from course_utils.studies.store import SECONDS, Measured, Study

EPOCHS = 6
IMAGES = 1000  # test images whose bounds are measured
SAMPLES = 64  # latents of each in the importance-weighted bound


@cache
def coloured_digits() -> tuple[ImageSplits, Judge]:
    """Coloured digits, and the judge of their shapes."""
    grey = load_mnist()
    return random_tints(grey), digit_judge(grey)


def measure(seed: int, continuous: int, discrete: Sequence[int]) -> Measured:
    """Train one VAE and measure it; the CPU-seconds are those of the training.

    Args:
        seed: of what is drawn after the training.
        continuous, discrete: its latents.
    """
    data, judge = coloured_digits()
    vae = coloured_vae(continuous, discrete)
    history = train_joint_vae(vae, data, epochs=EPOCHS)
    return {SECONDS: history.seconds, **measured(vae, data, judge, seed)}


@torch.no_grad()
def measured(vae: JointVAE, data: ImageSplits, judge: Judge, seed: int = 0) -> Measured:
    """Bounds in nats an image, what reconstructions keep, and control.

    Args:
        vae: of any latents.
        data: sets of :class:`ColouredImages`.
        judge: of digits.
        seed: of the latents and the pairs of images.
    """
    draw = torch.Generator().manual_seed(seed)
    validation, test = data.validation, data.test
    if not isinstance(validation, ColouredImages) or not isinstance(
        test, ColouredImages
    ):
        got = type(test).__name__
        raise TypeError(f"data must consist of ColouredImages, got {got}")
    x = test.image[:IMAGES]
    elbo = held_out_elbo(vae, x, generator=draw)
    q = vae.posterior(x)
    found = {
        "−ELBO": -elbo.elbo,
        "reconstruction": -elbo.reconstruction,
        "KL": elbo.kl,
        "−log p̂": -importance_log_prob(vae.decoder, q, x, SAMPLES, draw),
    }
    if not vae.continuous and torch.tensor(vae.sizes).prod() <= MOST_SHARED:
        found["−log p"] = -exact_log_prob(vae, x)
    again = reconstruction_control(vae, test, judge)
    units = colour_units(vae, validation, judge, generator=draw)
    swap = swap_control(vae, test, judge, units, generator=draw)
    shares = {
        "reconstructed digit": again.digit,
        "reconstructed colour": again.colour,
        "swap, both": swap.both,
        "swap, digit": swap.digit,
        "swap, colour": swap.colour,
        "swap, refused": swap.refused,
    }
    if vae.continuous:
        shift = shift_control(vae, validation, test, judge, generator=draw)
        shares |= {"shift, both": shift.both, "shift, digit": shift.digit}
    means = {k: float(v.double().mean()) for k, v in (found | shares).items()}
    return {**means, "units of colour": len(units)}


STUDY = Study(
    "vaes",
    measure,
    {
        "continuous 2": {"continuous": 2, "discrete": []},
        "discrete 2×10": {"continuous": 0, "discrete": [10] * 2},
        "joint 2 + 10": {"continuous": 2, "discrete": [10]},
        "continuous 3": {"continuous": 3, "discrete": []},
        "continuous 4": {"continuous": 4, "discrete": []},
        "continuous 10": {"continuous": 10, "discrete": []},
        "discrete 4×10": {"continuous": 0, "discrete": [10] * 4},
        "discrete 12×10": {"continuous": 0, "discrete": [10] * 12},
        "joint 10 + 10": {"continuous": 10, "discrete": [10]},
    },
)
