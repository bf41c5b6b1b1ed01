"""The forward process: from the data to noise, at once or step by step.

    q(x_t | x_0) = N(α_t·x_0, σ_t²·I)
    q(x_t | x_s) = N(α_ts·x_s, σ²_ts·I),   α_ts = α_t/α_s,  σ²_ts = σ_t² − α_ts²·σ_s²

No model takes part in it.

Source: Kingma et al. 2021, the transition between any two times (arXiv:2107.00630).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from course_utils.distributions import normal_like
from course_utils.models.diffusion.schedules import Schedule


def jump(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = α(t)·x₀ + σ(t)·ε, (B, …), for t (B,): a draw from q(x_t | x₀).

    Raises:
        TypeError, ValueError: t that is not a time of the schedule for each sample;
            noise of another shape than x₀.
    """
    if eps.shape != x0.shape:
        raise ValueError(
            f"eps must have the shape of x0, {tuple(x0.shape)}, got {tuple(eps.shape)}"
        )
    alpha, sigma = schedule.levels(t, x0)
    return alpha * x0 + sigma * eps


def transition(schedule: Schedule, s: float, t: float) -> tuple[Tensor, Tensor]:
    """α_ts and σ²_ts of q(x_t | x_s) = N(α_ts·x_s, σ²_ts·I), for less noise at s.

    α_ts = α_t/α_s and σ²_ts = σ_t² − α_ts²·σ_s². With VE they are 1 and the difference
    of the variances, with DDPM and s = t − 1 they are √(1−β_t) and β_t.

    Raises:
        ValueError: times that do not rise or lie outside the schedule.
    """
    before, after = schedule.at(s), schedule.at(t)
    if not s < t:
        raise ValueError(
            f"the noise must grow from s to t, got s = {s:g} and t = {t:g}"
        )
    ratio = after.alpha / before.alpha
    return ratio, after.sigma**2 - ratio**2 * before.sigma**2


def walk(
    schedule: Schedule,
    x0: Tensor,
    times: list[float],
    generator: torch.Generator | None = None,
) -> Tensor:
    """One path of the forward process: x at each of the rising times, (T, B, …).

    The first is a jump from x₀; each of the others adds its own noise to the one
    before. No model takes part.

    Raises:
        ValueError: times that do not rise or lie outside the schedule.
    """
    if not times or any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"times must rise, got {times}")
    start = schedule.at(times[0])
    states = [start.alpha * x0 + start.sigma * normal_like(x0, generator)]
    for s, t in pairwise(times):
        ratio, variance = transition(schedule, s, t)
        noise = variance.sqrt() * normal_like(x0, generator)
        states.append(ratio * states[-1] + noise)
    return torch.stack(states)
