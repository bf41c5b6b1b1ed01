"""Control of colour and digit: does a part of the latent carry one of them alone?

Take two images, a and b, of different digits and colours, and give a's latent a part of
b's. If that part carries the colour and nothing else, the image decoded is a's digit in
b's colour: "change the colour, keep the digit". The rest of the latent then carries the
digit: read from b, the same image is "change the digit, keep the colour".

Both are measured, the digit by a judge that refuses what does not look like one, the
colour by the nearest of the ten. Which part to take is found on other images
(:func:`colour_units`); the labels serve for that choice alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import check_alike, check_count
from course_utils.data.colours import (
    COLOURS,
    ColouredImages,
    colour_of,
    grey_of,
    nearest_colour,
)
from course_utils.models.judge import REFUSED, Judge
from course_utils.models.vae.joint import JointVAE


class Control(NamedTuple):
    """What came out of some edits, one value an edit, bool (N,).

    Attributes:
        digit: the judge sees the digit that was wanted.
        colour: the nearest colour is the one that was wanted.
        refused: the judge sees no digit at all; then ``digit`` is False.
    """

    digit: Tensor
    colour: Tensor
    refused: Tensor

    @property
    def both(self) -> Tensor:
        """Digit and colour are right."""
        return self.digit & self.colour


def judged(x: Tensor, digit: Tensor, colour: Tensor, judge: Judge) -> Control:
    """Hold images x (N, 3, H, W) against the digits and colours wanted, (N,) each."""
    found = judge.digit(grey_of(x))
    check_alike("digits", digit, found)
    check_alike("colours", colour, found)
    return Control(found == digit, nearest_colour(x) == colour, found == REFUSED)


def swapped(a: Tensor, b: Tensor, units: Sequence[slice]) -> Tensor:
    """The latents a (N, D) with these places taken from b (N, D)."""
    check_alike("the other latents", b, a)
    mixed = a.clone()
    for places in units:
        mixed[:, places] = b[:, places]
    return mixed


def different_pairs(
    images: ColouredImages, count: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Places of pairs of images that share neither digit nor colour, (count,) each.

    Raises:
        ValueError: there are no such pairs, or too few images.
    """
    count = check_count("count", count)
    found: list[Tensor] = []
    for _ in range(20):
        order = torch.randperm(len(images), generator=generator)
        pair = torch.stack([torch.arange(len(images)), order])
        label, colour = images.label[pair], images.colour[pair]
        found.append(pair[:, (label[0] != label[1]) & (colour[0] != colour[1])])
        if sum(part.shape[1] for part in found) >= count:
            a, b = torch.cat(found, dim=1)[:, :count]
            return a, b
    raise ValueError(
        f"{count} pairs of different digits and colours are wanted, got"
        f" {sum(part.shape[1] for part in found)} from {len(images)} images"
    )


@torch.no_grad()
def swap_control(
    vae: JointVAE,
    images: ColouredImages,
    judge: Judge,
    units: Sequence[int],
    count: int = 1000,
    generator: torch.Generator | None = None,
) -> Control:
    """Edits "a's digit in b's colour" that take the latent's ``units`` from b.

    Args:
        vae: its latents are the likeliest of q(z, c|x).
        images: where a and b come from.
        judge: of digits.
        units: places in ``vae.units()``; () shows a's reconstruction, held against
            b's colour.
        count: how many pairs.
        generator: source of the pairs.
    """
    a, b = different_pairs(images, count, generator)
    mine, other = (vae.posterior(images.image[place]).mode() for place in (a, b))
    mixed = swapped(mine, other, [vae.units()[unit] for unit in units])
    return judged(vae.decoder(mixed), images.label[a], images.colour[b], judge)


@torch.no_grad()
def shift_control(
    vae: JointVAE,
    known: ColouredImages,
    images: ColouredImages,
    judge: Judge,
    count: int = 1000,
    generator: torch.Generator | None = None,
) -> Control:
    """Edits "a's digit in b's colour" by arithmetic in the continuous latents.

        z' = z_a + m(colour of b) − m(colour of a)

    with m(·) the mean latent of a colour. Where colours differ by a shift of the
    latent, this changes the colour alone, whatever the axes are; it needs the labels.

    Args:
        vae, images, judge, count, generator: as for :func:`swap_control`.
        known: other images, with their colours, which give the means.

    Raises:
        ValueError: a model without continuous latents.
    """
    d = check_count("continuous", vae.continuous)
    z = vae.posterior(known.image).mode()[:, :d]
    mean = torch.stack([z[known.colour == c].mean(0) for c in range(len(COLOURS))])
    a, b = different_pairs(images, count, generator)
    mixed = vae.posterior(images.image[a]).mode()
    mixed[:, :d] += mean[images.colour[b]] - mean[images.colour[a]]
    return judged(vae.decoder(mixed), images.label[a], images.colour[b], judge)


@torch.no_grad()
def reconstruction_control(
    vae: JointVAE, images: ColouredImages, judge: Judge
) -> Control:
    """What reconstructions keep of digit and colour: no edit can do better."""
    x = vae.reconstruct(images.image)
    return judged(x, images.label, images.colour, judge)


@torch.no_grad()
def colour_units(
    vae: JointVAE,
    images: ColouredImages,
    judge: Judge,
    count: int = 500,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Which units of the latent to take from b, so that b's colour comes and no more.

    The units are put in order by what swapping one of them changes, colour over shape:

        E‖c(x') − c(x)‖ / E‖g(x') − g(x)‖_1

    and of the first 0, 1, 2, … of them those are taken that put most edits right, digit
    and colour.

    Args:
        vae, images, judge, count, generator: as for :func:`swap_control`; take other
            images than it is measured on.
    """
    a, b = different_pairs(images, count, generator)
    mine, other = (vae.posterior(images.image[place]).mode() for place in (a, b))
    own, units = vae.decoder(mine), vae.units()
    ratio = []
    for places in units:
        x = vae.decoder(swapped(mine, other, [places]))
        colour = (colour_of(x) - colour_of(own)).norm(dim=1).mean()
        shape = (grey_of(x) - grey_of(own)).abs().mean()
        ratio.append(float(colour / shape.clamp(min=1e-9)))
    order = sorted(range(len(units)), key=lambda unit: -ratio[unit])

    def share(first: int) -> float:
        mixed = swapped(mine, other, [units[unit] for unit in order[:first]])
        right = judged(vae.decoder(mixed), images.label[a], images.colour[b], judge)
        return float(right.both.double().mean())

    best = max(range(len(units) + 1), key=share)
    return sorted(order[:best])
