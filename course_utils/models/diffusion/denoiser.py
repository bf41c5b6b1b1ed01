"""What a network says of the noise in x_t, and the loss that teaches it.

From x_t = α·x₀ + σ·ε a network may guess x₀, ε or v = α·ε − σ·x₀. Each guess gives the
other two:

    x̂₀ = (x_t − σ·ε̂)/α = (α·x_t − σ·v̂)/(α² + σ²)
    ε̂  = (x_t − α·x̂₀)/σ = (σ·x_t + α·v̂)/(α² + σ²)

    loss = E‖ε̂(x_t, t) − ε‖²    (summed over the values of a sample)

Sources: Ho et al. 2020 (arXiv:2006.11239); Salimans and Ho 2022, v (arXiv:2202.00512);
Karras et al. 2022, preconditioning (arXiv:2206.00364).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_alike,
    check_count,
    check_option,
    check_positive,
    check_samples,
    check_shape,
    split_batch,
)
from course_utils.distributions import normal_like, same_time
from course_utils.models.diffusion.process import jump
from course_utils.models.diffusion.schedules import (
    Level,
    Schedule,
)
from course_utils.models.guidance import check_guided, guide
from course_utils.networks.basic import (
    FourierFeatures,
    MLPBackbone,
    PlainTime,
    SinusoidalEmbedding,
    ask,
)
from course_utils.networks.conditioning import (
    ClassLabels,
    Condition,
    Conditioning,
    Unconditional,
)
from course_utils.solvers import value_and_divergence

KINDS = ("x0", "eps", "v")


class Prediction(NamedTuple):
    """One guess in its three forms, each (B, *shape)."""

    x0: Tensor
    eps: Tensor
    v: Tensor


def convert(kind: str, output: Tensor, x: Tensor, level: Level) -> Prediction:
    """x̂₀, ε̂ and v̂ from one of them, which is ``kind``, at x_t = ``x``.

    Raises:
        ValueError: an unknown kind.
    """
    alpha, sigma = level
    if check_option("kind", kind, KINDS) == "x0":
        eps = (x - alpha * output) / sigma
        return Prediction(output, eps, alpha * eps - sigma * output)
    if kind == "eps":
        x0 = (x - sigma * output) / alpha
        return Prediction(x0, output, alpha * output - sigma * x0)
    power = alpha**2 + sigma**2
    x0 = (alpha * x - sigma * output) / power
    return Prediction(x0, (sigma * x + alpha * output) / power, output)


class Denoiser(nn.Module, ABC):
    """Anything that guesses the noise: a network, or the truth.

    A subclass says the guess in :meth:`at`.

    Args:
        schedule: α and σ.
        shape: of one sample.
        condition: what it knows beside x_t and t; nothing by default.
        data_std: standard deviation of a value of the data.

    Attributes:
        kind: what the guess is: "x0", "eps" or "v".
    """

    kind = "eps"

    def __init__(
        self,
        schedule: Schedule,
        shape: Sequence[int] = (2,),
        condition: Conditioning | None = None,
        data_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.shape = check_shape(shape)
        self.condition = condition or Unconditional()
        self.data_std = check_positive("data_std", data_std)

    @property
    def classes(self) -> int:
        """The number of classes that it knows, 0 for none."""
        return self.condition.classes

    @abstractmethod
    def at(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The guess, for times and a condition that are as they should be."""

    def forward(self, x: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """The guess (B, *shape) for x_t (B, *shape), t (B,) and condition (B, …).

        Raises:
            TypeError, ValueError: samples of another shape, dtype or device; t that is
                not a time in [first, last] for each sample; a condition that is
                missing, malformed or unexpected; a network that does not give the
                shape of x.
        """
        weight = next(self.parameters(), None)
        check_samples(x, shape=self.shape, like=weight, finite=False)
        self.schedule.check_learnt(t, len(x))
        self.condition.check(condition, len(x))
        return check_alike("the guess", self.at(x, t, condition), x)

    def predict(
        self, x: Tensor, t: float | Tensor, condition: Condition = None
    ) -> Prediction:
        """x̂₀, ε̂ and v̂ for x_t (B, *shape), t a number or (B,), and condition (B, …).

        Raises:
            TypeError, ValueError: as for :meth:`forward`.
        """
        if not isinstance(t, Tensor):
            t = same_time(t, x)
        guess = self(x, t, condition)
        return convert(self.kind, guess, x, self.schedule.levels(t, x))

    def x0_and_divergence(
        self, x: Tensor, t: float, condition: Condition = None
    ) -> tuple[Tensor, Tensor]:
        """x̂₀ (B, *shape) and Σ_i ∂x̂₀_i/∂x_i (B,), exact: a backward pass each."""
        return value_and_divergence(lambda y: self.predict(y, t, condition).x0, x)

    def check(self, x: Tensor, condition: Condition) -> None:
        """Refuse what is no batch of samples for this model, or a wrong condition."""
        check_samples(x, shape=self.shape, like=next(self.parameters(), None))
        self.condition.check(condition, len(x))


# --- networks -------------------------------------------------------------------------


class LogSNRFeatures(nn.Module):
    """Fourier features of λ(t), scaled to [−1, 1] over the schedule.

    Shapes: t (B,) → (B, 2K + 1).
    """

    def __init__(self, schedule: Schedule, frequencies: int = 4) -> None:
        super().__init__()
        self.schedule = schedule
        low, high = schedule.log_snr_range()
        self.middle, self.reach = (low + high) / 2, max(high - low, 1e-6) / 2
        self.waves = FourierFeatures(1, frequencies, bound=1.0)
        self.out_dim = self.waves.out_dim

    def forward(self, t: Tensor) -> Tensor:
        log_snr = (self.schedule.log_snr(t) - self.middle) / self.reach
        return self.waves(log_snr[:, None])


class NoiseNet(Denoiser):
    """ε̂(x, t) = σ/m²·x + αd/m·net(x/m, t),   m² = α²d² + σ².

    The first term is the best guess for data that are N(0, d²I), and m is the standard
    deviation of x_t. What is left for the network has unit scale at every t, in and
    out; for VP and d = 1 it is v. A plain network, ε̂ = net(x, t), has to learn the
    first term, and its error in x̂₀ = (x − σε̂)/α grows as σ/α.

    Args:
        schedule: α and σ.
        backbone: net.
        time: what the network sees of t, (B,) → (B, T).
        data_std: d.
        shape: of one sample.
        condition: what it knows beside x_t and t; nothing by default.
        preconditioned: False for the plain network.
    """

    def __init__(
        self,
        schedule: Schedule,
        backbone: nn.Module,
        time: nn.Module,
        data_std: float = 1.0,
        *,
        shape: Sequence[int] = (2,),
        condition: Conditioning | None = None,
        preconditioned: bool = True,
    ) -> None:
        super().__init__(schedule, shape, condition, data_std)
        self.backbone, self.time = backbone, time
        self.preconditioned = preconditioned

    def at(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        time = self.time(t).to(x.dtype)  # (B, T)
        known = self.condition(condition, len(x))  # (B, E)
        if not self.preconditioned:
            return ask(self.backbone, x, time, known)
        alpha, sigma = self.schedule.levels(t, x)  # (B, 1, …)
        m = (alpha**2 * self.data_std**2 + sigma**2).sqrt()
        left = ask(self.backbone, x / m, time, known)
        return sigma / m**2 * x + alpha * self.data_std / m * left


TIMES = ("log-SNR", "sinusoidal", "plain")


def mlp_denoiser(
    schedule: Schedule,
    data_std: float = 1.0,
    *,
    shape: Sequence[int] = (2,),
    classes: int = 0,
    time: str = "log-SNR",
    time_dim: int = 32,
    preconditioned: bool = True,
    width: int = 96,
    depth: int = 3,
    frequencies: int = 16,
) -> NoiseNet:
    """The denoiser of the plane: linear layers on Fourier features.

    Args:
        schedule: α and σ.
        data_std: standard deviation of a value of the data.
        shape: of one sample.
        classes: number of classes; 0 for a network that knows none.
        time: how the network sees t: "log-SNR" (Fourier features of λ), "sinusoidal"
            (the transformer's embedding, for steps 1 … T) or "plain".
        time_dim: size d of the sinusoidal embedding.
        preconditioned: whether it gets the head start of :class:`NoiseNet`.
        width, depth, frequencies: of the :class:`MLPBackbone`.

    Raises:
        ValueError: counts below 1 (frequencies and classes: below 0), unknown options.
    """
    seen: SinusoidalEmbedding | LogSNRFeatures | PlainTime
    match check_option("time", time, TIMES):
        case "sinusoidal":
            seen = SinusoidalEmbedding(time_dim)
        case "log-SNR":
            seen = LogSNRFeatures(schedule)
        case _:
            seen = PlainTime(schedule.last)
    known = check_count("classes", classes, least=0)
    condition = ClassLabels(known, max(1, width // 4)) if known else Unconditional()
    backbone = MLPBackbone(
        shape,
        seen.out_dim,
        condition.out_dim,
        width=width,
        depth=depth,
        frequencies=frequencies,
    )
    return NoiseNet(
        schedule,
        backbone,
        seen,
        data_std,
        shape=shape,
        condition=condition,
        preconditioned=preconditioned,
    )


class GuidedDenoiser(Denoiser):
    """ε̂(x, t) + w·(ε̂(x, t | c) − ε̂(x, t)): pulled towards the condition.

    Args:
        denoiser: knows a condition.
        strength: w; 0 ignores the condition, 1 is the plain conditional guess.
        plain: what gives ε̂(x, t), on the same schedule; by default ``denoiser`` without
            its condition.

    Raises:
        ValueError: a denoiser that cannot do without its condition, and no other; a
            ``plain`` one that needs a condition, or of another schedule or shape; a
            strength that is not finite.
    """

    def __init__(
        self, denoiser: Denoiser, strength: float, plain: Denoiser | None = None
    ) -> None:
        check_guided(denoiser.condition, strength, plain.condition if plain else None)
        schedule, shape = denoiser.schedule, denoiser.shape
        if plain and plain.shape != shape:
            raise ValueError(
                f"the plain denoiser must have shape {shape} like the other,"
                f" got {plain.shape}"
            )
        if plain and not schedule.same_as(plain.schedule):
            raise ValueError(
                "the plain denoiser must have the schedule of the other,"
                f" {type(schedule).__name__}, with the same settings, got"
                f" {type(plain.schedule).__name__}"
            )
        super().__init__(schedule, shape, denoiser.condition, denoiser.data_std)
        self.denoiser, self.strength, self.plain = denoiser, strength, plain

    def at(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        plain = self.plain or self.denoiser
        strength = 0.0 if condition is None else self.strength
        return guide(
            lambda: plain.predict(x, t).eps,
            lambda: self.denoiser.predict(x, t, condition).eps,
            strength,
        )


# --- the loss -------------------------------------------------------------------------


@dataclass
class DiffusionLoss:
    """‖ε̂(x_t, t) − ε‖² of every sample, summed over its values, shape (B,).

    Args:
        kind: "eps", or "x0" or "v" for the error of those.
        generator: source of t and ε.
    """

    kind: str = "eps"
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_option("kind", self.kind, KINDS)

    def __call__(self, model: Denoiser, batch: Any) -> Tensor:
        """The loss of a batch: samples, or samples and their condition."""
        x0, condition = split_batch(batch)
        model.check(x0, condition)
        t = model.schedule.draw_time(x0, self.generator)
        return self.at(model, x0, t, normal_like(x0, self.generator), condition)

    def at(
        self,
        model: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        condition: Condition = None,
    ) -> Tensor:
        """The same for given times and noise."""
        x = jump(model.schedule, x0, t, eps)
        guess = model.predict(x, t, condition)
        alpha, sigma = model.schedule.levels(t, x)
        truth = Prediction(x0, eps, alpha * eps - sigma * x0)
        error = getattr(guess, self.kind) - getattr(truth, self.kind)
        return error.square().flatten(1).sum(1)
