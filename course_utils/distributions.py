"""Normal distributions, and noise that lives where the sample lives.

    N(z; 0, s²I):        log p(z) = −½·Σ_i (z_i²/s² + 2·log s + log 2π)
    N(z; μ, diag σ²):    log p(z) = −½·Σ_i ((z_i − μ_i)²/σ_i² + log σ_i² + log 2π)

Samples have any shape: the sum runs over all of a sample's values.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_utils.checks import check_generator

# --- random numbers -------------------------------------------------------------------


def normal(
    shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """ε ~ N(0, I) of a shape, with the dtype and on the device of ``like``.

    A generator of another device draws where it lives, and the numbers move.
    """
    generator = check_generator(generator)
    source = like.device if generator is None else generator.device
    drawn = torch.randn(
        tuple(shape), generator=generator, dtype=like.dtype, device=source
    )
    return drawn.to(like.device)


def normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """ε ~ N(0, I) with the shape, dtype and device of ``x``."""
    return normal(x.shape, x, generator)


def uniform(
    shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Numbers uniform on [0, 1), where ``like`` lives and in :func:`fine_dtype`."""
    generator = check_generator(generator)
    source = like.device if generator is None else generator.device
    drawn = torch.rand(
        tuple(shape), generator=generator, dtype=fine_dtype(like), device=source
    )
    return drawn.to(like.device)


def fine_dtype(like: Tensor) -> torch.dtype:
    """The dtype of ``like``, but at least float32: half precision holds no times."""
    return torch.promote_types(like.dtype, torch.float32)


def widen(factor: Tensor, x: Tensor) -> Tensor:
    """One number for each sample, (B,), as (B, 1, …, 1), to multiply ``x`` (B, …).

    It takes the dtype of ``x``.
    """
    return factor.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def same_time(t: float, x: Tensor) -> Tensor:
    """One time for all samples of ``x`` (B, …): (B,), in :func:`fine_dtype`."""
    return x.new_full((len(x),), t, dtype=fine_dtype(x))


def reference(model: nn.Module) -> Tensor:
    """A tensor of the dtype and device of a model's samples: a weight, if any."""
    return next(model.parameters(), torch.empty(()))


# --- densities ------------------------------------------------------------------------


def normal_log_prob(z: Tensor, std: Tensor | float = 1.0) -> Tensor:
    """log N(z; 0, s²I) (B,), in nats, for z (B, …).

    Args:
        z: samples.
        std: s, a number or one that widens to ``z``.
    """
    scale = torch.as_tensor(std, dtype=z.dtype, device=z.device)
    parts = (z / scale).square() + 2 * scale.log() + log(2 * pi)
    return -parts.flatten(1).sum(1) / 2


def square_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖² of all pairs of rows (N, P) and (M, P): (N, M), in float64.

    In float32 the difference of two large squares would leave few digits of a small
    distance, which is then divided by σ².
    """
    a, b = a.double(), b.double()
    squares = a.square().sum(1)[:, None] + b.square().sum(1)  # (N, M)
    return squares.addmm(a, b.T, alpha=-2).clamp(min=0)


class DiagonalNormal(NamedTuple):
    """N(μ, diag σ²), one for each sample.

    Attributes:
        mean: μ, (B, D).
        log_var: log σ², (B, D): not log σ, which is half of it.
    """

    mean: Tensor
    log_var: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z = μ + σ·ε (B, D), the reparameterization trick: gradients reach μ and σ."""
        return self.mean + (self.log_var / 2).exp() * normal_like(self.mean, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; μ, diag σ²), z (…, B, D) → (…, B)."""
        square = (z - self.mean).square() / self.log_var.exp()
        return -(square + self.log_var + log(2 * pi)).sum(-1) / 2

    def kl_to_prior(self) -> Tensor:
        """KL(q ‖ N(0, I)) = ½·Σ(μ² + σ² − 1 − log σ²), (B,), in nats."""
        return (self.mean.square() + self.log_var.exp() - 1 - self.log_var).sum(-1) / 2
