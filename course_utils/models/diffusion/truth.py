"""The best denoiser, its loss and the true log-density: what a network is held to.

x_t/α = x₀ + s·ε with s = σ/α: what x_t says of x₀ is what a point with noise s says of
the data.

    x̂₀*(x_t) = E[x₀ | x₀ + s·ε = x_t/α]
    E‖ε̂* − ε‖² = E‖x̂₀* − x₀‖²/s²                   (the floor of the loss)
    ∂x̂₀*_i/∂x_i = Var[x₀_i | x_t]·α/σ²             (its divergence)

and E‖ε̂ − ε‖² = floor + E‖ε̂ − ε̂*‖² for every other denoiser. The same least errors say
how much x_t still knows of x₀ (Guo, Shamai and Verdú 2005, arXiv:cs/0412108):

    I(x₀; x_t) = ½ ∫_0^{1/s²} mmse(1/√γ) dγ
"""

from __future__ import annotations

from math import exp, log

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import check_count, check_positive
from course_utils.data.plane import PlaneData
from course_utils.distributions import normal_like
from course_utils.models.diffusion.denoiser import Denoiser
from course_utils.models.diffusion.process import jump
from course_utils.models.diffusion.schedules import (
    Schedule,
)
from course_utils.models.optimum import (
    HeldOutSquares,
    at_each_time,
    held_out_samples,
    known_classes,
    moved_to,
)
from course_utils.networks.conditioning import Condition
from course_utils.quadrature import gauss_legendre

FAR = 1e3  # noise that hides data of a few units: the posterior is then their own law


class OptimalDenoiser(Denoiser):
    """x̂₀*(x_t) = E[x₀ | x_t], or E[x₀ | x_t, label], exactly.

    Args:
        data: what x₀ is drawn from.
        schedule: α and σ.
        given_label: whether it knows the class.

    Raises:
        ValueError: given_label for data without classes.
    """

    kind = "x0"

    def __init__(
        self, data: PlaneData, schedule: Schedule, given_label: bool = False
    ) -> None:
        known = known_classes(data, given_label)
        super().__init__(schedule, (2,), known, float(data_deviation(data)))
        self.data = data

    def at(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return at_each_time(lambda *a: self._moments(*a)[0], x, t, condition)

    def x0_and_divergence(
        self, x: Tensor, t: float, condition: Condition = None
    ) -> tuple[Tensor, Tensor]:
        self.check(x, condition)
        return self._moments(x, t, condition)

    def _moments(
        self, x: Tensor, t: float, label: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x̂₀* (B, 2) and its divergence (B,)."""
        alpha, sigma = self.schedule.at(t)
        found = self.data.posterior(x / alpha, float(sigma / alpha), label)
        return found.mean, found.variance.sum(1) * alpha / sigma**2


def data_deviation(data: PlaneData, given_label: bool = False) -> Tensor:
    """√(mean variance of a coordinate): (), or (C,) for each class.

    For data of a few units: it is what noise of a thousand leaves of them.

    Raises:
        ValueError: given_label for data without classes.
    """
    label = torch.arange(data.classes) if given_label else None
    centre = torch.zeros(data.classes if given_label else 1, 2, dtype=torch.float64)
    variance = data.posterior(centre, FAR, label).variance.mean(1)
    return variance.sqrt() if given_label else variance.sqrt()[0]


def loss_floor(
    data: PlaneData, schedule: Schedule, t: float, given_label: bool = False
) -> float:
    """min E‖ε̂ − ε‖² at one time, summed over the coordinates: mmse(s)/s², s = σ/α.

    Raises:
        ValueError: t outside the schedule; given_label for data without classes.
    """
    alpha, sigma = schedule.at(t)
    s = float(sigma / alpha)
    return data.mmse(s, given_label) / s**2


def mean_loss_floor(
    data: PlaneData, schedule: Schedule, given_label: bool = False, nodes: int = 32
) -> float:
    """The floor averaged over t as the loss draws it.

    By Gauss and Legendre on [first, last]; the mean over t = 1 … T for a chain.
    """
    times, weights = schedule.time_average(check_count("nodes", nodes))
    floors = [loss_floor(data, schedule, t, given_label) for t in times]
    return float(np.dot(weights, floors))


def mutual_information(
    data: PlaneData, schedule: Schedule, t: float, nodes: int = 64
) -> float:
    """I(x₀; x_t) in nats: how much x_t still knows of x₀.

    By Gauss and Legendre over log γ from −12; below that the noise hides everything and
    mmse is the data's variance.

    Raises:
        ValueError: t outside the schedule; no noise, or all but no data, at t.
    """
    alpha, sigma = schedule.at(t)
    start, end = -12.0, 2 * log(check_positive("alpha/sigma", float(alpha / sigma)))
    if end <= start:
        raise ValueError(f"σ/α must be below {exp(-start / 2):.0f}, got t = {t:g}")
    log_snr, weight = gauss_legendre(start, end, nodes)
    slope = [exp(g) * data.mmse(exp(-g / 2)) for g in log_snr]
    head = exp(start) * data.mmse(exp(-start / 2))
    return float(head + np.dot(weight, slope)) / 2


class GapToOptimum(HeldOutSquares):
    """Held-out measure of a denoiser: ‖ε̂ − ε‖² and its part ‖ε̂ − ε̂*‖².

    The second part has far less noise. t takes ``times`` values, evenly spread over the
    schedule, as often each.

    Args:
        data: what x₀ is drawn from.
        schedule: α and σ.
        given_label: whether the denoiser knows the class.
        times: number of values of t; a chain takes all its steps.
        points: number of points for each t.
        generator: source of x₀ and ε.
    """

    def __init__(
        self,
        data: PlaneData,
        schedule: Schedule,
        given_label: bool = False,
        *,
        times: int = 40,
        points: int = 500,
        generator: torch.Generator | None = None,
    ) -> None:
        moments = schedule.spread_times(times)
        self.t = moments.repeat_interleave(check_count("points", points))
        x0, self.label = held_out_samples(data, len(self.t), given_label, generator)
        eps = normal_like(x0, generator)
        self.x = jump(schedule, x0, self.t, eps)
        best = OptimalDenoiser(data, schedule, given_label)
        super().__init__(eps, best.predict(self.x, self.t, self.label).eps)

    def guess(self, model: Denoiser) -> Tensor:
        """ε̂ of every held-out sample, (N, 2), in the order of t."""
        return model.predict(*moved_to(model, self.x, self.t, self.label)).eps


def smoothed_log_prob(
    data: PlaneData, schedule: Schedule, x: Tensor, label: Tensor | None = None
) -> Tensor:
    """True log-density (B,) of the data with the schedule's least noise on them."""
    alpha, sigma = schedule.at(schedule.first)
    return data.posterior(x, float(sigma / alpha), label).log_density
