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

from math import log, pi, prod
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import check_count
from course_utils.distributions import normal_like, normal_log_prob, same_time
from course_utils.models.diffusion.denoiser import Denoiser
from course_utils.models.diffusion.process import jump
from course_utils.models.diffusion.samplers import StartStd, start_deviation
from course_utils.models.diffusion.schedules import (
    check_continuous,
)
from course_utils.networks.basic import gradient_if_asked
from course_utils.networks.conditioning import Condition
from course_utils.solvers import (
    RK4,
    Solver,
    end_and_divergence,
)


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


def evidence_lower_bound(
    denoiser: Denoiser,
    x0: Tensor,
    condition: Condition = None,
    *,
    levels: int = 32,
    repeats: int = 8,
    start_std: StartStd = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """The bound on log p(x₀), or on log p(x₀ | condition), for x₀ (B, *shape).

    There is a gradient, for samples and weights, if the samples require one.

    Args:
        denoiser: a network, or the truth.
        x0: samples.
        condition: what the denoiser has to know, (B, …).
        levels: values of λ, one in each of so many equal parts of its range, at a place
            drawn for all of them: less noise than as many independent ones. A chain
            takes all its steps.
        repeats: independent repetitions; their spread gives the standard error.
        start_std: deviation S of the starting noise.
        generator: source of λ and ε.

    Raises:
        TypeError, ValueError: not a batch of finite samples of the denoiser's shape,
            dtype and device; a condition that is missing, malformed or unexpected;
            levels < 1 or repeats < 2.
    """
    denoiser.check(x0, condition)
    levels = check_count("levels", levels)
    repeats = check_count("repeats", repeats, least=2)
    batch = len(x0)
    with gradient_if_asked(x0):
        std = start_deviation(denoiser, condition, start_std).to(x0.dtype)
        prior = _prior(denoiser, x0, std)
        many = _repeated(x0, repeats)  # (R·B, *shape)
        known = None if condition is None else _repeated(condition, repeats)
        parts = noise_terms(denoiser, many, known, levels, generator)
        diffusion, reconstruction = (part.view(repeats, batch) for part in parts)
        spread = (reconstruction - diffusion).std(0) / repeats**0.5
        diffusion, reconstruction = diffusion.mean(0), reconstruction.mean(0)
        value = reconstruction - diffusion - prior
        return Bound(value, spread, prior, diffusion, reconstruction)


def noise_terms(
    denoiser: Denoiser,
    x0: Tensor,
    condition: Condition,
    levels: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Diffusion and reconstruction term of the bound, with fresh noise: (B,) each."""
    schedule, dim = denoiser.schedule, prod(denoiser.shape)

    def error(t: Tensor) -> Tensor:
        """‖ε − ε̂‖², less what the best linear guess would be off by chance, (B,)."""
        eps = normal_like(x0, generator)
        guess = denoiser.predict(jump(schedule, x0, t, eps), t, condition)
        square = (guess.eps - eps).square().flatten(1).sum(1)
        return square - _control(denoiser, x0, t, eps)

    terms = [w * error(t) for t, w in schedule.bound_terms(x0, levels, generator)]
    diffusion = torch.stack([*terms, x0.new_zeros(len(x0))]).sum(0)
    alpha, sigma = schedule.at(schedule.first)
    constant = dim / 2 * float((2 * pi * (sigma / alpha) ** 2).log())
    return diffusion, -error(same_time(schedule.first, x0)) / 2 - constant


def _repeated(x: Tensor, repeats: int) -> Tensor:
    """The rows of ``x`` (B, …) one after the other, again and again: (R·B, …)."""
    return x.repeat(repeats, *[1] * (x.ndim - 1))


def _control(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """A variable of mean 0 that moves with ‖ε − ε̂‖²: taking it away calms the bound.

    The best guess for data that are N(0, d²I) is wrong by ε − σ/m²·x_t = a·ε − b·x₀,
    a = α²d²/m², b = ασ/m², m² = α²d² + σ². Its square less the mean of that over ε.
    """
    alpha, sigma = denoiser.schedule.levels(t, x0)  # (B, 1, …)
    m2 = alpha**2 * denoiser.data_std**2 + sigma**2
    a, b = alpha**2 * denoiser.data_std**2 / m2, alpha * sigma / m2
    deviation = (a * eps - b * x0) ** 2 - a**2 - (b * x0) ** 2
    return deviation.flatten(1).sum(1)


def _prior(denoiser: Denoiser, x0: Tensor, std: Tensor) -> Tensor:
    """KL(N(α_T·x₀, σ_T²I) ‖ N(0, S²I)) of every sample, (B,)."""
    alpha, sigma = denoiser.schedule.at(denoiser.schedule.last)
    ratio = (sigma / std) ** 2
    each = ratio + (alpha * x0 / std) ** 2 - 1 - ratio.log()
    return 0.5 * each.flatten(1).sum(1)


def flow_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    condition: Condition = None,
    *,
    steps: int = 50,
    solver: Solver | None = None,
    start_std: StartStd = None,
) -> Tensor:
    """log p(x), or log p(x | condition), of the probability flow: (B,), in nats.

    The solver carries x and the integral of div f together, in steps of equal λ. The
    divergence costs a backward pass for each value of a sample. There is a gradient,
    for points and weights, if the points require one: it keeps all steps in memory.

    Args:
        denoiser: a network, or the truth.
        x: samples (B, *shape).
        condition: what the denoiser has to know, (B, …).
        steps: number of steps; too few bias the result.
        solver: one step; the default is RK4.
        start_std: deviation S of the starting noise.

    Raises:
        TypeError: a chain of steps, which has no flow.
        TypeError, ValueError: not a batch of finite samples of the denoiser's shape,
            dtype and device; a condition that is missing, malformed or unexpected;
            steps < 1.
    """
    denoiser.check(x, condition)
    schedule = check_continuous(denoiser.schedule, "the likelihood by the flow")
    alpha = schedule.at(schedule.first).alpha
    with gradient_if_asked(x):
        x_last, integral = end_and_divergence(
            lambda y, t: flow_and_divergence(denoiser, y, t, condition),
            alpha * x,
            schedule.times(steps, even_in="log-SNR")[::-1],
            solver or RK4(),
        )
        std = start_deviation(denoiser, condition, start_std)
        dim = prod(denoiser.shape)
        return normal_log_prob(x_last, std) + integral + dim * log(alpha)


def flow_and_divergence(
    denoiser: Denoiser, x: Tensor, t: float, condition: Condition = None
) -> tuple[Tensor, Tensor]:
    """f = α̇·x̂₀ + σ̇·ε̂ (B, *shape) and div f (B,).

    In x̂₀ alone f = (σ̇/σ)·x + (α̇ − α·σ̇/σ)·x̂₀.
    """
    schedule = check_continuous(denoiser.schedule, "the probability flow")
    rate = schedule.rates(torch.tensor(t, dtype=torch.float64))
    alpha, sigma = schedule.at(t)
    x0, div_x0 = denoiser.x0_and_divergence(x, t, condition)
    growth = rate.sigma / sigma
    pull = rate.alpha - alpha * growth
    return growth * x + pull * x0, prod(denoiser.shape) * growth + pull * div_x0
