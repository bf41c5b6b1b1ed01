"""A noisy spiral: an arm c(u) with Gaussian noise across it.

    c(u) = √u·(cos 3π√u, sin 3π√u),   u uniform on [0, 1]
    x = c(u) + σ·ε,                   ε ~ N(0, I)

so its density is a mixture of Gaussians along the arm, p(x) = ∫ N(x; c(u), σ²I) du. The
integral is taken by the midpoint rule on NODES points, spaced far closer than σ; the
entropy is −∫ p log p on a grid with three points per σ.
"""

from __future__ import annotations

from functools import lru_cache
from math import log, pi

import torch
from torch import Tensor

from course_utils.checks import check_positive
from course_utils.data.plane import PlaneData, Posterior, uniform

NODES = 600


class Spiral(PlaneData):
    """The spiral, left in raw coordinates by default.

    Args:
        noise: standard deviation σ of the noise across the arm, raw units.
        standardized: z-score with the law's own mean and standard deviation.

    Raises:
        ValueError: noise that is not a finite number above 0.
    """

    def __init__(self, noise: float = 0.03, standardized: bool = False) -> None:
        self.noise = check_positive("noise", noise)
        super().__init__(standardized)

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        centre = arm(uniform(n, generator))
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return centre + self.noise * noise, torch.zeros(n, dtype=torch.int64)

    def _log_density(self, raw: Tensor, label: Tensor | None) -> Tensor:
        return torch.cat([_log_mixture(part, self.noise) for part in raw.split(4096)])

    def _moments(self) -> tuple[Tensor, Tensor]:
        c = arm(_nodes())
        return c.mean(0), (c.var(0, correction=0) + self.noise**2).sqrt()

    def _entropy(self, given_label: bool) -> float:
        return _grid_entropy(self.noise)

    def _posterior(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        parts = [_mixture_posterior(p, self.noise, noise) for p in raw.split(4096)]
        return Posterior(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        # E[Var(c | u)] = E[c²] − E[E[c | u]²] on a grid of u, three points for every
        # deviation; the weights of the nodes c are products, one factor for each axis
        c, spread = arm(_nodes()), (self.noise**2 + noise**2).sqrt()  # (K, 2), (2,)
        bells = []
        for i, w in enumerate(spread.tolist()):
            axis = torch.arange(-1 - 6 * w, 1 + 6 * w, w / 3, dtype=torch.float64)
            bells.append(torch.exp(-(((axis[:, None] - c[:, i]) / w) ** 2) / 2))
        mass, first_x, first_y = (
            (bells[0] * weight) @ bells[1].T for weight in (torch.ones(NODES), *c.T)
        )
        first = torch.stack([first_x, first_y])  # (2, U, V)
        seen = first**2 / mass.clamp(min=torch.finfo(mass.dtype).tiny)
        spread_c = (c**2).mean(0) - seen.sum((1, 2)) / mass.sum()
        gain = self.noise**2 / spread**2
        return gain * noise**2 + (1 - gain) ** 2 * spread_c


def arm(u: Tensor) -> Tensor:
    """The arm's point at each parameter u (B,), shape (B, 2)."""
    r = u.sqrt()
    return r[:, None] * torch.stack([(3 * pi * r).cos(), (3 * pi * r).sin()], dim=1)


def _nodes() -> Tensor:
    """Midpoints of NODES equal parts of [0, 1]."""
    return (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES


def _log_mixture(raw: Tensor, noise: float) -> Tensor:
    """log (1/K) Σ_k N(x; c_k, σ²I) for raw (B, 2), shape (B,)."""
    square = torch.cdist(raw, arm(_nodes())) ** 2  # (B, K)
    log_sum = torch.logsumexp(-square / (2 * noise**2), dim=1)
    return log_sum - log(2 * pi * noise**2 * NODES)


def _mixture_posterior(raw: Tensor, sigma: float, noise: Tensor) -> Posterior:
    """The posterior for u = c_k + σε + n·ε′, a mixture over the arm's nodes c_k."""
    c, spread = arm(_nodes()), (sigma**2 + noise**2).sqrt()  # (K, 2), (2,)
    square = torch.cdist(raw / spread, c / spread) ** 2  # (B, K)
    share = (-square / 2).softmax(dim=1)
    log_density = (
        torch.logsumexp(-square / 2, dim=1) - (2 * pi * NODES * spread.prod()).log()
    )
    # within a component x is normal, with mean c + gain·(u − c)
    gain = sigma**2 / spread**2
    mean_c = share @ c
    mean = mean_c + gain * (raw - mean_c)
    spread_c = share @ c**2 - mean_c**2
    return Posterior(log_density, mean, gain * noise**2 + (1 - gain) ** 2 * spread_c)


@lru_cache
def _grid_entropy(noise: float) -> float:
    """−∫ p log p over a grid that reaches 6 σ beyond the arm."""
    step = noise / 3
    axis = torch.arange(-1 - 6 * noise, 1 + 6 * noise, step, dtype=torch.float64)
    entropy = 0.0
    for y in axis.split(64):
        log_p = _log_mixture(torch.cartesian_prod(axis, y), noise)
        entropy -= float((log_p.exp() * log_p).sum()) * step**2
    return entropy
