"""How many continuous latents a VAE of coloured digits needs, by seed.

Each row has a number of latents and a kind of networks; the data, the loss and, but for
one row, the number of epochs are the same.
"""

from __future__ import annotations

import torch

from course_utils.data.colours import ColouredImages
from course_utils.data.images import ImageSplits
from course_utils.distributions import DiagonalNormal
from course_utils.models.judge import Judge
from course_utils.models.vae.aggregate import Aggregate
from course_utils.models.vae.bernoulli import pixel_entropy
from course_utils.models.vae.content import kept, pairs_of
from course_utils.models.vae.control import (
    colour_units,
    reconstruction_control,
    swap_control,
)
from course_utils.models.vae.joint import (
    JointVAE,
    Networks,
    coloured_vae,
    train_joint_vae,
)
from course_utils.studies.store import SECONDS, Measured, Study
from course_utils.studies.vaes import coloured_digits

EPOCHS = 6
RECIPE = {"mlp": {"batch": 128, "lr": 3e-3}, "conv": {"batch": 64, "lr": 1e-2}}
IMAGES = 2000  # test images on which all but the control is measured


def measure(
    seed: int, dimensions: int, networks: Networks, epochs: int = EPOCHS
) -> Measured:
    """Train one VAE and measure it; the CPU-seconds are those of the training.

    Args:
        seed: of what is drawn after the training.
        dimensions: D.
        networks: ``conv`` or ``mlp``.
        epochs: passes over the training images.
    """
    data, judge = coloured_digits()
    vae = coloured_vae(dimensions, networks=networks)
    recipe = RECIPE[networks]
    history = train_joint_vae(
        vae, data, epochs=epochs, batch=int(recipe["batch"]), lr=recipe["lr"]
    )
    return {SECONDS: history.seconds, **measured(vae, data, judge, seed)}


@torch.no_grad()
def measured(vae: JointVAE, data: ImageSplits, judge: Judge, seed: int = 0) -> Measured:
    """What a continuous VAE is worth: bound, what it keeps, control.

    The bound, in nats, and the shares of reconstructions and edits are those of test
    images; the neighbours are training images.

    Args:
        vae: with continuous latents alone.
        data: sets of :class:`ColouredImages`.
        judge: of digits.
        seed: of the latents and the pairs of images.
    """
    draw = torch.Generator().manual_seed(seed)
    known, test = _coloured(data.train), _first(_coloured(data.test), IMAGES)
    q, new = _normal(vae, known.image), _normal(vae, test.image)
    parts = [vae(x, draw) for x in test.image.split(1000)]
    kl = torch.cat([part.kl for part in parts])
    excess = -torch.cat([part.reconstruction for part in parts])
    excess -= pixel_entropy(test.image)
    digit = kept(q.mean, known.label, new.mean, test.label)
    colour = kept(q.mean, known.colour, new.mean, test.colour)
    again = reconstruction_control(vae, test, judge)
    units = colour_units(vae, _coloured(data.validation), judge, generator=draw)
    swap = swap_control(vae, test, judge, units, generator=draw)
    pairs = pairs_of(vae.sample(5000, draw), judge)
    return {
        "excess": float(excess.mean()),
        "KL": float(kl.mean()),
        "KL of the aggregate": Aggregate.of(q).kl_to_prior(),
        "digit by neighbours": digit.accuracy,
        "colour by neighbours": colour.accuracy,
        "nats of the digit": digit.information,
        "nats of the colour": colour.information,
        "reconstructed digit": _share(again.digit),
        "reconstructed colour": _share(again.colour),
        "reconstructed both": _share(again.both),
        "refused": _share(again.refused),
        "control": _share(swap.both),
        "control, digit": _share(swap.digit),
        "control, colour": _share(swap.colour),
        "pairs had": pairs.had(),
        "samples refused": pairs.refused,
    }


def _normal(vae: JointVAE, x: torch.Tensor) -> DiagonalNormal:
    """q(z|x), if all latents are continuous."""
    q = vae.posterior(x)
    if not isinstance(q, DiagonalNormal):
        got = type(q).__name__
        raise TypeError(f"the latents must all be continuous, got a {got}")
    return q


def _share(right: torch.Tensor) -> float:
    return float(right.double().mean())


def _first(images: ColouredImages, count: int) -> ColouredImages:
    """The first images of a set."""
    part = slice(count)
    return ColouredImages(
        images.image[part],
        images.label[part],
        images.classes,
        colour=images.colour[part],
    )


def _coloured(images: object) -> ColouredImages:
    """The images, if their colours are known."""
    if not isinstance(images, ColouredImages):
        got = type(images).__name__
        raise TypeError(f"data must consist of ColouredImages, got {got}")
    return images


STUDY = Study(
    "dimensions",
    measure,
    {
        **{
            f"{networks} {d}": {"dimensions": d, "networks": networks}
            for networks, d in (
                *(("mlp", d) for d in (2, 5, 10, 20)),
                ("conv", 2),
            )
        },
        "mlp 2, 30 epochs": {"dimensions": 2, "networks": "mlp", "epochs": 30},
    },
)
