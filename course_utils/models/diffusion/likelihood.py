"""How likely a point is: a bound from the loss, and the exact value from the ODE.

Bound (ELBO). q noises the point, the model takes the noise away again:

    log p(x₀) ≥ − KL(q(x_T | x₀) ‖ N(0, S²I))                        prior
                − ½ ∫ E‖ε − ε̂(x_t, t)‖² dλ                           diffusion
                + E log N(x₀; x̂₀(x_f), s²I),   s = σ_f/α_f           reconstruction

with T the last time, f the first, and λ = log α²/σ² from λ(T) to λ(f). The decoder of
the last line is normal around the guess, so its term is −½E‖ε − ε̂‖² − ½D·log 2πs². For
a chain of T steps the integral is the sum of ½(e^{λ(t−1) − λ(t)} − 1)·E‖ε − ε̂‖² over
t = 2 … T, where e^λ = ᾱ/(1 − ᾱ).

ODE. Along dx/dt = f(x, t) = α̇·x̂₀ + σ̇·ε̂ the log-density changes by −∫ div f dt:

    log p(x) = log N(x_T; 0, S²I) + ∫_f^T div f(x_t, t) dt + D·log α_f,   x_f = α_f·x

the density of x_f/α_f: the data with the least noise, s, on them.

Sources: Kingma et al. 2021, the bound over λ (arXiv:2107.00630); Song et al. 2021, the
ODE (arXiv:2011.13456).
"""

from __future__ import annotations

from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import check_count
from course_utils.models.diffusion.denoiser import Denoiser
from course_utils.models.diffusion.samplers import StartStd, start_deviation
from course_utils.models.diffusion.schedules import DDPMSchedule, Schedule, jump
from course_utils.solvers import RK4, Solver


class Bound(NamedTuple):
    """The bound of every point and its parts, each (B,), in nats.

    ``value`` = −prior − diffusion + reconstruction; ``standard_error`` is that of
    ``value`` from the noise drawn.
    """

    value: Tensor
    standard_error: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor


