"""The square [−1, 1]² with five radial classes.

class of x: 0 if |x| < ¼,  1 if |x| < ½,  2 if |x| < ¾,
            3 if |x| < 1,  else 4 (the corners)

uniform:   p(x) = 1/4,                      p(x | c) = 1/area(c)
by class:  p(x) = 1/(5·area(c(x))),         the classes drawn equally often

Under the uniform law the coordinates are independent. Given u = x + n·ε each of them is
a normal variable N(u, n²) held between −1 and 1. With z = (x − u)/n, which lies between
b = (−1 − u)/n and c = (1 − u)/n, and φ and Φ of N(0, 1),

    p_n(u) = Z/2,   Z = Φ(c) − Φ(b)
    E[z | u] = (φ(b) − φ(c))/Z
    Var[z | u] = 1 + (b·φ(b) − c·φ(c))/Z − E[z | u]²
"""

from __future__ import annotations

from itertools import pairwise
from math import log, pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.checks import check_option
from course_utils.data.plane import Posterior, uniform
from course_utils.data.scan import ScannedData
from course_utils.quadrature import gauss_legendre

RADII = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
AREAS = torch.cat([torch.zeros(1), torch.pi * RADII**2, torch.tensor([4.0])]).diff()


class Square(ScannedData):
    """The square, left in raw coordinates by default.

    Args:
        law: "uniform" (on the square) or "by class" (the five classes equally likely).
        standardized: z-score with the law's own mean and standard deviation.

    Raises:
        ValueError: an unknown law.
    """

    classes = 5
    NAMES = ("0 to ¼", "¼ to ½", "½ to ¾", "¾ to 1", "corners")  # radii of the classes
    LAWS = ("uniform", "by class")
    LINES_DIRECTLY = 16

    def __init__(self, law: str = "uniform", standardized: bool = False) -> None:
        self.law = check_option("law", law, self.LAWS)
        super().__init__(standardized)

    def _class_weights(self) -> Tensor:
        """Probability of each class, shape (5,)."""
        return AREAS / 4 if self.law == "uniform" else torch.full_like(AREAS, 1 / 5)

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        if self.law == "uniform":
            raw = _uniform_square(n, generator)
            return raw, _class_of(raw)
        label = torch.randint(self.classes, (n,), generator=generator)
        return _draw_in_class(label, generator), label

    def _log_density(self, raw: Tensor, label: Tensor | None) -> Tensor:
        own = _class_of(raw)
        inside = raw.abs().amax(1) <= 1 + 1e-6  # float32 rounding allowed for
        density = inside / AREAS[own]
        if label is not None:
            return (density * (own == label)).log()
        return (density * self._class_weights()[own]).log()

    def _moments(self) -> tuple[Tensor, Tensor]:
        # E|x|² in a class between radii a and b is (a² + b²)/2; the square's own is 2/3
        edges = torch.cat([torch.zeros(1), RADII])
        second = (edges[:-1] ** 2 + edges[1:] ** 2) / 2
        corner = (4 * 2 / 3 - (AREAS[:-1] * second).sum()) / AREAS[-1]
        per_axis = (self._class_weights() * torch.cat([second, corner[None]])).sum() / 2
        return torch.zeros(2, dtype=torch.float64), per_axis.sqrt().expand(2)

    def _entropy(self, given_label: bool) -> float:
        w = self._class_weights()
        if given_label:
            return float((w * AREAS.log()).sum())
        return float((w * (AREAS / w).log()).sum())

    def _posterior(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        if self.law != "uniform" or label is not None:
            return super()._posterior(raw, noise, label)
        log_density, mean, variance = _truncated_normal(raw, noise)
        return Posterior(log_density.sum(1), mean, variance)

    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        if self.law != "uniform" or label is not None:
            return super()._mmse(noise, label)
        return torch.stack([_uniform_mmse(float(n)) for n in noise])

    def _box(self) -> tuple[Tensor, Tensor]:
        corner = torch.ones(2, dtype=torch.float64)
        return -corner, corner

    def _lines(self, y: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
        # half widths of the discs and of the square along each line, (L, 6)
        half = (RADII**2 - y[:, None] ** 2).clamp(min=0).sqrt()
        half = F.pad(F.pad(half, (1, 0)), (0, 1), value=1.0)
        density = self._class_weights() / AREAS  # (5,)
        if label is not None:
            density = F.one_hot(torch.tensor(label), self.classes) / AREAS
        # from the middle outwards: class c fills the part from half[c] to half[c + 1]
        within = (y.abs() <= 1).double()[:, None]
        jumps = F.pad(density, (1, 1)).diff() * within  # (L, 6)
        return torch.cat([-half, half], dim=1), torch.cat([-jumps, jumps], dim=1)


def _uniform_square(n: int, generator: torch.Generator | None) -> Tensor:
    """n points uniform on [−1, 1)², shape (n, 2)."""
    return 2 * uniform(2 * n, generator).view(n, 2) - 1


def _class_of(raw: Tensor) -> Tensor:
    """Radial class of each point, shape (B,)."""
    return torch.bucketize(raw.norm(dim=1), RADII, right=True)


def _draw_in_class(label: Tensor, generator: torch.Generator | None) -> Tensor:
    """A uniform point in each label's class: discs by radius, corners by rejection."""
    edges = torch.cat([torch.zeros(1), RADII, torch.ones(1)]) ** 2  # squared radii
    u = uniform(len(label), generator)
    angle = 2 * torch.pi * uniform(len(label), generator)
    radius = (edges[label] + u * (edges[label + 1] - edges[label])).sqrt()
    raw = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    corner = label == len(RADII)
    raw[corner] = _draw_corners(int(corner.sum()), generator)
    return raw


def _draw_corners(n: int, generator: torch.Generator | None) -> Tensor:
    """n points uniform on the square outside the disc: one candidate in five stays."""
    raw = torch.empty(0, 2, dtype=torch.float64)
    while len(raw) < n:
        candidates = _uniform_square(5 * (n - len(raw)) + 8, generator)
        raw = torch.cat([raw, candidates[_class_of(candidates) == len(RADII)]])
    return raw[:n]


# --- a uniform coordinate seen through noise ------------------------------------------

FAR = 100.0  # beyond, a tail is exponential up to 1 part in a million


def _truncated_normal(u: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p_n(u), E[x | u] and Var[x | u] of each coordinate, the shape of ``u``.

    The signs of u and x are turned so that u ≥ 0: then the nearer end is −b = (u − 1)/n
    and the farther one −c = (u + 1)/n away. Off the support (near > 0) Z is as small as
    φ(near), which both ratios leave out.
    """
    near, far = (u.abs() - 1) / n, (u.abs() + 1) / n
    fall = (-2 * u.abs() / n**2).exp()  # φ(far)/φ(near)
    # Z and φ(near), both over φ(near) where that may underflow
    off = near > 0
    mills = sqrt(pi / 2) * (
        torch.special.erfcx(near.clamp(min=0) / sqrt(2))
        - fall * torch.special.erfcx(far / sqrt(2))
    )
    peak = torch.exp(-(near.clamp(max=0) ** 2) / 2) / sqrt(2 * pi)
    direct = (torch.erf(far / sqrt(2)) - torch.erf(near.clamp(max=0) / sqrt(2))) / 2
    ratio = torch.where(off, 1 / mills, peak / direct)  # φ(near)/Z
    pull = ratio * (1 - fall)  # E[z], towards the support
    spread = 1 + ratio * (near - far * fall) - pull**2
    tail = 1 / near.clamp(min=FAR)
    pull = torch.where(near > FAR, near + tail - 2 * tail**3, pull)
    spread = torch.where(near > FAR, tail**2 - 6 * tail**4, spread)
    height = (
        -(near.clamp(min=0) ** 2) / 2 - log(2 * pi) / 2 + mills.where(off, 1.0).log()
    )
    log_mass = torch.where(off, height, direct.log())
    return log_mass - log(2), u.sign() * (u.abs() - n * pull), n**2 * spread


def _uniform_mmse(n: float) -> Tensor:
    """E[Var(x | u)] of one coordinate, by Gauss and Legendre over u ≥ 0.

    Away from the edge u = 1 the integrand is flat.
    """
    ends = sorted({0.0, max(0.0, 1 - 10 * n), 1.0, 1 + 10 * n})
    total = torch.zeros((), dtype=torch.float64)
    for a, b in pairwise(ends):
        u, weight = map(torch.from_numpy, gauss_legendre(a, b, 80))
        log_density, _, variance = _truncated_normal(u, torch.tensor(n, dtype=u.dtype))
        total = total + (weight * log_density.exp() * variance).sum()
    return 2 * total  # u < 0 gives as much
