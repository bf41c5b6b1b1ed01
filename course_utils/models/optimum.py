"""What the exact optima of flow matching and diffusion share.

Both guess something from a noisy sample, and for both the expected loss is a floor plus
the squared distance to the best guess: E‖f − target‖² = E‖f* − target‖² + E‖f − f*‖².
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.data.plane import PlaneData
from course_utils.distributions import reference
from course_utils.networks.conditioning import (
    ClassLabels,
    Conditioning,
    Unconditional,
)


class HeldOutSquares(ABC):
    """‖f − target‖² and ‖f − f*‖² of held-out samples, whatever f guesses.

    Args:
        target: what f should guess, (N, D).
        best: f*, its mean given what f sees, (N, D).
    """

    def __init__(self, target: Tensor, best: Tensor) -> None:
        self.target, self.best = target, best

    @abstractmethod
    def guess(self, model: Any) -> Tensor:
        """f of every held-out sample, (N, D)."""

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, Tensor]:
        """The two squares of every held-out sample, (N,)."""
        guess = self.guess(model).to(self.target)
        return {
            "loss": ((guess - self.target) ** 2).sum(1),
            "gap": ((guess - self.best) ** 2).sum(1),
        }


def moved_to(
    model: nn.Module, x: Tensor, t: Tensor, label: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Held-out samples, times and labels where a model is; samples in its dtype."""
    like = reference(model)
    known = None if label is None else label.to(like.device)
    return x.to(like), t.to(like.device), known


def held_out_samples(
    data: PlaneData, n: int, given_label: bool, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """n points of the data (n, 2), and their classes if they are given."""
    if given_label:
        return data.sample_labelled(n, generator)
    return data.sample(n, generator), None


def known_classes(data: PlaneData, given_label: bool) -> Conditioning:
    """What the truth knows beside the noisy point.

    Raises:
        ValueError: given_label for data without classes.
    """
    if not given_label:
        return Unconditional()
    if not data.classes:
        raise ValueError(f"{type(data).__name__} has no classes to be given")
    return ClassLabels(data.classes)


def at_each_time(
    f: Callable[[Tensor, float, Tensor | None], Tensor],
    x: Tensor,
    t: Tensor,
    label: Tensor | None,
) -> Tensor:
    """f(x, t, label), shaped like ``x``, of an f that takes one time at once."""
    out = torch.empty_like(x)
    for moment in t.unique().tolist():
        rows = t == moment
        out[rows] = f(x[rows], moment, None if label is None else label[rows])
    return out
