"""The path from noise to data, and which noise belongs to which sample.

    y_t = t·y₁ + (1−t)·y₀,   y₀ ~ N(0, I),  y₁ ~ data,   t from 0 to 1

Sources: Lipman et al. 2023 (arXiv:2210.02747); Tong et al. 2024, minibatch couplings
(arXiv:2302.00482).
"""

from __future__ import annotations

import ot
import torch
from torch import Tensor

from course_utils.checks import check_alike, check_positive, check_times
from course_utils.distributions import uniform, widen


class LinearPath:
    """y_t = t·y₁ + (1−t)·y₀, a straight line at constant speed y₁ − y₀."""

    def point(self, y0: Tensor, y1: Tensor, t: Tensor) -> Tensor:
        """y_t (B, …) for y₀, y₁ (B, …) and t (B,).

        Raises:
            TypeError, ValueError: t that is not a time in [0, 1] for each sample; noise
                of another shape than y₁.
        """
        if y0.shape != y1.shape:
            raise ValueError(
                "y0 must have the shape of y1,"
                f" {tuple(y1.shape)}, got {tuple(y0.shape)}"
            )
        check_times(t, batch=len(y1), first=0.0, last=1.0)
        check_alike("y0", y0, y1)
        return widen(t, y1) * y1 + widen(1 - t, y1) * y0

    def velocity(self, y0: Tensor, y1: Tensor) -> Tensor:
        """dy_t/dt (B, …)."""
        return y1 - y0


def draw_time(
    y1: Tensor, power: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """A time t = u^(1/power) for each sample of y₁, u uniform: (B,).

    Its density is power·t^(power−1) on [0, 1]. power = 1 is uniform; power = 2, t = √u,
    looks more often near the data, where a small error of the field costs most
    likelihood.
    """
    check_positive("power", power)
    return uniform((len(y1),), y1, generator) ** (1 / power)


def independent(y0: Tensor, y1: Tensor) -> Tensor:
    """Noise for each y₁, whichever: leaves y₀ as it is."""
    return y0


def optimal_transport(y0: Tensor, y1: Tensor) -> Tensor:
    """y₀ in the order that minimises Σ‖y₁ − y₀‖² over the batch (Tong et al. 2024).

    Pairs are made without regard to a condition.
    """
    rows = [y.detach().flatten(1).cpu().double() for y in (y1, y0)]
    cost = ot.dist(*rows)  # (B, B), squared distances
    weight = cost.new_full((len(y1),), 1 / len(y1))
    return y0[ot.emd(weight, weight, cost).argmax(dim=1).to(y0.device)]
