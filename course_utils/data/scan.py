"""Densities that are constant on pieces of horizontal lines, seen through noise.

Along the line at height y the density jumps by J_e at each end e of a piece:

    p(x, y) = Σ_e J_e·[x > e],   Σ_e J_e = 0

With noise added, u = (x, y) + n·ε and ε ~ N(0, I), the integrals over a line are exact.
For z = (e − u_x)/n_x, φ and Φ the density and distribution function of N(0, 1),

    ∫ p g dx             = Σ J Φ(−z)                 g: density of N(u_x, n_x²)
    ∫ p g (x − u_x) dx   = n_x  Σ J φ(z)
    ∫ p g (x − u_x)² dx  = n_x² Σ J (Φ(−z) + z φ(z))

and the sum over lines is a midpoint rule with four lines for every n_y. Where the noise
is wide these are tabulated on a grid of u; where it is narrow they are taken for every
point on its own. Lines are followed for REACH standard deviations above and below a
point: farther than that from the data the density comes out too low, at last as 0.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import log, pi, sqrt

import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from course_utils.data.plane import PlaneData, Posterior

REACH = 5.5  # how far the noise is followed, in standard deviations
LINES = 4  # lines of a table for every standard deviation of the noise
TINY = 1e-200  # a density below this share of the peak is lost
ROUNDING = 1e-12  # what rounding leaves of a sum of jumps that is 0, with room to spare
FINEST = 0.01  # least noise of a table, as a share of the support's half width


class ScannedData(PlaneData):
    """Data whose density is constant on pieces of every horizontal line.

    Attributes:
        LINES_DIRECTLY: lines for every standard deviation of narrow noise; horizontal
            edges need more of them than round ones.
    """

    LINES_DIRECTLY = LINES

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
        if self._share_of_finest(noise) >= 1:
            found = self._table(noise, label).at(raw)
        else:
            parts = [self._directly(part, noise, label) for part in raw.split(2000)]
            found = Posterior(*(torch.cat(part) for part in zip(*parts, strict=True)))
        lost = found.log_density == -torch.inf
        if lost.any():
            # so far out that all is lost in rounding: wider noise sees the nearest part
            found.mean[lost] = self._posterior(raw[lost], 2 * noise, label).mean
            found.variance[lost] = 0.0
        return found

    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        share = self._share_of_finest(noise)
        if share >= 1:
            return self._table(noise, label).mmse()
        # MMSE/n² is 1 without edges, and edges take away a part that is linear in n
        ratio = self._table(noise / share, label).mmse() / (noise / share) ** 2
        return noise**2 * (1 + share * (ratio - 1))

    def _share_of_finest(self, noise: Tensor) -> float:
        """The noise over the least noise of a table."""
        low, high = self._box()
        return float((noise / (FINEST * (high - low) / 2)).min())

    def _table(self, noise: Tensor, label: int | None) -> PosteriorTable:
        """The posterior on a grid that resolves the noise n (2,)."""
        low, high = self._box()
        size = high - low
        count = int(
            (size[1] / min(float(noise[1]) / LINES, float(size[1]) / 300)).ceil()
        )
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
        along = _integrals(axes[0][None, :], *self._lines(y, label), noise[0])
        z = (y - axes[1][:, None]) / noise[1]  # (V, L)
        bell = torch.exp(-(z**2) / 2) * step / (noise[1] * sqrt(2 * pi))
        mass, first_x, second_x = (bell @ part for part in along)  # (V, U)
        first_y, second_y = ((bell * z**k) @ along[0] for k in (1, 2))
        first, second = (
            torch.stack(pair) / mass.clamp(min=TINY * float(mass.max()))
            for pair in ((first_x, first_y), (second_x, second_y))
        )
        return PosteriorTable(noise, axes, mass, first, second - first**2)

    def _directly(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        """The posterior at points (B, 2), from lines of their own around each."""
        step = 1 / self.LINES_DIRECTLY
        z = torch.arange(-REACH, REACH + step / 2, step, dtype=torch.float64)
        bell = torch.exp(-(z**2) / 2) * step / sqrt(2 * pi)  # (L,)
        y = raw[:, 1:] + noise[1] * z  # (B, L)
        ends, jumps = self._lines(y.flatten(), label)  # (B·L, E)
        u = raw[:, :1].expand_as(y).reshape(-1, 1)
        along = [part.view_as(y) for part in _integrals(u, ends, jumps, noise[0])]
        mass, first_x, second_x = (part @ bell for part in along)  # (B,)
        first_y, second_y = (along[0] @ (bell * z**k) for k in (1, 2))
        seen = mass > TINY * float(jumps.abs().max())
        scale = mass.where(seen, 1.0)[:, None]
        first = torch.stack([first_x, first_y], dim=1) / scale
        second = torch.stack([second_x, second_y], dim=1) / scale
        return Posterior(
            mass.log().where(seen, -torch.inf),
            raw + noise * first,
            noise**2 * (second - first**2),
        )


@dataclass
class PosteriorTable:
    """The posterior of x on a grid of u = x + n·ε, in units of the noise n.

    Attributes:
        noise: n, (2,).
        axes: the grid, U horizontal and V vertical coordinates.
        density: of u, (V, U).
        offset, variance: (E[x|u] − u)/n and Var[x_i|u]/n², (2, V, U).
    """

    noise: Tensor
    axes: list[Tensor]
    density: Tensor
    offset: Tensor
    variance: Tensor

    def mmse(self) -> Tensor:
        """E[Var(x_i | u)] of both coordinates, shape (2,)."""
        mean = (self.density * self.variance).sum((1, 2)) / self.density.sum()
        return self.noise**2 * mean

    def at(self, u: Tensor) -> Posterior:
        """The posterior at points u (B, 2), by cubic splines between the nodes.

        Raises:
            RuntimeError: points of which a gradient is asked: there is none.
        """
        if u.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "this posterior is read from a table and carries no gradient: expected"
                " points that require none, or torch.no_grad, got points that do"
            )
        place = [
            (u[:, i] - axis[0]) / (axis[1] - axis[0])
            for i, axis in enumerate(self.axes)
        ]
        rows = torch.stack(place[::-1]).numpy()  # (2, B): along V, then along U

        def read(values: Tensor) -> Tensor:
            found = map_coordinates(values.numpy(), rows, order=3, mode="nearest")
            return torch.from_numpy(found)

        least = TINY * float(self.density.max())
        log_density = read(self.density.clamp(min=least).log())
        outside = [
            (x < axis[0]) | (x > axis[-1])
            for x, axis in zip(u.T, self.axes, strict=True)
        ]
        lost = (log_density < log(2 * least)) | outside[0] | outside[1]
        return Posterior(
            log_density.where(~lost, -torch.inf),
            u + self.noise * torch.stack([read(part) for part in self.offset], dim=1),
            self.noise**2
            * torch.stack([read(v) for v in self.variance], dim=1).clamp(min=0),
        )


def _integrals(
    u: Tensor, ends: Tensor, jumps: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Moments 0, 1 and 2 of (x − u)/n along lines: for u (1, U) or (L, 1), (L, U).

    Φ(−z) = [z < 0] + sign(z)·Φ(−|z|): the first parts add up to the density at u, and
    the others keep their digits where it is 0.
    """
    mass = torch.zeros(len(ends), u.shape[1], dtype=torch.float64)
    first, second, here = (torch.zeros_like(mass) for _ in range(3))
    for e, jump in zip(ends.T[:, :, None], jumps.T[:, :, None], strict=True):  # (L, 1)
        z = (e - u) / noise  # (L, U)
        bell = jump * torch.exp(-(z**2) / 2) / sqrt(2 * pi)
        mass += jump * torch.copysign(torch.erfc(z.abs() / sqrt(2)), z) / 2
        first += bell
        second += z * bell
        here += jump * torch.signbit(z)
    mass += here.where(here > ROUNDING * float(jumps.abs().max()), 0.0)
    return mass, first, second + mass
