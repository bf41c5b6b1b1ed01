"""The best field, its loss, and how far a model is from it.

    v*(y, t) = E[y₁ − y₀ | y_t = y] = (E[y₁ | y_t = y] − y)/(1−t)
    E‖v − (y₁ − y₀)‖² = E‖v* − (y₁ − y₀)‖² + E‖v − v*‖²     (floor + gap)

With u = y_t/t = y₁ + s·y₀ and s = (1−t)/t, E[y₁ | y_t] is the posterior mean of the
data given u, which the data sets of the plane know exactly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import check_count, check_points, check_positive
from course_utils.data.plane import PlaneData
from course_utils.distributions import normal_like
from course_utils.models.flow_matching.model import FlowMatching
from course_utils.models.flow_matching.path import LinearPath
from course_utils.models.flow_matching.velocity import Velocity
from course_utils.models.optimum import (
    HeldOutSquares,
    at_each_time,
    held_out_samples,
    known_classes,
    moved_to,
)
from course_utils.networks.conditioning import Condition
from course_utils.quadrature import gauss_legendre


class OptimalVelocity(Velocity):
    """v*(y, t), the field of least loss: exact from t = 0.001 on.

    Args:
        data: what y₁ is drawn from.
        given_label: whether the field knows the class of y₁.

    Raises:
        ValueError: given_label for data without classes.
    """

    EARLIEST = 1e-3  # at t = 0 the posterior is the data's own law

    def __init__(self, data: PlaneData, given_label: bool = False) -> None:
        super().__init__(known_classes(data, given_label))
        self.data = data

    def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """v* (B, 2) at y (B, 2) and t (B,).

        Raises:
            ValueError: t ≥ 1, where v* is not defined off the support.
        """
        return at_each_time(lambda *a: self._moments(*a)[0], y, t, condition)

    def value_and_divergence(
        self, y: Tensor, t: float, condition: Condition = None
    ) -> tuple[Tensor, Tensor]:
        """v* (B, 2), and div v* = (Σ_i Var[y₁_i | y_t]·t/(1−t)² − 2)/(1−t)."""
        self.condition.check(condition, len(check_points(y)))
        return self._moments(y, t, condition)

    def _moments(
        self, y: Tensor, t: float, label: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """v* (B, 2) and its divergence (B,)."""
        if not t < 1:
            raise ValueError(f"t must be below 1, got {t}")
        early = max(t, self.EARLIEST)
        s = (1 - early) / early
        found = self.data.posterior(y / early, s, label)
        slope = found.variance.sum(1) / (s**2 * early)  # of E[y₁ | y_t] in y_t
        return (found.mean - y) / (1 - t), (slope - 2) / (1 - t)


class GapToOptimum(HeldOutSquares):
    """Held-out measure of a model: ‖v − (y₁ − y₀)‖² and its part ‖v − v*‖².

    The second part has far less noise. t takes ``times`` values, evenly spread over
    [0, 1], as often each.

    Args:
        data: what y₁ is drawn from.
        given_label: whether the model knows the class.
        times: number of values of t.
        points: number of points for each t.
        generator: source of y₀ and y₁.
    """

    def __init__(
        self,
        data: PlaneData,
        given_label: bool = False,
        *,
        times: int = 20,
        points: int = 500,
        generator: torch.Generator | None = None,
    ) -> None:
        moments = (torch.arange(check_count("times", times)) + 0.5) / times
        self.t = moments.repeat_interleave(check_count("points", points))
        y1, self.label = held_out_samples(data, len(self.t), given_label, generator)
        y0 = normal_like(y1, generator)
        path = LinearPath()
        self.y = path.point(y0, y1, self.t)
        best = OptimalVelocity(data, given_label)(self.y, self.t, self.label)
        super().__init__(path.velocity(y0, y1), best)

    def guess(self, model: FlowMatching) -> Tensor:
        """v of every held-out sample, (N, 2), in the order of t."""
        return model.velocity(*moved_to(model, self.y, self.t, self.label))


def velocity_gap(
    model: FlowMatching,
    data: PlaneData,
    t: float,
    label: int | None = None,
    nodes: int = 300,
) -> float:
    """E‖v(y_t, t) − v*(y_t, t)‖² at one t, by quadrature on a grid over [−5, 5]².

    For data that are z-scored: what lies beyond the grid is not seen.

    Args:
        model: its field v.
        data: the truth; v* and the density of y_t are exact.
        t: between 0 and 1.
        label: one class, for a model that knows classes.
        nodes: of the grid along each axis.
    """
    _check_inner(t)
    axis = torch.linspace(-5, 5, check_count("nodes", nodes))
    y = torch.cartesian_prod(axis, axis)
    known = None if label is None else torch.full((len(y),), label)
    law = data.posterior(y / t, (1 - t) / t, known)
    weight = law.log_density.double().softmax(0)
    seen = weight > 1e-12
    best = (law.mean - y) / (1 - t)
    with torch.no_grad():
        v = model.field(known)(y, t)
    square = ((v - best) ** 2).sum(1).double()
    return float((weight * square)[seen].sum())


def loss_floor(data: PlaneData, t: float, given_label: bool = False) -> float:
    """E‖v*(y_t, t) − (y₁ − y₀)‖² at one time: tr Cov(y₁ | y_t)/(1−t)² on average.

    Summed over the coordinates, for independent y₀ and y₁.

    Raises:
        ValueError: t outside (0, 1).
    """
    _check_inner(t)
    return data.mmse((1 - t) / t, given_label) / (1 - t) ** 2


def mean_loss_floor(
    data: PlaneData, given_label: bool = False, power: float = 1.0, nodes: int = 32
) -> float:
    """The floor averaged over t as :func:`draw_time` draws it, by Gauss and Legendre.

    For N(0, I) and uniform t, power = 1, it is ∫₀¹ 2/(t² + (1−t)²) dt = π.
    """
    u, weight = gauss_legendre(0.0, 1.0, nodes)
    times = np.asarray(u) ** (1 / check_positive("power", power))
    floors = [loss_floor(data, float(t), given_label) for t in times]
    return float(np.dot(weight, floors))


def _check_inner(t: float) -> None:
    if not 0 < t < 1:
        raise ValueError(f"t must lie between 0 and 1, got {t}")