@torch.no_grad()
def evidence_lower_bound(
    denoiser: Denoiser,
    x0: Tensor,
    label: Tensor | None = None,
    *,
    levels: int = 32,
    repeats: int = 8,
    start_std: StartStd = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """The bound on log p(x₀), or on log p(x₀ | label), for x₀ (B, D).

    Args:
        denoiser: a network, or the truth.
        x0: points.
        label: their classes (B,).
        levels: values of λ, one drawn in each of so many equal parts of its range: less
            noise than as many independent ones. A chain takes all its steps.
        repeats: independent repetitions; their spread gives the standard error.
        start_std: deviation S of the starting noise.
        generator: source of λ and ε.

    Raises:
        TypeError, ValueError: not a batch of finite points of the denoiser's dtype;
            labels missing, out of range or unexpected; levels < 1 or repeats < 2.
    """
    denoiser.check(x0, label)
    check_count("levels", levels)
    batch = len(x0)
    std = start_deviation(denoiser, label, start_std).to(x0.dtype)
    prior = _prior(denoiser, x0, std)
    x0 = x0.repeat(check_count("repeats", repeats, least=2), 1)  # (R·B, D)
    label = None if label is None else label.repeat(repeats)

    def error(t: Tensor) -> Tensor:
        """‖ε − ε̂‖² with fresh noise, less its linear part's deviation, (R·B,)."""
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        guess = denoiser.predict(jump(denoiser.schedule, x0, t, eps), t, label)
        return ((guess.eps - eps) ** 2).sum(1) - _control(denoiser, x0, t, eps)

    schedule = denoiser.schedule
    terms = [w * error(t) for t, w in _levels(schedule, x0, levels, generator)]
    diffusion = torch.stack([*terms, x0.new_zeros(len(x0))]).sum(0)
    alpha, sigma = schedule.at(schedule.first)
    constant = denoiser.dim / 2 * float((2 * pi * (sigma / alpha) ** 2).log())
    first = x0.new_full((len(x0),), schedule.first)
    reconstruction = -0.5 * error(first) - constant
    spread = (reconstruction - diffusion).view(repeats, batch).std(0) / repeats**0.5
    diffusion, reconstruction = (
        part.view(repeats, batch).mean(0) for part in (diffusion, reconstruction)
    )
    value = reconstruction - diffusion - prior
    return Bound(value, spread, prior, diffusion, reconstruction)


def _levels(
    schedule: Schedule, x0: Tensor, count: int, generator: torch.Generator | None
) -> list[tuple[Tensor, float]]:
    """Times (B,) and weights of ‖ε − ε̂‖² in the bound."""
    if isinstance(schedule, DDPMSchedule):
        weights = bound_weights(schedule).tolist()
        return [(x0.new_full((len(x0),), t), w) for t, w in enumerate(weights, start=2)]
    low, high = schedule.log_snr_range()
    u = torch.rand(len(x0), generator=generator, dtype=torch.float64)
    log_snr = [low + (high - low) * (k + u) / count for k in range(count)]
    return [
        (
            schedule.time(each).clamp(schedule.first, schedule.last).to(x0.dtype),
            (high - low) / count / 2,
        )
        for each in log_snr
    ]


def bound_weights(schedule: DDPMSchedule) -> Tensor:
    """½(SNR(t−1)/SNR(t) − 1) for t = 2 … T, (T − 1,): DDPM's loss leaves them out."""
    snr = schedule.alphas_bar / (1 - schedule.alphas_bar)
    return (snr[:-1] / snr[1:] - 1) / 2


def _control(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """A variable of mean 0 that moves with ‖ε − ε̂‖²: taking it away calms the bound.

    The best guess for data that are N(0, d²I) is wrong by ε − σ/m²·x_t = a·ε − b·x₀,
    a = α²d²/m², b = ασ/m², m² = α²d² + σ². Its square less the mean of that over ε.
    """
    alpha = denoiser.schedule.alpha(t)[:, None]  # (B, 1)
    sigma = denoiser.schedule.sigma(t)[:, None]
    m2 = alpha**2 * denoiser.data_std**2 + sigma**2
    a, b = alpha**2 * denoiser.data_std**2 / m2, alpha * sigma / m2
    deviation = (a * eps - b * x0) ** 2 - a**2 - (b * x0) ** 2
    return deviation.sum(1)


def _prior(denoiser: Denoiser, x0: Tensor, std: Tensor) -> Tensor:
    """KL(N(α_T·x₀, σ_T²I) ‖ N(0, S²I)) of every point, (B,)."""
    alpha, sigma = denoiser.schedule.at(denoiser.schedule.last)
    ratio = (sigma / std) ** 2
    return 0.5 * (ratio + (alpha * x0 / std) ** 2 - 1 - ratio.log()).sum(1)


@torch.no_grad()
def flow_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    label: Tensor | None = None,
    *,
    steps: int = 50,
    solver: Solver | None = None,
    start_std: StartStd = None,
) -> Tensor:
    """log p(x), or log p(x | label), of the probability flow: (B,), in nats.

    The solver carries x and the integral of div f together, in steps of equal λ.

    Args:
        denoiser: a network, or the truth.
        x: points (B, D).
        label: their classes (B,).
        steps: number of steps; too few bias the result.
        solver: one step; the default is RK4.
        start_std: deviation S of the starting noise.

    Raises:
        TypeError: a chain of steps, which has no flow.
        TypeError, ValueError: not a batch of finite points of the denoiser's dtype;
            labels missing, out of range or unexpected; steps < 1.
    """
    denoiser.check(x, label)
    schedule, dim = denoiser.schedule, denoiser.dim

    def both(state: Tensor, t: float) -> Tensor:
        f, div = flow_and_divergence(denoiser, state[:, :-1], t, label)
        return torch.cat([f, div[:, None]], dim=1)

    alpha = schedule.at(schedule.first).alpha
    state = torch.cat([alpha * x, x.new_zeros(len(x), 1)], dim=1)  # (B, D + 1)
    times = schedule.times(steps, even_in="log-SNR")[::-1]
    state = (solver or RK4()).end(both, state, times)
    x_last, integral = state[:, :-1], state[:, -1]
    std = start_deviation(denoiser, label, start_std).to(x.dtype)
    normal = -0.5 * ((x_last / std) ** 2 + 2 * std.log() + log(2 * pi)).sum(1)
    return normal + integral + dim * alpha.log()


def flow_and_divergence(
    denoiser: Denoiser, x: Tensor, t: float, label: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """f = α̇·x̂₀ + σ̇·ε̂ (B, D) and div f (B,).

    In x̂₀ alone f = (σ̇/σ)·x + (α̇ − α·σ̇/σ)·x̂₀.
    """
    moment = torch.tensor(t, dtype=torch.float64)
    rate, (alpha, sigma) = denoiser.schedule.rates(moment), denoiser.schedule.at(t)
    x0, div_x0 = denoiser.x0_and_divergence(x, t, label)
    growth = rate.sigma / sigma
    pull = rate.alpha - alpha * growth
    return growth * x + pull * x0, denoiser.dim * growth + pull * div_x0
