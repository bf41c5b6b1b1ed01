"""Distributions that several families share, and noise that lives where samples live.

    N(z; 0, s²I):        log p(z) = −½·Σ_i (z_i²/s² + 2·log s + log 2π)
    N(z; μ, diag σ²):    log p(z) = −½·Σ_i ((z_i − μ_i)²/σ_i² + log σ_i² + log 2π)
    categorical codes:   log p(c) = Σ_n log softmax(ℓ_n)[c_n]

Samples have any shape: the sum runs over all of a sample's values.

A :class:`Posterior` is a distribution for each sample of a batch, beside a fixed prior:
a normal beside N(0, I), categorical variables beside the uniform law, or a
:class:`Product` of such, whose latents stand side by side and whose KLs add up.

Sources: Jang, Gu and Poole 2017 (arXiv:1611.01144) and Maddison, Mnih and Teh 2017
(arXiv:1611.00712) for the relaxed categorical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_alike,
    check_count,
    check_generator,
    check_positive,
    has_values,
)

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


# --- posteriors -----------------------------------------------------------------------


class Posterior(Protocol):
    """q_b(z) for each sample b of a batch, beside a prior p(z) that all share."""

    @property
    def batch(self) -> int:
        """B, how many samples there is a distribution for."""

    @property
    def width(self) -> int:
        """D, how many numbers a latent has."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z ~ q, (B, D)."""

    def relaxed(
        self, temperature: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents (B, D) through which gradients reach q; not always from q itself."""

    def mode(self) -> Tensor:
        """The likeliest z, (B, D)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z), z (…, B, D) → (…, B), in nats."""

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), z (…, B, D) → (…, B), in nats."""

    def kl_to_prior(self) -> Tensor:
        """KL(q ‖ p), exact, (B,), in nats."""

    def repeat(self, times: int) -> Posterior:
        """All B of them, so many times over: (times·B)."""


