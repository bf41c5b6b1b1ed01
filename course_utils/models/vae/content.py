"""What a latent knows of a label, and what the prior can be asked for.

Latents z whose labels c are known say what others have, by the k nearest of them:

    p̂(c|z) = (n_c + ½)/(k + ½·C)        (n_c of the k have the label c, of C labels)

The likeliest c is a guess, whose accuracy shows what z keeps. And every p̂ gives a lower
bound of the information that z has on c, in nats:

    I(c; z) = H(c) − H(c|z) ≥ H(c) − E[−log p̂(c|z)]

Source of the bound: Barber and Agakov 2003, "The IM algorithm: a variational approach
to information maximization".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from course_utils.checks import check_count, check_labels, check_points
from course_utils.data.colours import COLOURS, NO_COLOUR, grey_of, nearest_colour
from course_utils.models.judge import REFUSED, Judge

CHUNK = 1000  # latents whose distances from all known ones are held at once


def neighbour_law(
    known: Tensor, label: Tensor, new: Tensor, classes: int = 10, neighbours: int = 50
) -> Tensor:
    """p̂(c|z) of latents ``new`` (M, D), by their k nearest among ``known``: (M, C).

    Args:
        known: latents (N, D).
        label: theirs, (N,).
        new: the latents asked for.
        classes: C.
        neighbours: k, at most N.

    Raises:
        TypeError, ValueError: latents or labels of other shapes, too few known ones.
    """
    check_points(new, dim=check_points(known, dim=known.shape[-1]).shape[1])
    check_labels(label, classes=classes, batch=len(known))
    k = check_count("neighbours", neighbours)
    if k > len(known):
        raise ValueError(f"neighbours must be at most {len(known)}, got {k}")
    vote = one_hot(label, classes).to(known)  # (N, C)
    count = torch.cat(
        [
            vote[torch.cdist(part, known).topk(k, largest=False).indices].sum(1)
            for part in new.split(CHUNK)
        ]
    )  # (M, C)
    return (count + 0.5) / (k + 0.5 * classes)


class Kept(NamedTuple):
    """What latents keep of a label.

    Attributes:
        accuracy: of the guess by the nearest neighbours.
        information: the lower bound of I(c; z), in nats.
    """

    accuracy: float
    information: float


def kept(
    known: Tensor, label: Tensor, new: Tensor, truth: Tensor, neighbours: int = 50
) -> Kept:
    """What latents ``new`` (M, D) keep of their labels ``truth`` (M,).

    Args:
        known, label: latents (N, D) whose labels (N,) are known.
        new, truth: others, on which it is measured.
        neighbours: k.
    """
    classes = int(label.max()) + 1
    law = neighbour_law(known, label, new, classes, neighbours)
    check_labels(truth, classes=classes, batch=len(new))
    share = truth.bincount(minlength=classes).double() / len(truth)
    cross = -law.double()[torch.arange(len(new)), truth].log().mean()
    return Kept(
        accuracy=float((law.argmax(1) == truth).double().mean()),
        information=float(torch.special.entr(share).sum() - cross),
    )


class Pairs(NamedTuple):
    """Which digits in which colours some images show.

    Attributes:
        share: of the images with digit d and colour c, (10, C).
        refused: of those that show no digit, or no colour.
    """

    share: Tensor
    refused: float

    def had(self, least: float = 0.001) -> int:
        """How many pairs of digit and colour have at least this share."""
        return int((self.share >= least).sum())


@torch.no_grad()
def pairs_of(images: Tensor, judge: Judge, digits: int = 10) -> Pairs:
    """The pairs that images (N, 3, H, W) show, digits by the judge."""
    digit = judge.digit(grey_of(images))
    colour = nearest_colour(images)
    seen = (digit != REFUSED) & (colour != NO_COLOUR)
    place = digit[seen] * len(COLOURS) + colour[seen]
    count = place.bincount(minlength=digits * len(COLOURS)).double()
    share = count.view(digits, len(COLOURS)) / len(images)
    return Pairs(share, float((~seen).double().mean()))


def equally_likely(count: int) -> Tensor:
    """A sheet of count × count latents, row by row from the top: (count², 2).

    Across and down they are the (i + ½)/count quantiles of N(0, 1), so that each stands
    for the same share of the prior N(0, I).
    """
    u = (torch.arange(check_count("count", count)) + 0.5) / count
    quantile = torch.special.ndtri(u)
    across, up = torch.meshgrid(quantile, quantile.flip(0), indexing="xy")
    return torch.stack([across, up], dim=-1).reshape(-1, 2)
