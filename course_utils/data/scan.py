"""Densities that are constant on pieces of horizontal lines, seen through noise.

Along the line at height y the density jumps by J_e at each end e of a piece:

    p(x, y) = Σ_e J_e·[x > e],   Σ_e J_e = 0

With noise added, u = (x, y) + n·ε and ε ~ N(0, I), the integrals over a line are exact.
For z = (e − u_x)/n_x, φ and Φ the density and distribution function of N(0, 1),

    ∫ p g dx             = Σ J Φ(−z)                 g: density of N(u_x, n_x²)
    ∫ p g (x − u_x) dx   = n_x  Σ J φ(z)
    ∫ p g (x − u_x)² dx  = n_x² Σ J (Φ(−z) + z φ(z))

and the sum over lines is a midpoint rule with several lines for every n_y. A table of
these on a grid of u gives density, mean and variance of the posterior of (x, y).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import pi, sqrt

import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from course_utils.data.plane import PlaneData, Posterior

REACH = 5.5  # how far the grid goes beyond the support, in units of the noise
TINY = 1e-13  # densities below this share of the peak are rounding errors
FINEST = 0.01  # least noise of a table, as a share of the support's half width


class ScannedData(PlaneData):
    """Data whose density is constant on pieces of every horizontal line."""

    @abstractmethod
    def _box(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest raw coordinates of the support, each (2,), float64."""

    @abstractmethod
    def _lines(self, y: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
        """Ends e and jumps J of the density along each line.

        Args:
            y: raw heights of the lines, (L,).
            label: the class that the density is given, or None.

        Returns:
            Two tensors (L, E); lines with fewer ends fill up with jumps of 0.
        """

    def _posterior(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        return self._table(noise, label).at(raw)

    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        low, high = self._box()
        finest = FINEST * (high - low) / 2
        share = float((noise / finest).min())
        if share >= 1:
            return self._table(noise, label).mmse()
        # MMSE/n² is 1 without edges, and edges take away a part that is linear in n
        ratio = self._table(noise / share, label).mmse() / (noise / share) ** 2
        return noise**2 * (1 + share * (ratio - 1))

    def _table(self, noise: Tensor, label: int | None) -> PosteriorTable:
        """The posterior on a grid that resolves the noise n (2,)."""
        low, high = self._box()
        size = high - low
        count = int((size[1] / min(float(noise[1]) / 4, float(size[1]) / 300)).ceil())
        step = size[1] / count
        y = low[1] + step * (torch.arange(count, dtype=torch.float64) + 0.5)
        axes = [
            torch.linspace(
                float(a - REACH * n),
                float(b + REACH * n),
                int((b - a + 2 * REACH * n) / (n / 3)) + 2,
                dtype=torch.float64,
            )
            for a, b, n in zip(low, high, noise, strict=True)
        ]
        along = _integrals(axes[0], *self._lines(y, label), float(noise[0]))
        z = (y - axes[1][:, None]) / noise[1]  # (V, L)
        weight = torch.exp(-(z**2) / 2) * step / (noise[1] * sqrt(2 * pi))
        mass, first_x, second_x = (weight @ part for part in along)  # (V, U)
        first_y, second_y = ((weight * z**k) @ along[0] for k in (1, 2))
        first = torch.stack([first_x, first_y]) / mass
        second = torch.stack([second_x, second_y]) / mass
        seen = mass > TINY * mass.max()
        here = torch.stack(torch.meshgrid(*axes, indexing="xy"))  # (2, V, U)
        nearest = torch.minimum(
            torch.maximum(here, low[:, None, None]), high[:, None, None]
        )
        n = noise[:, None, None]
        return PosteriorTable(
            axes,
            mass.clamp(min=TINY * float(mass.max())),
            torch.where(seen, here + n * first, nearest),
            torch.where(seen, n**2 * (second - first**2), 0.0),
        )


@dataclass
class PosteriorTable:
    """Density (V, U), posterior mean and variance (2, V, U) on a grid of u."""

    axes: list[Tensor]
    density: Tensor
    mean: Tensor
    variance: Tensor

    def mmse(self) -> Tensor:
        """E[Var(x_i | u)] of both coordinates, shape (2,)."""
        return (self.density * self.variance).sum((1, 2)) / self.density.sum()

    def at(self, u: Tensor) -> Posterior:
        """The posterior at points u (B, 2), by cubic splines between the nodes."""
        place = torch.stack(
            [
                (u[:, i] - axis[0]) / (axis[1] - axis[0])
                for i, axis in enumerate(self.axes)
            ]
        )
        rows = place.flip(0).numpy()  # (2, B): along V, then along U

        def read(values: Tensor) -> Tensor:
            return torch.from_numpy(
                map_coordinates(values.numpy(), rows, order=3, mode="nearest")
            )

        return Posterior(
            read(self.density.log()),
            torch.stack([read(m) for m in self.mean], dim=1),
            torch.stack([read(v) for v in self.variance], dim=1),
        )


def _integrals(
    u: Tensor, ends: Tensor, jumps: Tensor, noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Moments 0, 1 and 2 of (x − u)/n along each line: three tensors (L, U)."""
    mass = torch.zeros(len(ends), len(u), dtype=torch.float64)
    first, second = torch.zeros_like(mass), torch.zeros_like(mass)
    for e, jump in zip(ends.T[:, :, None], jumps.T[:, :, None], strict=True):  # (L, 1)
        z = (e - u) / noise  # (L, U)
        bell = jump * torch.exp(-(z**2) / 2) / sqrt(2 * pi)
        mass += jump * torch.erfc(z / sqrt(2)) / 2
        first += bell
        second += z * bell
    return mass, first, second + mass