class DiagonalNormal(NamedTuple):
    """N(μ, diag σ²), one for each sample; the prior is N(0, I).

    Attributes:
        mean: μ, (B, D).
        log_var: log σ², (B, D): not log σ, which is half of it.
    """

    mean: Tensor
    log_var: Tensor

    @property
    def batch(self) -> int:
        """B."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """D."""
        return self.mean.shape[1]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z = μ + σ·ε (B, D), the reparameterization trick: gradients reach μ and σ.

        Raises:
            ValueError: a log σ² of another shape than μ.
        """
        check_alike("log_var", self.log_var, self.mean)
        return self.mean + (self.log_var / 2).exp() * normal_like(self.mean, generator)

    def relaxed(
        self, temperature: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """A sample, whatever the temperature: gradients pass it as it is."""
        return self.sample(generator)

    def mode(self) -> Tensor:
        """μ."""
        return self.mean

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; μ, diag σ²), z (…, B, D) → (…, B)."""
        square = (z - self.mean).square() / self.log_var.exp()
        return -(square + self.log_var + log(2 * pi)).sum(-1) / 2

    def log_prior(self, z: Tensor) -> Tensor:
        """log N(z; 0, I), z (…, B, D) → (…, B)."""
        return -(z.square() + log(2 * pi)).sum(-1) / 2

    def kl_to_prior(self) -> Tensor:
        """KL(q ‖ N(0, I)) = ½·Σ(μ² + σ² − 1 − log σ²), (B,), in nats."""
        return (self.mean.square() + self.log_var.exp() - 1 - self.log_var).sum(-1) / 2

    def repeat(self, times: int) -> DiagonalNormal:
        """All of them, so many times over."""
        return DiagonalNormal(self.mean.repeat(times, 1), self.log_var.repeat(times, 1))


@dataclass(frozen=True, eq=False)
class Categorical:
    """N independent variables, the n-th with K_n values; the prior is uniform.

    A code is written as N one-hot rows side by side: ΣK numbers, N of them 1.

    Attributes:
        logits: ℓ, any numbers, (B, ΣK): q(c_n = k) = softmax(ℓ_n)[k].
        sizes: K_1 … K_N.
        relaxable: whether :meth:`relaxed` relaxes; False where no gradient is needed,
            because the logits come from a network that does not learn.

    Raises:
        TypeError, ValueError: logits that do not fit the sizes, a size below 2.
    """

    logits: Tensor
    sizes: tuple[int, ...]
    relaxable: bool = True

    def __post_init__(self) -> None:
        sizes = check_sizes(self.sizes)
        if self.logits.ndim != 2 or self.logits.shape[1] != sum(sizes):
            raise ValueError(
                f"logits of variables with {sizes} values must have shape"
                f" (B, {sum(sizes)}), got {tuple(self.logits.shape)}"
            )
        object.__setattr__(self, "sizes", sizes)

    @property
    def batch(self) -> int:
        """B."""
        return len(self.logits)

    @property
    def width(self) -> int:
        """ΣK."""
        return self.logits.shape[1]

    @property
    def log_probs(self) -> Tensor:
        """log q(c_n = k) of all values of all variables, (B, ΣK)."""
        each = self.logits.split(self.sizes, dim=1)
        return torch.cat([part.log_softmax(dim=1) for part in each], dim=1)

    def index(self) -> Tensor:
        """The likeliest value of each variable, (B, N), int64."""
        return which(self.logits, self.sizes)

    def mode(self) -> Tensor:
        """The likeliest code, as one-hot rows (B, ΣK)."""
        return one_hot(self.logits, self.sizes)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A code as one-hot rows (B, ΣK), exactly from q; no gradient passes.

        The place of the largest ℓ + g is a sample of softmax(ℓ) if the g are
        independent Gumbel noise.
        """
        return one_hot(self._noisy(generator), self.sizes).to(self.logits.dtype)

    def relaxed(
        self, temperature: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Gumbel-softmax: softmax((ℓ_n + g)/τ) for each variable, (B, ΣK).

        With τ → 0 it becomes the one-hot sample, with τ → ∞ it is uniform; in between
        it is no code, but gradients reach ℓ through it.

        Args:
            temperature: τ > 0.
            generator: source of g.

        Raises:
            ValueError: a temperature that is not above 0.
        """
        check_temperature(temperature)
        if not self.relaxable:
            return self.sample(generator)
        each = (self._noisy(generator) / temperature).split(self.sizes, dim=1)
        soft = torch.cat([part.softmax(dim=1) for part in each], dim=1)
        return soft.to(self.logits.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(c) of codes z (…, B, ΣK) → (…, B).

        Raises:
            ValueError: a relaxed sample, which is no code and has no probability.
        """
        return (check_codes(z) * self.log_probs).sum(-1)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(c) = −Σ log K_n of codes z (…, B, ΣK) → (…, B)."""
        return z.new_full(z.shape[:-1], -sum(map(log, self.sizes)))

    def kl_to_prior(self) -> Tensor:
        """KL(q ‖ uniform) = Σ_n (log K_n − H(q_n)), (B,), in nats."""
        log_q = self.log_probs
        return sum(map(log, self.sizes)) + (log_q.exp() * log_q).sum(1)

    def repeat(self, times: int) -> Categorical:
        """All of them, so many times over."""
        return Categorical(self.logits.repeat(times, 1), self.sizes, self.relaxable)

    def _noisy(self, generator: torch.Generator | None) -> Tensor:
        """ℓ + g with Gumbel noise g = −log(−log u), u uniform, (B, ΣK)."""
        u = uniform(self.logits.shape, self.logits, generator)
        u = u.clamp(min=torch.finfo(u.dtype).tiny)  # u = 0 would make g infinite
        return self.logits - (-u.log()).log()


@dataclass(frozen=True, eq=False)
class Product:
    """Independent parts: latents side by side, log-densities and KLs added up.

    Attributes:
        parts: the posteriors, of the same batch.

    Raises:
        ValueError: no part, or parts of different batches.
    """

    parts: tuple[Posterior, ...]

    def __post_init__(self) -> None:
        batches = [part.batch for part in self.parts]
        if not batches or len(set(batches)) > 1:
            raise ValueError(
                "a product must have parts of one batch, got parts with"
                f" {batches} distributions"
            )

    @property
    def batch(self) -> int:
        """B."""
        return self.parts[0].batch

    @property
    def width(self) -> int:
        """D, of all parts together."""
        return sum(part.width for part in self.parts)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A sample of each part, side by side, (B, D)."""
        return torch.cat([part.sample(generator) for part in self.parts], dim=1)

    def relaxed(
        self, temperature: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """A relaxed sample of each part, side by side, (B, D)."""
        each = [part.relaxed(temperature, generator) for part in self.parts]
        return torch.cat(each, dim=1)

    def mode(self) -> Tensor:
        """The likeliest latent of each part, side by side, (B, D)."""
        return torch.cat([part.mode() for part in self.parts], dim=1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z), z (…, B, D) → (…, B)."""
        each = self._each(z)
        return torch.stack([part.log_prob(own) for part, own in each]).sum(0)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), z (…, B, D) → (…, B)."""
        each = self._each(z)
        return torch.stack([part.log_prior(own) for part, own in each]).sum(0)

    def kl_to_prior(self) -> Tensor:
        """KL(q ‖ p), (B,), in nats: of a product it is the sum."""
        return torch.stack([part.kl_to_prior() for part in self.parts]).sum(0)

    def repeat(self, times: int) -> Product:
        """All of them, so many times over."""
        return Product(tuple(part.repeat(times) for part in self.parts))

    def _each(self, z: Tensor) -> list[tuple[Posterior, Tensor]]:
        """Each part with its own numbers of z (…, B, D)."""
        own = z.split([part.width for part in self.parts], dim=-1)
        return list(zip(self.parts, own, strict=True))


def product(parts: Sequence[Posterior]) -> Posterior:
    """The product of some posteriors; of one, that one."""
    return parts[0] if len(parts) == 1 else Product(tuple(parts))


# --- codes ----------------------------------------------------------------------------


def which(scores: Tensor, sizes: Sequence[int]) -> Tensor:
    """The place of the largest score of each variable, (…, ΣK) → (…, N), int64."""
    each = scores.split(list(sizes), dim=-1)
    return torch.stack([part.argmax(dim=-1) for part in each], dim=-1)


def one_hot(scores: Tensor, sizes: Sequence[int]) -> Tensor:
    """1 at the largest score of each variable, 0 elsewhere: (…, ΣK) → (…, ΣK)."""
    each = scores.split(list(sizes), dim=-1)
    rows = [
        torch.zeros_like(part).scatter(-1, part.argmax(dim=-1, keepdim=True), 1)
        for part in each
    ]
    return torch.cat(rows, dim=-1)


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of values of categorical variables as a tuple.

    Raises:
        TypeError: not a row of whole numbers.
        ValueError: no variable, or one with fewer than two values.
    """
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise TypeError(f"sizes must be like (10,) or (10, 10), got {sizes!r}")
    if not sizes:
        raise ValueError("there must be at least one categorical variable, got ()")
    return tuple(check_count("a variable's values", size, least=2) for size in sizes)


def check_codes(z: Tensor) -> Tensor:
    """Return ``z`` if it consists of zeros and ones.

    Raises:
        ValueError: otherwise.
    """
    if has_values(z) and not ((z == 0) | (z == 1)).all():
        off = z.flatten()[((z != 0) & (z != 1)).flatten()][0]
        raise ValueError(
            "codes must consist of zeros and ones, for a relaxed sample has no"
            f" probability, got {float(off):g}"
        )
    return z


def check_temperature(temperature: Tensor | float) -> None:
    """Refuse a temperature that is not above 0.

    Raises:
        ValueError: otherwise.
    """
    if not isinstance(temperature, Tensor) or has_values(temperature):
        check_positive("temperature", temperature)
