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
from course_utils.data import PlaneData
from course_utils.models.diffusion.denoiser import Denoiser
from course_utils.models.diffusion.schedules import DDPMSchedule, Schedule, jump

FAR = 1e3  # noise that hides the data: the posterior is then the data's own law


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
        if given_label and not data.classes:
            raise ValueError(f"{type(data).__name__} has no classes to be given")
        classes = data.classes if given_label else 0
        super().__init__(schedule, 2, classes, float(data_deviation(data)))
        self.data = data

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x0 = torch.empty_like(x)
        for moment in t.unique().tolist():
            rows = t == moment
            known = None if label is None else label[rows]
            x0[rows] = self._moments(x[rows], moment, known)[0]
        return x0

    def x0_and_divergence(
        self, x: Tensor, t: float, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._moments(x, t, label)

    def _moments(
        self, x: Tensor, t: float, label: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x̂₀* (B, D) and its divergence (B,)."""
        alpha, sigma = self.schedule.at(t)
        found = self.data.posterior(x / alpha, float(sigma / alpha), label)
        return found.mean, found.variance.sum(1) * alpha / sigma**2


def data_deviation(data: PlaneData, given_label: bool = False) -> Tensor:
    """√(mean variance of a coordinate): (), or (C,) for each class.

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
    times, weights = _time_average(schedule, nodes)
    floors = [loss_floor(data, schedule, t, given_label) for t in times]
    return float(np.dot(weights, floors))


def _time_average(schedule: Schedule, nodes: int) -> tuple[list[float], list[float]]:
    """Times and the weights of a mean over them."""
    if isinstance(schedule, DDPMSchedule):
        steps = len(schedule)
        return [float(t) for t in range(1, steps + 1)], [1 / steps] * steps
    place, weight = np.polynomial.legendre.leggauss(check_count("nodes", nodes))
    times = schedule.first + (schedule.last - schedule.first) * (place + 1) / 2
    return times.tolist(), (weight / 2).tolist()


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
    place, weight = np.polynomial.legendre.leggauss(check_count("nodes", nodes))
    log_snr = start + (end - start) * (place + 1) / 2
    slope = [exp(g) * data.mmse(exp(-g / 2)) for g in log_snr]
    head = exp(start) * data.mmse(exp(-start / 2))
    return float(head + (end - start) / 2 * np.dot(weight, slope)) / 2


class GapToOptimum:
    """Held-out measure of a denoiser: ‖ε̂ − ε‖² and its part ‖ε̂ − ε̂*‖².

    The expected loss is the floor plus E‖ε̂ − ε̂*‖², and the second part has far less
    noise. t takes ``times`` values, evenly spread over the schedule, as often each.

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
        check_count("points", points)
        if isinstance(schedule, DDPMSchedule):
            moments = torch.arange(1, len(schedule) + 1).float()
        else:
            share = (torch.arange(check_count("times", times)) + 0.5) / times
            moments = schedule.first + (schedule.last - schedule.first) * share
        self.t = moments.repeat_interleave(points)
        self.label: Tensor | None = None
        if given_label:
            x0, self.label = data.sample_labelled(len(self.t), generator)
        else:
            x0 = data.sample(len(self.t), generator)
        self.eps = torch.randn(x0.shape, generator=generator)
        self.x = jump(schedule, x0, self.t, self.eps)
        best = OptimalDenoiser(data, schedule, given_label)
        self.best = best.predict(self.x, self.t, self.label).eps

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser) -> dict[str, Tensor]:
        """The two squares of every held-out sample, (N,), in the order of t."""
        eps = denoiser.predict(self.x, self.t, self.label).eps
        return {
            "loss": ((eps - self.eps) ** 2).sum(1),
            "gap": ((eps - self.best) ** 2).sum(1),
        }


def smoothed_log_prob(
    data: PlaneData, schedule: Schedule, x: Tensor, label: Tensor | None = None
) -> Tensor:
    """True log-density (B,) of the data with the schedule's least noise on them."""
    alpha, sigma = schedule.at(schedule.first)
    return data.posterior(x, float(sigma / alpha), label).log_density
