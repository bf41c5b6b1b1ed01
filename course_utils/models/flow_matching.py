"""Flow matching: a velocity field v(y, t) that carries noise to data in unit time.

    y_t = t·y₁ + (1−t)·y₀,   y₀ ~ N(0, I),  y₁ ~ data            (path)
    loss = E‖v(y_t, t) − (y₁ − y₀)‖²       (summed over the coordinates)
    dy/dt = v(y, t),   from noise at t = 0 to data at t = 1      (sampling)
    log p₁(y₁) = log N(y₀; 0, I) − ∫₀¹ div v(y_t, t) dt          (change of variables)

The best field is v*(y, t) = E[y₁ − y₀ | y_t = y] = (E[y₁ | y_t = y] − y)/(1−t). Its
loss is not zero: it is the floor of the chapter.

Sources: Lipman et al. 2023 (arXiv:2210.02747); Chen et al. 2018, the instantaneous
change of variables (arXiv:1806.07366); Tong et al. 2024, minibatch couplings
(arXiv:2302.00482); Karras et al. 2022, preconditioning (arXiv:2206.00364).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import log, pi

import numpy as np
import ot
import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_condition,
    check_count,
    check_option,
    check_points,
    check_positive,
)
from course_utils.data import PlaneData
from course_utils.networks import FourierFeatures, mlp
from course_utils.solvers import (
    RK4,
    Euler,
    Field,
    Solver,
    even_times,
    value_and_divergence,
)
from course_utils.training import History, fit

Batch = Tensor | tuple[Tensor, Tensor]  # y₁ (B, D), or y₁ and its classes (B,)

# --- the path -------------------------------------------------------------------------


class LinearPath:
    """y_t = t·y₁ + (1−t)·y₀, a straight line at constant speed y₁ − y₀."""

    def point(self, y0: Tensor, y1: Tensor, t: Tensor) -> Tensor:
        """y_t (B, D) for y₀, y₁ (B, D) and t (B,)."""
        return t[:, None] * y1 + (1 - t[:, None]) * y0

    def velocity(self, y0: Tensor, y1: Tensor) -> Tensor:
        """dy_t/dt (B, D)."""
        return y1 - y0


def draw_time(
    n: int, power: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """n times t = u^(1/power), u uniform: density power·t^(power−1) on [0, 1].

    power = 1 is uniform; power = 2, t = √u, looks more often near the data, where a
    small error of the field costs most likelihood.
    """
    check_positive("power", power)
    return torch.rand(check_count("n", n), generator=generator) ** (1 / power)


# --- which noise belongs to which point -----------------------------------------------


def independent(y0: Tensor, y1: Tensor) -> Tensor:
    """Noise for each y₁, whichever: leaves y₀ as it is."""
    return y0


def optimal_transport(y0: Tensor, y1: Tensor) -> Tensor:
    """y₀ in the order that minimises Σ‖y₁ − y₀‖² over the batch (Tong et al. 2024)."""
    cost = ot.dist(y1.double(), y0.double())  # (B, B), squared distances
    weight = cost.new_full((len(y1),), 1 / len(y1))
    return y0[ot.emd(weight, weight, cost).argmax(dim=1)]


# --- the network ----------------------------------------------------------------------


class Velocity(nn.Module, ABC):
    """A field v(y, t), or v(y, t | class).

    Attributes:
        classes: number of classes; 0 for a field that knows none.
    """

    classes: int = 0

    @abstractmethod
    def forward(self, y: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Velocity (B, D) at y (B, D), t (B,) and label (B,).

        Raises:
            ValueError: labels missing, out of range or unexpected.
        """


