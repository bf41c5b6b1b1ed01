"""Noise schedules: how much of the data and how much noise x_t holds.

    x_t = α(t)·x₀ + σ(t)·ε,   ε ~ N(0, I)
    λ(t) = log α²/σ²                       (log signal-to-noise ratio, falls with t)

    VE exponential   α = 1,   σ = σ_min^{1−t}·σ_max^t
    VE power         α = 1,   σ^{1/ρ} = (1−t)·σ_min^{1/ρ} + t·σ_max^{1/ρ}
    VP cosine        α = cos(πt/2),   σ = sin(πt/2)
    VP linear        log α = −½β₀t − ¼(β₁−β₀)t²,   σ² = 1 − α²
    DDPM             α² = ᾱ_t = Π_{k≤t} (1 − β_k),   σ² = 1 − ᾱ_t,   t = 0 … T

VE: the variance explodes; VP: it is preserved, α² + σ² = 1.

Sources: Song et al. 2021 (arXiv:2011.13456); Karras et al. 2022, power ρ
(arXiv:2206.00364); Nichol and Dhariwal 2021, cosine (arXiv:2102.09672); Ho et al. 2020,
DDPM (arXiv:2006.11239).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import exp, log, pi
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.checks import (
    check_count,
    check_generator,
    check_number,
    check_option,
    check_positive,
    check_times,
)
from course_utils.distributions import (
    fine_dtype,
    same_time,
    uniform,
    widen,
)
from course_utils.quadrature import gauss_legendre
from course_utils.solvers import even_times

SPACINGS = ("t", "log-SNR")
LEAST = 1e-6  # α/σ and σ/α of the ends, where float32 still tells both


class Level(NamedTuple):
    """α and σ at one time or at several."""

    alpha: Tensor
    sigma: Tensor


class Schedule(ABC):
    """α(t) and σ(t), noise growing with t.

    Its values live where the times do, in their dtype. Times for a batch of samples are
    checked in one place, :meth:`check`.

    Attributes:
        first: the time of least noise that a model learns.
        last: the time of most noise; where sampling starts.
        start: the time at which sampling ends and the forward process begins.
        whole: whether times are whole numbers.

    Raises:
        ValueError: ends in the wrong order; no data or no noise left at one of them.
    """

    first: float
    last: float
    start: float
    whole = False

    def __init__(self, first: float, last: float) -> None:
        if not first <= last:
            raise ValueError(f"last must not be before first, got {last} and {first}")
        self.first, self.last, self.start = first, last, first
        low, high = self.log_snr_range()
        if low > high:
            raise ValueError(
                "noise must grow with t: expected log α²/σ² to fall from first to last,"
                f" got {high:.3g} at t = {first:g} and {low:.3g} at t = {last:g}"
            )
        for t in (first, last):
            alpha, sigma = map(float, self.at(t))
            if not (alpha > LEAST * sigma and sigma > LEAST * alpha):
                raise ValueError(
                    "a schedule must leave some data and some noise at both ends:"
                    f" expected α and σ above 0, got α = {alpha:.2g} and"
                    f" σ = {sigma:.2g} at t = {t:g}"
                )

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """α(t), the shape of ``t``."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """σ(t), the shape of ``t``."""

    @abstractmethod
    def times(self, steps: int, even_in: str = "t") -> list[float]:
        """steps + 1 times from ``last`` down to ``start``.

        Args:
            steps: how many steps lie between.
            even_in: "t", or "log-SNR" for steps of equal λ.

        Raises:
            ValueError: steps < 1, an unknown spacing.
        """

    @abstractmethod
    def draw_time(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A time for each sample of ``x`` (B, …), as training draws them: (B,)."""

    @abstractmethod
    def spread_times(self, count: int) -> Tensor:
        """Times that stand for all of them evenly, at most ``count``: (T,)."""

    @abstractmethod
    def time_average(self, nodes: int) -> tuple[list[float], list[float]]:
        """Times and the weights of a mean over t as training draws it."""

    @abstractmethod
    def bound_terms(
        self, x: Tensor, count: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, float]]:
        """Times (B,) and weights of ‖ε − ε̂‖² in the evidence bound of ``x`` (B, …)."""

    def same_as(self, other: Schedule) -> bool:
        """Whether another schedule has the same levels at the same times."""
        if type(self) is not type(other) or self.first != other.first:
            return False
        t = self.spread_times(9).double()
        return self.last == other.last and bool(
            torch.equal(self.log_snr(t), other.log_snr(t))
        )

    def check(self, t: Tensor, batch: int) -> Tensor:
        """Return ``t`` if it is a time of the forward process for each sample.

        Raises:
            TypeError, ValueError: not floating, not (B,), outside the schedule, or no
                whole number where only they are times.
        """
        return self._between(self.start, t, batch)

    def check_learnt(self, t: Tensor, batch: int) -> Tensor:
        """Return ``t`` if it is a time that a model learns, for each sample.

        Raises:
            TypeError, ValueError: as for :meth:`check`, or no noise at that time.
        """
        return self._between(self.first, t, batch)

    def _between(self, first: float, t: Tensor, batch: int) -> Tensor:
        last, whole = self.last, self.whole
        return check_times(t, batch=batch, first=first, last=last, whole=whole)

    def levels(self, t: Tensor, x: Tensor) -> Level:
        """α(t) and σ(t) for samples ``x`` (B, …), widened to (B, 1, …, 1)."""
        self.check(t, len(x))
        return Level(widen(self.alpha(t), x), widen(self.sigma(t), x))

    def at(self, t: float) -> Level:
        """α and σ at one time, float64.

        Raises:
            ValueError: a time outside the schedule.
        """
        time = torch.tensor([t], dtype=torch.float64, device="cpu")
        moment = self.check(time, 1)[0]
        return Level(self.alpha(moment), self.sigma(moment))

    def log_snr(self, t: Tensor) -> Tensor:
        """λ(t) = log α²/σ², the shape of ``t``."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def log_snr_range(self) -> tuple[float, float]:
        """λ(last) and λ(first): the least and the greatest."""
        ends = torch.tensor([self.last, self.first], dtype=torch.float64, device="cpu")
        low, high = self.log_snr(ends).tolist()
        return low, high


class ContinuousSchedule(Schedule):
    """A schedule for all times first ≤ t ≤ last, with a rate of change."""

    @abstractmethod
    def rates(self, t: Tensor) -> Level:
        """dα/dt and dσ/dt, the shape of ``t``."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """t(λ), the inverse of :meth:`log_snr`."""

    def times(self, steps: int, even_in: str = "t") -> list[float]:
        if check_option("even_in", even_in, SPACINGS) == "t":
            return even_times(self.last, self.first, steps)
        log_snr = torch.tensor(even_times(*self.log_snr_range(), steps))
        inner = self.time(log_snr.double())[1:-1].tolist()
        return [self.last, *inner, self.first]

    def draw_time(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        u = uniform((len(x),), x, generator)
        return self.first + (self.last - self.first) * u

    def spread_times(self, count: int) -> Tensor:
        share = (torch.arange(check_count("times", count)) + 0.5) / count
        return self.first + (self.last - self.first) * share

    def time_average(self, nodes: int) -> tuple[list[float], list[float]]:
        times, weights = gauss_legendre(self.first, self.last, nodes)
        return list(times), [w / (self.last - self.first) for w in weights]

    def bound_terms(
        self, x: Tensor, count: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, float]]:
        """One λ in each of ``count`` equal parts of its range, at one place in all."""
        low, high = self.log_snr_range()
        u = uniform((len(x),), x.new_empty(0).double(), generator)
        for k in range(count):
            log_snr = low + (high - low) * (k + u) / count
            t = self.time(log_snr).clamp(self.first, self.last)
            yield t.to(fine_dtype(x)), (high - low) / count / 2


def check_continuous(schedule: Schedule, need: str) -> ContinuousSchedule:
    """Return ``schedule`` if it has a rate of change.

    Raises:
        TypeError: a chain of steps.
    """
    if not isinstance(schedule, ContinuousSchedule):
        raise TypeError(
            f"{need} needs a schedule with a time derivative, which a chain of steps"
            f" has not: sample it by DDIM; got {type(schedule).__name__}"
        )
    return schedule


# --- the variance explodes ------------------------------------------------------------


class VarianceExploding(ContinuousSchedule):
    """α = 1; a subclass says σ(t)."""

    def __init__(self, sigma_min: float = exp(-5), sigma_max: float = 1.0) -> None:
        self.sigma_min = check_positive("sigma_min", sigma_min)
        self.sigma_max = check_positive("sigma_max", sigma_max)
        if sigma_min >= sigma_max:
            raise ValueError(
                f"sigma_min must be below sigma_max, got {sigma_min} and {sigma_max}"
            )
        super().__init__(0.0, 1.0)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


class VEExponential(VarianceExploding):
    """σ(t) = σ_min^{1−t}·σ_max^t, a straight line in log σ; e^{5(t−1)} by default."""

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * (-self._decay * (1 - t)).exp()

    def rates(self, t: Tensor) -> Level:
        return Level(torch.zeros_like(t), self._decay * self.sigma(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return 1 - (log_snr / 2 + log(self.sigma_max)) / self._decay

    @property
    def _decay(self) -> float:
        return log(self.sigma_max / self.sigma_min)


class VEPower(VarianceExploding):
    """σ^{1/ρ} = (1−t)·σ_min^{1/ρ} + t·σ_max^{1/ρ}: σ is a straight line for ρ = 1.

    Args:
        rho: ρ; Karras et al. take 7.
    """

    def __init__(
        self, rho: float = 1.0, sigma_min: float = exp(-5), sigma_max: float = 1.0
    ) -> None:
        self.rho = check_positive("rho", rho)
        self._low, self._high = (
            check_positive(name, sigma) ** (1 / rho)
            for name, sigma in (("sigma_min", sigma_min), ("sigma_max", sigma_max))
        )
        super().__init__(sigma_min, sigma_max)

    def sigma(self, t: Tensor) -> Tensor:
        return (self._low + t * (self._high - self._low)) ** self.rho

    def rates(self, t: Tensor) -> Level:
        slope = self.rho * (self._high - self._low)
        root = self._low + t * (self._high - self._low)
        return Level(torch.zeros_like(t), slope * root ** (self.rho - 1))

    def time(self, log_snr: Tensor) -> Tensor:
        root = (-log_snr / (2 * self.rho)).exp()
        return (root - self._low) / (self._high - self._low)


# --- the variance is preserved --------------------------------------------------------


class VPCosine(ContinuousSchedule):
    """α = cos(πt/2), σ = sin(πt/2): a quarter turn from data to noise.

    At t = 0 there is no noise and at t = 1 nothing else, so both ends are left out.
    """

    def __init__(self, first: float = 0.005, last: float = 0.995) -> None:
        super().__init__(*_inner_times(first, last))

    def alpha(self, t: Tensor) -> Tensor:
        return (pi / 2 * t).cos()

    def sigma(self, t: Tensor) -> Tensor:
        return (pi / 2 * t).sin()

    def rates(self, t: Tensor) -> Level:
        return Level(-pi / 2 * self.sigma(t), pi / 2 * self.alpha(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return 2 / pi * (-log_snr / 2).exp().atan()


class VPLinear(ContinuousSchedule):
    """dx = −½β(t)·x dt + √β(t) dw, β(t) = β₀ + t·(β₁ − β₀)."""

    def __init__(
        self, beta0: float = 0.1, beta1: float = 20.0, first: float = 0.001
    ) -> None:
        self.beta0 = check_positive("beta0", beta0)
        self.beta1 = check_positive("beta1", beta1)
        if beta0 >= beta1:
            raise ValueError(f"beta0 must be below beta1, got {beta0} and {beta1}")
        super().__init__(*_inner_times(first, 1.0))

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -t * self.beta0 / 2 - t**2 * (self.beta1 - self.beta0) / 4

    def alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def rates(self, t: Tensor) -> Level:
        half = (self.beta0 + t * (self.beta1 - self.beta0)) / 2
        alpha = self.alpha(t)
        return Level(-half * alpha, half * alpha**2 / self.sigma(t))

    def time(self, log_snr: Tensor) -> Tensor:
        # log(1/α²) = β₀t + ½(β₁−β₀)t² = log(1 + e^{−λ}), a quadratic equation in t
        spent = F.softplus(-log_snr)
        slope = self.beta1 - self.beta0
        return 2 * spent / (self.beta0 + (self.beta0**2 + 2 * slope * spent).sqrt())


def _inner_times(first: float, last: float) -> tuple[float, float]:
    first, last = check_number("first", first), check_number("last", last)
    if not 0 < first < last <= 1:
        raise ValueError(f"0 < first < last ≤ 1 is needed, got {first} and {last}")
    return first, last


# --- a chain of T steps ---------------------------------------------------------------


class DDPMSchedule(Schedule):
    """q(x_t | x_{t−1}) = N(√(1−β_t)·x_{t−1}, β_t·I) for the whole numbers t = 1 … T.

    t = 0 is the data: α = 1, σ = 0. Sampling ends there; a model learns t = 1 … T.

    Attributes:
        betas, alphas, alphas_bar: β_t, 1 − β_t and ᾱ_t for t = 1 … T, (T,), float64.

    Raises:
        ValueError: not a row of numbers between 0 and 1.
    """

    whole = True

    def __init__(self, betas: Tensor | Sequence[float]) -> None:
        betas = torch.as_tensor(betas, dtype=torch.float64, device="cpu").detach()
        if betas.ndim != 1 or not len(betas):
            raise ValueError(f"betas must have shape (T,), got {tuple(betas.shape)}")
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                "betas must lie between 0 and 1, got "
                f"{float(betas.min()):g} … {float(betas.max()):g}"
            )
        self.betas = betas
        self.alphas = 1 - self.betas
        self.alphas_bar = self.alphas.cumprod(0)
        # α and σ of t = 0 … T
        self._alpha = F.pad(self.alphas_bar, (1, 0), value=1.0).sqrt()
        self._sigma = F.pad(1 - self.alphas_bar, (1, 0)).sqrt()
        super().__init__(1.0, float(len(betas)))
        self.start = 0.0

    def __len__(self) -> int:
        return len(self.betas)

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha.to(t.device)[t.long()].to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return self._sigma.to(t.device)[t.long()].to(t.dtype)

    def times(self, steps: int, even_in: str = "t") -> list[float]:
        """steps + 1 whole numbers from T down to 0, as even as they come."""
        if check_option("even_in", even_in, SPACINGS) != "t":
            raise TypeError("a chain of steps has no time for every log-SNR")
        if check_count("steps", steps) > len(self):
            raise ValueError(f"steps must be at most T = {len(self)}, got {steps}")
        return [float(round(t)) for t in even_times(self.last, 0.0, steps)]

    def draw_time(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Each of 1 … T equally likely."""
        generator = check_generator(generator)
        place = x.device if generator is None else generator.device
        drawn = torch.randint(
            1, len(self) + 1, (len(x),), generator=generator, device=place
        )
        return drawn.to(x.device, fine_dtype(x))

    def spread_times(self, count: int) -> Tensor:
        """All of 1 … T."""
        return torch.arange(1, len(self) + 1).float()

    def time_average(self, nodes: int) -> tuple[list[float], list[float]]:
        """1 … T, of equal weight."""
        steps = len(self)
        return [float(t) for t in range(1, steps + 1)], [1 / steps] * steps

    def bound_terms(
        self, x: Tensor, count: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, float]]:
        """All of t = 2 … T, with the weights of :func:`bound_weights`."""
        for t, weight in enumerate(bound_weights(self).tolist(), start=2):
            yield same_time(t, x), weight


def bound_weights(schedule: DDPMSchedule) -> Tensor:
    """½(SNR(t−1)/SNR(t) − 1) for t = 2 … T, (T − 1,): DDPM's loss leaves them out."""
    snr = schedule.alphas_bar / (1 - schedule.alphas_bar)
    return (snr[:-1] / snr[1:] - 1) / 2


def linear_betas(steps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """β_t evenly from ``start`` to ``end``, (T,); Ho et al. take T = 1000."""
    steps = check_count("steps", steps)
    return torch.linspace(start, end, steps, dtype=torch.float64)


def cosine_betas(steps: int, shift: float = 0.008, most: float = 0.999) -> Tensor:
    """β_t with ᾱ_t ∝ cos²(π/2·(t/T + shift)/(1 + shift)), at most ``most``, (T,)."""
    t = torch.arange(check_count("steps", steps) + 1, dtype=torch.float64) / steps
    alpha_bar = ((t + shift) / (1 + shift) * pi / 2).cos() ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=most)
