"""A noisy spiral: an arm c(u) with Gaussian noise across it.

    c(u) = √u·(cos 3π√u, sin 3π√u),   u uniform on [0, 1]
    x = c(u) + σ·ε,                   ε ~ N(0, I)

so its density is a mixture of Gaussians along the arm, p(x) = ∫ N(x; c(u), σ²I) du. The
integral is taken by the midpoint rule on NODES points, spaced far closer than σ.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from course_utils.data.mixture import GaussianMixture
from course_utils.data.plane import uniform

NODES = 600


class Spiral(GaussianMixture):
    """The spiral, left in raw coordinates by default.

    Points are drawn along the whole arm; what else is known of them is that of the
    mixture of Gaussians at the nodes.

    Args:
        noise: standard deviation σ of the noise across the arm, raw units.
        standardized: z-score with the law's own mean and standard deviation.

    Raises:
        ValueError: noise that is not a finite number above 0.
    """

    def __init__(self, noise: float = 0.03, standardized: bool = False) -> None:
        super().__init__(arm(_nodes()), noise, standardized=standardized)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        centre = arm(uniform(n, generator))
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return centre + self.noise * noise


def arm(u: Tensor) -> Tensor:
    """The arm's point at each parameter u (B,), shape (B, 2)."""
    r = u.sqrt()
    return r[:, None] * torch.stack([(3 * pi * r).cos(), (3 * pi * r).sin()], dim=1)


def _nodes() -> Tensor:
    """Midpoints of NODES equal parts of [0, 1]."""
    return (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
