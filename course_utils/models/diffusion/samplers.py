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
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import check_condition, check_count, check_option
from course_utils.models.diffusion.denoiser import Denoiser
from course_utils.models.diffusion.schedules import Schedule, transition
from course_utils.solvers import Heun, Solver

StartStd = float | Tensor | None  # a number, one for each class (C,), or the default


class Trajectory(NamedTuple):
    """What a sampler passed through.

    Attributes:
        times: T + 1 falling times.
        x: x_t at each of them, (T + 1, B, D).
        x0: the guess x̂₀(x_t, t) at each but the last, (T, B, D).
    """

    times: list[float]
    x: Tensor
    x0: Tensor


def start_deviation(
    denoiser: Denoiser, label: Tensor | None = None, start_std: StartStd = None
) -> Tensor:
    """Standard deviation of the noise that sampling starts with: () or (B, 1).

    By default √(α²d² + σ²) at the last time, the deviation of x_t itself when that of
    the data is d. With VE, N(0, 1) is not it: σ = 1 comes on top of the data.

    Args:
        denoiser: its schedule, and its ``data_std`` d.
        label: classes (B,), read if there is a deviation for each of them.
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
    if label is None or std.shape != (denoiser.classes,):
        raise ValueError(
            f"start_std must be a number or, for a denoiser with classes, of shape "
            f"({denoiser.classes},), got {tuple(std.shape)}"
        )
    return std[label][:, None]


class Sampler(ABC):
    """The loop; a subclass says what a step is.

    Args:
        denoiser: a network, or the truth.
        start_std: see :func:`start_deviation`.
        even_in: spacing of the times, "t" or "log-SNR".
    """

    def __init__(
        self, denoiser: Denoiser, *, start_std: StartStd = None, even_in: str = "t"
    ) -> None:
        self.denoiser = denoiser
        self.schedule: Schedule = denoiser.schedule
        self.start_std = start_std
        self.even_in = even_in

    @abstractmethod
    def step(
        self,
        x: Tensor,
        t: float,
        s: float,
        label: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x_t → x_s for s < t, both (B, D)."""

    def start(
        self,
        n: int,
        label: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n points (n, D) of the noise at the last time."""
        classes = self.denoiser.classes
        check_condition(label, classes=classes, batch=check_count("n", n))
        noise = torch.randn(
            n, self.denoiser.dim, generator=generator, dtype=self.denoiser.dtype
        )
        std = start_deviation(self.denoiser, label, self.start_std)
        return std.to(noise.dtype) * noise

    @torch.no_grad()
    def sample(
        self,
        n: int,
        label: Tensor | None = None,
        *,
        steps: int = 50,
        clean: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n points (n, D); a denoiser with classes needs n labels.

        Args:
            n: number of points.
            label: classes (n,).
            steps: number of steps.
            clean: end with the guess x̂₀ instead of x at the first time, which still
                holds noise σ(first).
            generator: source of the starting noise and of that of the steps.

        Raises:
            ValueError: n < 1 or steps < 1; labels missing, out of range or unexpected.
        """
        x = self.start(n, label, generator)
        times = self.schedule.times(steps, self.even_in)
        for t, s in pairwise(times):
            x = self.step(x, t, s, label, generator)
        noisy = float(self.schedule.at(times[-1]).sigma) > 0
        return self.denoiser.predict(x, times[-1], label).x0 if clean and noisy else x

    @torch.no_grad()
    def path(
        self,
        start: Tensor,
        label: Tensor | None = None,
        *,
        steps: int = 50,
        generator: torch.Generator | None = None,
    ) -> Trajectory:
        """Where the noise ``start`` (B, D) of the last time goes, and x̂₀ on the way.

        Raises:
            TypeError, ValueError: as for :meth:`sample`; no batch of points.
        """
        self.denoiser.check(start, label)
        times = self.schedule.times(steps, self.even_in)
        x, x0 = [start], []
        for t, s in pairwise(times):
            x0.append(self.denoiser.predict(x[-1], t, label).x0)
            x.append(self.step(x[-1], t, s, label, generator))
        return Trajectory(times, torch.stack(x), torch.stack(x0))


def bridge(
    schedule: Schedule, x: Tensor, x0: Tensor, t: float, s: float
) -> tuple[Tensor, Tensor]:
    """Mean (B, D) and variance () of q(x_s | x_t, x_0), for less noise at s.

    α_ts·σ_s²/σ_t²·x_t + α_s·σ²_ts/σ_t²·x_0   and   σ̃² = σ_s²·σ²_ts/σ_t².
    """
    now, then = schedule.at(t), schedule.at(s)
    ratio, added = transition(schedule, s, t)
    kept = then.sigma**2 / now.sigma**2
    return ratio * kept * x + then.alpha * added / now.sigma**2 * x0, added * kept


class DDPM(Sampler):
    """A draw from q(x_s | x_t, x̂₀), the ancestral step.

    Args:
        variance: "small", σ̃², the right one if x̂₀ is the truth; or "large", σ²_ts (β_t
            for neighbours), the right one if the data are N(0, I). No noise is added on
            the way to σ_s = 0.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        variance: str = "small",
        start_std: StartStd = None,
        even_in: str = "t",
    ) -> None:
        super().__init__(denoiser, start_std=start_std, even_in=even_in)
        self.variance = check_option("variance", variance, ["small", "large"])

    def step(
        self,
        x: Tensor,
        t: float,
        s: float,
        label: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        x0 = self.denoiser.predict(x, t, label).x0
        mean, variance = bridge(self.schedule, x, x0, t, s)
        if self.variance == "large" and variance > 0:
            variance = transition(self.schedule, s, t)[1]
        return mean + variance.sqrt() * _noise_like(x, generator)


class DDIM(Sampler):
    """x_s from x̂₀ and ε̂, with a share η of the ancestral step's noise.

    Args:
        eta: η from 0 (no noise) to 1 (DDPM).

    Raises:
        ValueError: η outside [0, 1].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        eta: float = 0.0,
        start_std: StartStd = None,
        even_in: str = "t",
    ) -> None:
        super().__init__(denoiser, start_std=start_std, even_in=even_in)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {eta}")
        self.eta = eta

    def step(
        self,
        x: Tensor,
        t: float,
        s: float,
        label: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        now, then = self.schedule.at(t), self.schedule.at(s)
        _, added = transition(self.schedule, s, t)
        guess = self.denoiser.predict(x, t, label)
        variance = self.eta**2 * then.sigma**2 * added / now.sigma**2
        x = then.alpha * guess.x0 + (then.sigma**2 - variance).sqrt() * guess.eps
        if self.eta == 0:
            return x
        return x + variance.sqrt() * _noise_like(x, generator)


class ProbabilityFlow(Sampler):
    """A solver's step along dx/dt = α̇·x̂₀ + σ̇·ε̂, which has the marginals of x_t.

    Args:
        solver: one step of dx/dt = f(x, t).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        solver: Solver | None = None,
        start_std: StartStd = None,
        even_in: str = "t",
    ) -> None:
        super().__init__(denoiser, start_std=start_std, even_in=even_in)
        self.solver = solver or Heun()

    def field(self, x: Tensor, t: float, label: Tensor | None = None) -> Tensor:
        """dx/dt (B, D) at x (B, D) and t."""
        rate = self.schedule.rates(torch.tensor(t, dtype=torch.float64))
        guess = self.denoiser.predict(x, t, label)
        return rate.alpha * guess.x0 + rate.sigma * guess.eps

    def step(
        self,
        x: Tensor,
        t: float,
        s: float,
        label: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.solver.step(lambda y, r: self.field(y, r, label), x, t, s - t)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)