class VelocityNet(Velocity):
    """v(y, t) = (2t−1)/c² · y + net(y/c, t)/c,   c² = t² + (1−t)².

    The first term is the best field for data that are N(0, I). What is left for the
    network then has about unit scale at every t, and with y/c an edge of the data stays
    at the same place while t → 1. There the field changes over a distance of 1−t, so
    the network sees log(1−t) beside t. Both pass through Fourier features, and so does
    y/c.

    Args:
        dim: D.
        width, depth: width and number of the hidden layers.
        frequencies: Fourier features of each coordinate of y/c, 0 for none.
        classes: number of classes; 0 for a field that knows none.
        preconditioned: False for a plain network of (y, t), for comparison.
    """

    TIME_FREQUENCIES = 4
    NEAREST = 0.01  # below 1−t = 0.01 the network no longer tells times apart by log

    def __init__(
        self,
        dim: int = 2,
        width: int = 96,
        depth: int = 3,
        frequencies: int = 16,
        classes: int = 0,
        preconditioned: bool = True,
    ) -> None:
        super().__init__()
        self.classes = check_count("classes", classes, least=0)
        self.preconditioned = preconditioned
        self.space = FourierFeatures(dim, frequencies)
        times, rates = (2, self.TIME_FREQUENCIES) if preconditioned else (1, 0)
        self.time = FourierFeatures(times, rates, bound=1.0)
        inputs = self.space.out_dim + self.time.out_dim
        self.embedding = nn.Embedding(classes, width // 4) if classes else None
        if classes:
            inputs += width // 4
        hidden = [check_count("width", width)] * check_count("depth", depth)
        self.net = mlp([inputs, *hidden, dim], zero_last=True)

    def forward(self, y: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Velocity (B, D) at y (B, D), t (B,) and label (B,)."""
        check_condition(label, classes=self.classes, batch=len(y))
        t = t[:, None]  # (B, 1)
        if not self.preconditioned:
            return self.net(self._join(y, t, label))
        c = (t**2 + (1 - t) ** 2).sqrt()
        nearness = (1 - t + self.NEAREST).log() / -log(self.NEAREST)
        inner = self._join(y / c, torch.cat([t, nearness], dim=1), label)
        return (2 * t - 1) / c**2 * y + self.net(inner) / c

    def _join(self, y: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        parts = [self.space(y), self.time(time)]
        if self.embedding is not None:
            parts.append(self.embedding(label))
        return torch.cat(parts, dim=1)


# --- the loss -------------------------------------------------------------------------


@dataclass
class FlowMatchingLoss:
    """‖v(y_t, t) − (y₁ − y₀)‖² of every sample, shape (B,).

    Args:
        power: how t is drawn, as in :func:`draw_time`.
        reduction: "sum" over the coordinates, or "mean".
        coupling: which y₀ goes with which y₁, see :func:`optimal_transport`.
        generator: source of y₀ and t.
    """

    power: float = 2.0
    reduction: str = "sum"
    coupling: Callable[[Tensor, Tensor], Tensor] = independent
    generator: torch.Generator | None = None
    path: LinearPath = field(default_factory=LinearPath)

    def __post_init__(self) -> None:
        check_option("reduction", self.reduction, ["sum", "mean"])
        check_positive("power", self.power)

    def __call__(self, model: FlowMatching, batch: Batch) -> Tensor:
        y1, label = batch if isinstance(batch, tuple) else (batch, None)
        y0 = torch.randn(y1.shape, generator=self.generator, dtype=y1.dtype)
        y0 = self.coupling(y0, y1)
        t = draw_time(len(y1), self.power, self.generator).to(y1.dtype)
        return self.at(model, y0, y1, t, label)

    def at(
        self,
        model: FlowMatching,
        y0: Tensor,
        y1: Tensor,
        t: Tensor,
        label: Tensor | None = None,
    ) -> Tensor:
        """The same for given noise and times."""
        v = model.velocity(self.path.point(y0, y1, t), t, label)
        square = (v - self.path.velocity(y0, y1)) ** 2  # (B, D)
        return square.sum(1) if self.reduction == "sum" else square.mean(1)


# --- the model: solving the equation, and its likelihood ------------------------------


class FlowMatching(nn.Module):
    """dy/dt = v(y, t) between noise at t = 0 and data at t = 1.

    Args:
        velocity: v. If it knows classes, every call below needs labels.
        dim: D.
    """

    def __init__(self, velocity: Velocity, dim: int = 2) -> None:
        super().__init__()
        self.velocity = velocity
        self.dim = check_count("dim", dim)
        self.classes = velocity.classes

    def field(self, label: Tensor | None = None) -> Field:
        """f(y, t) for a solver: the velocity at one time t for all points."""
        return lambda y, t: self.velocity(y, y.new_full((len(y),), t), label)

    @torch.no_grad()
    def trajectory(
        self,
        y0: Tensor,
        label: Tensor | None = None,
        *,
        steps: int = 50,
        solver: Solver | None = None,
    ) -> Tensor:
        """Where the noise y₀ (B, D) goes: (steps + 1, B, D), from t = 0 to t = 1."""
        return self._path(y0, label, even_times(0.0, 1.0, steps), solver)

    @torch.no_grad()
    def inverse(
        self,
        y1: Tensor,
        label: Tensor | None = None,
        *,
        steps: int = 50,
        solver: Solver | None = None,
    ) -> Tensor:
        """Where the points y₁ (B, D) come from: (steps + 1, B, D), from t = 1 to 0."""
        return self._path(y1, label, even_times(1.0, 0.0, steps), solver)

    def _path(
        self,
        y: Tensor,
        label: Tensor | None,
        times: list[float],
        solver: Solver | None,
    ) -> Tensor:
        self._check(y, label)
        return (solver or Euler()).path(self.field(label), y, times)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        label: Tensor | None = None,
        *,
        steps: int = 50,
        solver: Solver | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n points (n, D); a model with classes needs n labels.

        Raises:
            ValueError: n < 1 or steps < 1; labels missing, out of range or unexpected.
        """
        y0 = self.base_sample(n, generator)
        self._check(y0, label)
        times = even_times(0.0, 1.0, steps)
        return (solver or Euler()).end(self.field(label), y0, times)

    def base_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, D) of the noise N(0, I), in the model's dtype."""
        return torch.randn(
            check_count("n", n), self.dim, generator=generator, dtype=self._dtype()
        )

    @torch.no_grad()
    def log_prob(
        self,
        y1: Tensor,
        label: Tensor | None = None,
        *,
        steps: int = 50,
        solver: Solver | None = None,
    ) -> Tensor:
        """log p₁(y₁), or log p₁(y₁ | label), in nats: shape (B,) for y₁ (B, D).

        The solver carries y and the integral of div v together back to t = 0. Too few
        steps bias the result, and the biased one often looks better.

        Raises:
            TypeError, ValueError: not a batch of finite points of the model's dtype;
                labels missing, out of range or unexpected; steps < 1.
        """
        self._check(y1, label)

        def both(state: Tensor, t: float) -> Tensor:
            v, div = self.velocity_and_divergence(state[:, :-1], t, label)
            return torch.cat([v, div[:, None]], dim=1)

        state = torch.cat([y1, y1.new_zeros(len(y1), 1)], dim=1)  # (B, D + 1)
        state = (solver or RK4()).end(both, state, even_times(1.0, 0.0, steps))
        y0, integral = state[:, :-1], state[:, -1]  # integral from 1 to 0 of div v
        return -0.5 * (y0**2).sum(1) - 0.5 * self.dim * log(2 * pi) + integral

    def velocity_and_divergence(
        self, y: Tensor, t: float, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """v (B, D) and div v = Σ_i ∂v_i/∂y_i (B,), exact: one backward pass each."""
        return value_and_divergence(lambda p: self.field(label)(p, t), y)

    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def _check(self, y: Tensor, label: Tensor | None) -> None:
        dtype = self._dtype() if any(True for _ in self.parameters()) else None
        check_points(y, dim=self.dim, dtype=dtype)
        check_condition(label, classes=self.classes, batch=len(y))


# --- the truth ------------------------------------------------------------------------


class OptimalVelocity(Velocity):
    """v*(y, t) = (E[y₁ | y_t = y] − y)/(1−t), the field of least loss, exactly.

    With u = y_t/t = y₁ + s·y₀ and s = (1−t)/t, E[y₁ | y_t] is the posterior mean of the
    data given u.

    Args:
        data: what y₁ is drawn from.
        given_label: whether the field knows the class of y₁.

    Raises:
        ValueError: given_label for data without classes.
    """

    EARLIEST = 1e-3  # at t = 0 the posterior is the data's own law

    def __init__(self, data: PlaneData, given_label: bool = False) -> None:
        super().__init__()
        if given_label and not data.classes:
            raise ValueError(f"{type(data).__name__} has no classes to be given")
        self.data = data
        self.classes = data.classes if given_label else 0

    def forward(self, y: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """v* (B, D) at y (B, D) and t (B,).

        Raises:
            ValueError: t ≥ 1, where v* is not defined off the support; labels missing,
                out of range or unexpected.
        """
        check_condition(label, classes=self.classes, batch=len(y))
        v = torch.empty_like(y)
        for moment in t.unique().tolist():
            if moment >= 1:
                raise ValueError(f"t must be below 1, got {moment}")
            rows = t == moment
            known = label[rows] if label is not None else None
            v[rows] = self._at(y[rows], moment, known)
        return v

    def _at(self, y: Tensor, t: float, label: Tensor | None) -> Tensor:
        early = max(t, self.EARLIEST)
        s = (1 - early) / early
        mean = self.data.posterior(y / early, s, label).mean
        return (mean - y) / (1 - t)


class GapToOptimum:
    """Held-out measure of a model: ‖v − (y₁ − y₀)‖² and its part ‖v − v*‖².

    The expected loss is the floor plus E‖v − v*‖², and the second part has far less
    noise. t takes ``times`` values, evenly spread over [0, 1], as often each.

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
        n = check_count("times", times) * check_count("points", points)
        self.label: Tensor | None = None
        if given_label:
            y1, self.label = data.sample_labelled(n, generator)
        else:
            y1 = data.sample(n, generator)
        y0 = torch.randn(n, 2, generator=generator)
        self.t = ((torch.arange(times) + 0.5) / times).repeat_interleave(points)
        path = LinearPath()
        self.y, self.target = path.point(y0, y1, self.t), path.velocity(y0, y1)
        self.best = OptimalVelocity(data, given_label)(self.y, self.t, self.label)

    @torch.no_grad()
    def __call__(self, model: FlowMatching) -> dict[str, Tensor]:
        """The two squares of every held-out sample, (N,), in the order of t."""
        v = model.velocity(self.y, self.t, self.label)
        return {
            "loss": ((v - self.target) ** 2).sum(1),
            "gap": ((v - self.best) ** 2).sum(1),
        }


def velocity_gap(
    model: FlowMatching,
    data: PlaneData,
    t: float,
    label: int | None = None,
    nodes: int = 300,
) -> float:
    """E‖v(y_t, t) − v*(y_t, t)‖² at one t, by quadrature on a square grid of y_t.

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

    For N(0, I) and uniform t it is ∫₀¹ 2/(t² + (1−t)²) dt = π.
    """
    place, weight = np.polynomial.legendre.leggauss(check_count("nodes", nodes))
    u = (place + 1) / 2
    times: Iterable[float] = (u ** (1 / check_positive("power", power))).tolist()
    floors = [loss_floor(data, t, given_label) for t in times]
    return float(weight / 2 @ np.array(floors))


def _check_inner(t: float) -> None:
    if not 0 < t < 1:
        raise ValueError(f"t must lie between 0 and 1, got {t}")


# --- the recipe of the book -----------------------------------------------------------


def fit_flow_matching(
    model: FlowMatching,
    data: PlaneData,
    *,
    steps: int = 8000,
    batch: int = 512,
    lr: float = 6e-3,
    loss: FlowMatchingLoss | None = None,
    held_out: GapToOptimum | None = None,
    epoch: int = 400,
    seed: int = 2,
) -> History:
    """Train on fresh data, with labels if the model knows classes.

    Args:
        loss: by default the book's: t = √u, independent noise, seeded.
        held_out: measured at the start and after each ``epoch`` steps.
        seed: of the data and, by default, of the loss.
    """
    generator = torch.Generator().manual_seed(seed)
    return fit(
        model,
        data,
        loss or FlowMatchingLoss(generator=generator),
        steps=steps,
        batch=batch,
        lr=lr,
        held_out=held_out,
        epoch=epoch,
        generator=generator,
    )
