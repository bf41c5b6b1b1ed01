"""The Olympic rings: five overlapping annuli with a known density.

Ring k holds the points whose distance from its centre c_k lies within 1 ± 0.125. Two
laws:

    union:    uniform on the union,              p(x) = 1/A               where m(x) ≥ 1
    by ring:  draw one of five rings, then a     p(x) = m(x) / (5·π/2),
              point of it (its class)            p(x | ring k) = 1/(π/2)  inside ring k

with m(x) the number of rings that cover x, A the area of the union and π/2 that of one
ring. Where two rings cross, the second law counts twice (and thrice at the few spots
three rings share).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.checks import check_option
from course_utils.data.plane import uniform
from course_utils.data.scan import ScannedData

CENTRES = torch.tensor(
    [[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [1.0, -1.0], [3.0, -1.0]], dtype=torch.float64
)
INNER, OUTER = 0.875, 1.125
RING_AREA = torch.pi * (OUTER**2 - INNER**2)  # = π/2
EDGE = 4e-6  # rounding to float32 and back moves a point by less than this


class OlympicRings(ScannedData):
    """The five rings, z-scored per axis by default.

    Under the law "by ring" the class of a point is its ring: 0 blue, 1 black, 2 red,
    3 yellow, 4 green. The law "union" has no classes.

    Args:
        law: "union" or "by ring", as in the module's formulas.
        standardized: z-score with the law's own mean and standard deviation.

    Raises:
        ValueError: an unknown law.
    """

    LAWS = ("union", "by ring")
    NAMES = ("blue", "black", "red", "yellow", "green")

    def __init__(self, law: str = "union", standardized: bool = True) -> None:
        self.law = check_option("law", law, self.LAWS)
        self.classes = len(CENTRES) if law == "by ring" else 0
        super().__init__(standardized)

    def _draw(
        self, n: int, generator: torch.Generator | None
    ) -> Tensor | tuple[Tensor, Tensor]:
        if self.law == "by ring":
            return _draw_by_ring(n, generator)
        raw = _draw_union(n, generator)
        while len(raw) < n:
            raw = torch.cat([raw, _draw_union(n - len(raw), generator)])
        return raw[:n]

    def _log_density(self, raw: Tensor, label: Tensor | None) -> Tensor:
        cover = _cover(raw)  # (B, 5)
        if label is not None:
            return (cover.gather(1, label[:, None])[:, 0].double() / RING_AREA).log()
        m = cover.sum(1).double()
        if self.law == "union":
            return ((m > 0).double() / _areas().sum()).log()
        return (m / (5 * RING_AREA)).log()

    def _moments(self) -> tuple[Tensor, Tensor]:
        if self.law == "union":
            return _union_moments()
        # the variance of the centres plus that of one ring, (R² + r²)/4 per axis
        variance = CENTRES.var(0, correction=0) + (OUTER**2 + INNER**2) / 4
        return CENTRES.mean(0), variance.sqrt()

    def _entropy(self, given_label: bool) -> float:
        if given_label:
            return float(torch.tensor(RING_AREA).log())
        areas = _areas()
        if self.law == "union":
            return float(areas.sum().log())
        p = torch.arange(1, 6) / (5 * RING_AREA)  # density where m = 1 … 5 rings cover
        return float(-(areas * p * p.log()).sum())

    def _box(self) -> tuple[Tensor, Tensor]:
        return CENTRES.amin(0) - OUTER, CENTRES.amax(0) + OUTER

    def _lines(self, y: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
        if label is not None:
            ends, cover = _crossings(y, CENTRES[label : label + 1])
            density = cover / RING_AREA
        else:
            ends, cover = _crossings(y, CENTRES)
            if self.law == "union":
                density = (cover > 0) / _areas().sum()
            else:
                density = cover / (5 * RING_AREA)
        return ends, F.pad(density.double(), (1, 1)).diff(dim=1)


def _draw_by_ring(n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """n points, each uniform in a ring drawn at random: raw (n, 2), ring (n,)."""
    ring = torch.randint(len(CENTRES), (n,), generator=generator)
    radius = (INNER**2 + (OUTER**2 - INNER**2) * uniform(n, generator)).sqrt()
    angle = 2 * torch.pi * uniform(n, generator)
    offset = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return CENTRES[ring] + offset, ring


def _draw_union(n: int, generator: torch.Generator | None) -> Tensor:
    """About n points uniform on the union: where m rings overlap, 1/m of them stay."""
    raw, _ = _draw_by_ring(int(1.2 * n) + 8, generator)  # 12 % go
    return raw[uniform(len(raw), generator) * _cover(raw).sum(1) < 1]


def _cover(raw: Tensor) -> Tensor:
    """Which rings cover each point: (B, 5), bool."""
    distance = (raw[:, None, :] - CENTRES).norm(dim=2)  # (B, 5)
    return (distance > INNER - EDGE) & (distance < OUTER + EDGE)


@lru_cache
def _scan(lines: int = 100_000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut the logo into horizontal lines; where along each, how many rings cover it.

    On a line every ring is at most two intervals, so the cover count between two
    neighbouring end points is constant and lengths are exact; the sum over lines is
    good to 1e-6.

    Returns:
        The line's y (L, 1), the intervals' left and right ends (L, 19) and cover counts
        (L, 19), and, last, the distance between lines.
    """
    low = float(CENTRES[:, 1].min()) - OUTER
    high = float(CENTRES[:, 1].max()) + OUTER
    step = (high - low) / lines
    y = low + step * (torch.arange(lines, dtype=torch.float64) + 0.5)
    ends, cover = _crossings(y, CENTRES)
    return y[:, None], ends, cover, torch.tensor(step)


def _crossings(y: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Where the lines at heights y (L,) enter and leave the rings around K centres.

    Returns:
        All ends from left to right (L, 4K), and how many rings cover the piece between
        each end and the next (L, 4K − 1).
    """
    height = (y[:, None] - centres[:, 1]) ** 2  # (L, K)
    outer = (OUTER**2 - height).clamp(min=0).sqrt()
    inner = (INNER**2 - height).clamp(min=0).sqrt()
    x = centres[:, 0]
    # enter a ring at −outer, leave it at −inner, enter at +inner, leave at +outer
    ends = torch.cat([x - outer, x - inner, x + inner, x + outer], dim=1)
    turns = torch.tensor([1, -1, 1, -1]).repeat_interleave(len(centres)).expand_as(ends)
    ends, order = ends.sort(dim=1)
    return ends, turns.gather(1, order).cumsum(1)[:, :-1]


@lru_cache
def _areas() -> Tensor:
    """Areas covered by exactly m = 1 … 5 rings, raw units, shape (5,)."""
    _, ends, cover, step = _scan()
    length = ends.diff(dim=1)
    return torch.stack([(length * (cover == m)).sum() * step for m in range(1, 6)])


@lru_cache
def _union_moments() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (2,), of the uniform law on the union."""
    y, ends, cover, step = _scan()
    left, right = ends[:, :-1], ends[:, 1:]
    covered = (cover > 0) * step / _areas().sum()
    mean_x = (covered * (right**2 - left**2) / 2).sum()
    mean_y = (covered * (right - left) * y).sum()
    var_x = (covered * (right**3 - left**3) / 3).sum() - mean_x**2
    var_y = (covered * (right - left) * y**2).sum() - mean_y**2
    return torch.stack([mean_x, mean_y]), torch.stack([var_x, var_y]).sqrt()
