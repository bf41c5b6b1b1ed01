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
from itertools import pairwise
from math import exp, log, pi
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.checks import check_count, check_option, check_positive
from course_utils.solvers import even_times

SPACINGS = ("t", "log-SNR")


class Level(NamedTuple):
    """α and σ at one time or at several."""

    alpha: Tensor
    sigma: Tensor


class Schedule(ABC):
    """α(t) and σ(t) on first ≤ t ≤ last, noise growing with t.

    Attributes:
        first: the time of least noise that a model learns; where sampling ends.
        last: the time of most noise; where sampling starts.
    """

    first: float
    last: float

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """α(t), the shape of ``t``."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """σ(t), the shape of ``t``."""

    @abstractmethod
    def rates(self, t: Tensor) -> Level:
        """dα/dt and dσ/dt, the shape of ``t``."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """t(λ), the inverse of :meth:`log_snr`."""

    def log_snr(self, t: Tensor) -> Tensor:
        """λ(t) = log α²/σ², the shape of ``t``."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def at(self, t: float) -> Level:
        """α and σ at one time, float64.

        Raises:
            ValueError: a time outside the schedule.
        """
        moment = torch.tensor(t, dtype=torch.float64)
        self.check(moment)
        return Level(self.alpha(moment), self.sigma(moment))

    def log_snr_range(self) -> tuple[float, float]:
        """λ(last) and λ(first): the least and the greatest."""
        ends = torch.tensor([self.last, self.first], dtype=torch.float64)
        low, high = self.log_snr(ends).tolist()
        return low, high

    def times(self, steps: int, even_in: str = "t") -> list[float]:
        """steps + 1 times from ``last`` down to ``first``.

        Args:
            steps: how many steps lie between.
            even_in: "t", or "log-SNR" for steps of equal λ.

        Raises:
            ValueError: steps < 1, an unknown spacing.
        """
        if check_option("even_in", even_in, SPACINGS) == "t":
            return even_times(self.last, self.first, steps)
        log_snr = torch.tensor(even_times(*self.log_snr_range(), steps))
        inner = self.time(log_snr.double())[1:-1].tolist()
        return [self.last, *inner, self.first]

    def draw_time(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n times (n,), uniform on [first, last]."""
        u = torch.rand(check_count("n", n), generator=generator)
        return self.first + (self.last - self.first) * u

    def check(self, t: Tensor) -> None:
        """Refuse times outside the schedule (rounding allowed for)."""
        slack = 1e-6 * (self.last - self.first)
        if (t < self.first - slack).any() or (t > self.last + slack).any():
            raise ValueError(
                f"t must lie in [{self.first:g}, {self.last:g}], got "
                f"{float(t.min()):g} … {float(t.max()):g}"
            )


# --- the variance explodes ------------------------------------------------------------


class VarianceExploding(Schedule):
    """α = 1; a subclass says σ(t)."""

    def __init__(self, sigma_min: float = exp(-5), sigma_max: float = 1.0) -> None:
        self.sigma_min = check_positive("sigma_min", sigma_min)
        self.sigma_max = check_positive("sigma_max", sigma_max)
        if sigma_min >= sigma_max:
            raise ValueError(
                f"sigma_min must be below sigma_max, got {sigma_min} and {sigma_max}"
            )
        self.first, self.last = 0.0, 1.0

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
        super().__init__(sigma_min, sigma_max)
        self.rho = check_positive("rho", rho)
        self._low, self._high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

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


class VPCosine(Schedule):
    """α = cos(πt/2), σ = sin(πt/2): a quarter turn from data to noise.

    At t = 0 there is no noise and at t = 1 nothing else, so both ends are left out.
    """

    def __init__(self, first: float = 0.005, last: float = 0.995) -> None:
        self.first, self.last = _inner_times(first, last)

    def alpha(self, t: Tensor) -> Tensor:
        return (pi / 2 * t).cos()

    def sigma(self, t: Tensor) -> Tensor:
        return (pi / 2 * t).sin()

    def rates(self, t: Tensor) -> Level:
        return Level(-pi / 2 * self.sigma(t), pi / 2 * self.alpha(t))

    def time(self, log_snr: Tensor) -> Tensor:
        return 2 / pi * (-log_snr / 2).exp().atan()


class VPLinear(Schedule):
    """dx = −½β(t)·x dt + √β(t) dw, β(t) = β₀ + t·(β₁ − β₀)."""

    def __init__(
        self, beta0: float = 0.1, beta1: float = 20.0, first: float = 0.001
    ) -> None:
        self.beta0 = check_positive("beta0", beta0)
        self.beta1 = check_positive("beta1", beta1)
        if beta0 >= beta1:
            raise ValueError(f"beta0 must be below beta1, got {beta0} and {beta1}")
        self.first, self.last = _inner_times(first, 1.0)

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

    def __init__(self, betas: Tensor) -> None:
        if betas.ndim != 1 or not len(betas):
            raise ValueError(f"betas must have shape (T,), got {tuple(betas.shape)}")
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError(
                "betas must lie between 0 and 1, got "
                f"{float(betas.min()):g} … {float(betas.max()):g}"
            )
        self.betas = betas.double()
        self.alphas = 1 - self.betas
        self.alphas_bar = self.alphas.cumprod(0)
        self.first, self.last = 1.0, float(len(betas))

    def __len__(self) -> int:
        return len(self.betas)

    def alpha(self, t: Tensor) -> Tensor:
        return F.pad(self.alphas_bar, (1, 0), value=1.0).sqrt()[t.long()].to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return F.pad(1 - self.alphas_bar, (1, 0)).sqrt()[t.long()].to(t.dtype)

    def rates(self, t: Tensor) -> Level:
        raise TypeError("a chain of steps has no time derivative: sample it by DDIM")

    def time(self, log_snr: Tensor) -> Tensor:
        raise TypeError("a chain of steps has no time for every log-SNR")

    def times(self, steps: int, even_in: str = "t") -> list[float]:
        """steps + 1 whole numbers from T down to 0, as even as they come."""
        if check_option("even_in", even_in, SPACINGS) != "t":
            raise TypeError("a chain of steps has no time for every log-SNR")
        if check_count("steps", steps) > len(self):
            raise ValueError(f"steps must be at most T = {len(self)}, got {steps}")
        return [float(round(t)) for t in even_times(self.last, 0.0, steps)]

    def draw_time(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n steps (n,), each of 1 … T equally likely."""
        size = (check_count("n", n),)
        return torch.randint(1, len(self) + 1, size, generator=generator).float()

    def check(self, t: Tensor) -> None:
        """Refuse what is no whole number from 0 to T."""
        if ((t != t.round()) | (t < 0) | (t > self.last)).any():
            raise ValueError(
                f"t must be a whole number from 0 to {len(self)}, got "
                f"{float(t.min()):g} … {float(t.max()):g}"
            )


def linear_betas(steps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """β_t evenly from ``start`` to ``end``, (T,); Ho et al. take T = 1000."""
    check_count("steps", steps)
    return torch.linspace(start, end, steps, dtype=torch.float64)


def cosine_betas(steps: int, shift: float = 0.008, most: float = 0.999) -> Tensor:
    """β_t with ᾱ_t ∝ cos²(π/2·(t/T + shift)/(1 + shift)), at most ``most``, (T,)."""
    t = torch.arange(check_count("steps", steps) + 1, dtype=torch.float64) / steps
    alpha_bar = ((t + shift) / (1 + shift) * pi / 2).cos() ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=most)


# --- the forward process --------------------------------------------------------------


def jump(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = α(t)·x₀ + σ(t)·ε, (B, D), for t (B,): a draw from q(x_t | x₀)."""
    schedule.check(t)
    return schedule.alpha(t)[:, None] * x0 + schedule.sigma(t)[:, None] * eps


def transition(schedule: Schedule, s: float, t: float) -> tuple[Tensor, Tensor]:
    """α_ts and σ²_ts of q(x_t | x_s) = N(α_ts·x_s, σ²_ts·I), for less noise at s.

    α_ts = α_t/α_s and σ²_ts = σ_t² − α_ts²·σ_s². With VE they are 1 and the difference
    of the variances, with DDPM and s = t − 1 they are √(1−β_t) and β_t.
    """
    before, after = schedule.at(s), schedule.at(t)
    ratio = after.alpha / before.alpha
    return ratio, after.sigma**2 - ratio**2 * before.sigma**2


def walk(
    schedule: Schedule,
    x0: Tensor,
    times: list[float],
    generator: torch.Generator | None = None,
) -> Tensor:
    """One path of the forward process: x at each of the rising times, (T, B, D).

    The first is a jump from x₀; each of the others adds its own noise to the one
    before. No model takes part.

    Raises:
        ValueError: times that do not rise or lie outside the schedule.
    """
    if not times or any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"times must rise, got {times}")

    def noise() -> Tensor:
        return torch.randn(x0.shape, generator=generator, dtype=x0.dtype)

    start = schedule.at(times[0])
    states = [start.alpha * x0 + start.sigma * noise()]
    for s, t in pairwise(times):
        ratio, variance = transition(schedule, s, t)
        states.append(ratio * states[-1] + variance.sqrt() * noise())
    return torch.stack(states)
