"""From noise to data: x_t → x_s for falling times t > s, one small step after another.

Every step asks the denoiser for x̂₀ and ε̂ at (x_t, t). With

    α_ts = α_t/α_s,   σ²_ts = σ_t² − α_ts²·σ_s²,   σ̃² = σ_s²·σ²_ts/σ_t²

q(x_s | x_t, x₀) is normal with variance σ̃², and the samplers are

    DDPM   x_s = α_ts·σ_s²/σ_t²·x_t + α_s·σ²_ts/σ_t²·x̂₀ + σ̃·z
    DDIM   x_s = α_s·x̂₀ + √(σ_s² − η²σ̃²)·ε̂ + ησ̃·z
    ODE    dx/dt = α̇·x̂₀ + σ̇·ε̂                          (probability flow)

with z ~ N(0, I). DDIM with η = 1 is DDPM, and with η = 0 it draws no noise: then it is
Euler's method for the ODE of x/α as a function of σ/α.

Sources: Ho et al. 2020 (arXiv:2006.11239); Song, Meng and Ermon 2021, DDIM
(arXiv:2010.02502); Song et al. 2021, the ODE (arXiv:2011.13456).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import check_count, check_number, check_option
from course_utils.distributions import normal, normal_like, reference
from course_utils.models.diffusion.denoiser import Denoiser, Prediction
from course_utils.models.diffusion.process import transition
from course_utils.models.diffusion.schedules import (
    Schedule,
    check_continuous,
)
from course_utils.networks.conditioning import Condition
from course_utils.solvers import Heun, Solver

StartStd = float | Tensor | None  # a number, one for each class (C,), or the default
Guess = Callable[[Tensor, float], Prediction]  # x_t (B, …) and t → x̂₀, ε̂ and v̂
Noise = Callable[[], Tensor]  # z ~ N(0, I), shaped like x_t


class Trajectory(NamedTuple):
    """What a sampler passed through.

    Attributes:
        times: T + 1 falling times.
        x: x_t at each of them, (T + 1, B, *shape).
        x0: the guess x̂₀(x_t, t) at each but the last, (T, B, *shape).
    """

    times: list[float]
    x: Tensor
    x0: Tensor


def start_deviation(
    denoiser: Denoiser, condition: Condition = None, start_std: StartStd = None
) -> Tensor:
    """Standard deviation of the noise that sampling starts with: () or (B, 1, …, 1).

    By default √(α²d² + σ²) at the last time, the deviation of x_t itself when that of
    the data is d. With VE, N(0, 1) is not it: σ = 1 comes on top of the data.

    Args:
        denoiser: its schedule, and its ``data_std`` d.
        condition: classes (B,), read if there is a deviation for each of them.
        start_std: a number, or one for each class (C,).

    Raises:
        ValueError: deviations that are not above 0, or not one for each class.
    """
    if start_std is None:
        alpha, sigma = denoiser.schedule.at(denoiser.schedule.last)
        return (alpha**2 * denoiser.data_std**2 + sigma**2).sqrt()
    std = torch.as_tensor(start_std, dtype=torch.float64)
    if not ((std > 0) & std.isfinite()).all():
        raise ValueError(f"start_std must be above 0, got {start_std}")
    if std.ndim == 0:
        return std
    if not denoiser.classes or std.shape != (denoiser.classes,):
        raise ValueError(
            "start_std must be a number or, for a denoiser with classes, of shape "
            f"({denoiser.classes or 'C'},), got {tuple(std.shape)}"
        )
    if condition is None:
        raise ValueError("a deviation for each class needs class labels, got None")
    each = std.to(condition.device)[condition]
    return each.view(-1, *[1] * len(denoiser.shape))


@dataclass(eq=False)
class Sampler(ABC):
    """The loop; a subclass says in :meth:`move` what a step is.

    Attributes:
        denoiser: a network, or the truth.
        start_std: see :func:`start_deviation`.
        even_in: spacing of the times, "t" or "log-SNR".
    """

    denoiser: Denoiser
    _: KW_ONLY
    start_std: StartStd = None
    even_in: str = "t"

    @abstractmethod
    def move(self, guess: Guess, x: Tensor, t: float, s: float, noise: Noise) -> Tensor:
        """x_t → x_s for s < t, both (B, *shape).

        Args:
            guess: x_t and t → x̂₀, ε̂ and v̂.
            x: x_t.
            t, s: from where to where.
            noise: draws z ~ N(0, I).
        """

    @property
    def schedule(self) -> Schedule:
        """α and σ."""
        return self.denoiser.schedule

    def step(
        self,
        x: Tensor,
        t: float,
        s: float,
        condition: Condition = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x_t → x_s for s < t, both (B, *shape)."""
        return self._guess_and_step(x, t, s, condition, generator)[1]

    def _guess_and_step(
        self,
        x: Tensor,
        t: float,
        s: float,
        condition: Condition,
        generator: torch.Generator | None,
    ) -> tuple[Prediction, Tensor]:
        """The guess at x_t, and x_s."""
        guesses: list[Prediction] = []

        def guess(x: Tensor, t: float) -> Prediction:
            guesses.append(self.denoiser.predict(x, t, condition))
            return guesses[-1]

        moved = self.move(guess, x, t, s, lambda: normal_like(x, generator))
        return guesses[0], moved

    def start(
        self,
        n: int,
        condition: Condition = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples (n, *shape) of the noise at the last time."""
        self.denoiser.condition.check(condition, check_count("n", n))
        shape = (n, *self.denoiser.shape)
        noise = normal(shape, reference(self.denoiser), generator)
        std = start_deviation(self.denoiser, condition, self.start_std)
        return std.to(noise.dtype) * noise

    @torch.no_grad()
    def sample(
        self,
        n: int,
        condition: Condition = None,
        *,
        steps: int = 50,
        clean: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples (n, *shape), each with its condition if the denoiser needs one.

        Args:
            n: number of samples.
            condition: what the denoiser has to know, (n, …).
            steps: number of steps.
            clean: end with the guess x̂₀ instead of x at the first time, which still
                holds noise σ(first).
            generator: source of the starting noise and of that of the steps.

        Raises:
            TypeError, ValueError: n < 1 or steps < 1; a condition that is missing,
                malformed or unexpected.
        """
        x = self.start(n, condition, generator)
        times = self.schedule.times(steps, self.even_in)
        for t, s in pairwise(times):
            x = self.step(x, t, s, condition, generator)
        noisy = float(self.schedule.at(times[-1]).sigma) > 0
        if clean and noisy:
            return self.denoiser.predict(x, times[-1], condition).x0
        return x

    @torch.no_grad()
    def path(
        self,
        start: Tensor,
        condition: Condition = None,
        *,
        steps: int = 50,
        generator: torch.Generator | None = None,
    ) -> Trajectory:
        """Where the noise ``start`` (B, *shape) of the last time goes, and x̂₀ there.

        Raises:
            TypeError, ValueError: as for :meth:`sample`; no batch of samples.
        """
        self.denoiser.check(start, condition)
        times = self.schedule.times(steps, self.even_in)
        x, x0 = [start], []
        for t, s in pairwise(times):
            guess, moved = self._guess_and_step(x[-1], t, s, condition, generator)
            x0.append(guess.x0)
            x.append(moved)
        return Trajectory(times, torch.stack(x), torch.stack(x0))


def bridge(
    schedule: Schedule, x: Tensor, x0: Tensor, t: float, s: float
) -> tuple[Tensor, Tensor]:
    """Mean (B, …) and variance () of q(x_s | x_t, x_0), for less noise at s.

    α_ts·σ_s²/σ_t²·x_t + α_s·σ²_ts/σ_t²·x_0   and   σ̃² = σ_s²·σ²_ts/σ_t².
    """
    now, then = schedule.at(t), schedule.at(s)
    ratio, added = transition(schedule, s, t)
    kept = then.sigma**2 / now.sigma**2
    return ratio * kept * x + then.alpha * added / now.sigma**2 * x0, added * kept


@dataclass(eq=False)
class DDPM(Sampler):
    """A draw from q(x_s | x_t, x̂₀), the ancestral step.

    Attributes:
        variance: "small", σ̃², the right one if x̂₀ is the truth; or "large", σ²_ts (β_t
            for neighbours), the right one if the data are N(0, I) and the variance is
            preserved. No noise is added on the way to σ_s = 0.
    """

    _: KW_ONLY
    variance: str = "small"

    def __post_init__(self) -> None:
        check_option("variance", self.variance, ["small", "large"])

    def move(self, guess: Guess, x: Tensor, t: float, s: float, noise: Noise) -> Tensor:
        mean, variance = bridge(self.schedule, x, guess(x, t).x0, t, s)
        if self.variance == "large" and variance > 0:
            variance = transition(self.schedule, s, t)[1]
        return mean + variance.sqrt() * noise()


@dataclass(eq=False)
class DDIM(Sampler):
    """x_s from x̂₀ and ε̂, with a share η of the ancestral step's noise.

    Attributes:
        eta: η from 0 (no noise) to 1 (DDPM).

    Raises:
        ValueError: η outside [0, 1].
    """

    _: KW_ONLY
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= check_number("eta", self.eta) <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {self.eta}")

    def move(self, guess: Guess, x: Tensor, t: float, s: float, noise: Noise) -> Tensor:
        now, then = self.schedule.at(t), self.schedule.at(s)
        _, added = transition(self.schedule, s, t)
        x0, eps, _ = guess(x, t)
        variance = self.eta**2 * then.sigma**2 * added / now.sigma**2
        x = then.alpha * x0 + (then.sigma**2 - variance).sqrt() * eps
        return x if self.eta == 0 else x + variance.sqrt() * noise()


@dataclass(eq=False)
class ProbabilityFlow(Sampler):
    """A solver's step along dx/dt = α̇·x̂₀ + σ̇·ε̂, which has the marginals of x_t.

    Attributes:
        solver: one step of dx/dt = f(x, t).

    Raises:
        TypeError: a chain of steps, which has no time derivative.
    """

    _: KW_ONLY
    solver: Solver = field(default_factory=Heun)

    def __post_init__(self) -> None:
        self.rates = check_continuous(self.schedule, "the probability flow").rates

    def move(self, guess: Guess, x: Tensor, t: float, s: float, noise: Noise) -> Tensor:
        def field(x: Tensor, t: float) -> Tensor:
            """dx/dt (B, *shape)."""
            rate = self.rates(torch.tensor(t, dtype=torch.float64))
            x0, eps, _ = guess(x, t)
            return rate.alpha * x0 + rate.sigma * eps

        return self.solver.step(field, x, t, s - t)
