"""What a network says of the noise in x_t, and the loss that teaches it.

From x_t = α·x₀ + σ·ε a network may guess x₀, ε or v = α·ε − σ·x₀. Each guess gives the
other two:

    x̂₀ = (x_t − σ·ε̂)/α = (α·x_t − σ·v̂)/(α² + σ²)
    ε̂  = (x_t − α·x̂₀)/σ = (σ·x_t + α·v̂)/(α² + σ²)

    loss = E‖ε̂(x_t, t) − ε‖²    (summed over the coordinates)

Sources: Ho et al. 2020 (arXiv:2006.11239); Salimans and Ho 2022, v (arXiv:2202.00512);
Karras et al. 2022, preconditioning (arXiv:2206.00364); Vaswani et al. 2017, the
sinusoidal embedding (arXiv:1706.03762).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_condition,
    check_count,
    check_option,
    check_points,
    check_positive,
)
from course_utils.models.diffusion.schedules import Level, Schedule, jump
from course_utils.networks import FourierFeatures, mlp
from course_utils.solvers import value_and_divergence

Batch = Tensor | tuple[Tensor, Tensor]  # x₀ (B, D), or x₀ and its classes (B,)
KINDS = ("x0", "eps", "v")


class Prediction(NamedTuple):
    """One guess in its three forms, each (B, D)."""

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

    Args:
        schedule: α and σ.
        dim: D.
        classes: number of classes; 0 for a denoiser that knows none.
        data_std: standard deviation of a coordinate of the data.

    Attributes:
        kind: what ``forward`` returns: "x0", "eps" or "v".
    """

    kind = "eps"

    def __init__(
        self,
        schedule: Schedule,
        dim: int = 2,
        classes: int = 0,
        data_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.dim = check_count("dim", dim)
        self.classes = check_count("classes", classes, least=0)
        self.data_std = check_positive("data_std", data_std)

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The guess (B, D) for x_t (B, D), t (B,) and label (B,)."""

    def predict(
        self, x: Tensor, t: float | Tensor, label: Tensor | None = None
    ) -> Prediction:
        """x̂₀, ε̂ and v̂ for x_t (B, D), t a number or (B,), and label (B,).

        Raises:
            ValueError: t outside the schedule; labels missing, out of range or
                unexpected.
        """
        if not isinstance(t, Tensor):
            t = x.new_full((len(x),), t)
        self.schedule.check(t)
        check_condition(label, classes=self.classes, batch=len(x))
        level = Level(self.schedule.alpha(t)[:, None], self.schedule.sigma(t)[:, None])
        return convert(self.kind, self(x, t, label), x, level)

    def x0_and_divergence(
        self, x: Tensor, t: float, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x̂₀ (B, D) and Σ_i ∂x̂₀_i/∂x_i (B,), exact: a backward pass each."""
        return value_and_divergence(lambda y: self.predict(y, t, label).x0, x)

    def check(self, x: Tensor, label: Tensor | None) -> None:
        """Refuse what is no batch of points, or labels missing or out of range."""
        check_points(x, dim=self.dim, dtype=self.dtype)
        check_condition(label, classes=self.classes, batch=len(x))

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of the parameters, None if there are none."""
        return next((p.dtype for p in self.parameters()), None)


# --- networks -------------------------------------------------------------------------


class SinusoidalEmbedding(nn.Module):
    """PE(t)_{2i} = sin(t/10000^{2i/d}),   PE(t)_{2i+1} = cos(t/10000^{2i/d}).

    Here t is the time step of a sample, one number, where in a language model it is the
    place of a token. The slow waves tell far times apart, the fast ones near times.

    Shapes: t (B,) → (B, d).

    Args:
        dim: d, even.
    """

    rate: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if check_count("dim", dim, least=2) % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.out_dim = dim
        i = torch.arange(dim // 2, dtype=torch.float64)
        self.register_buffer("rate", (10000 ** (-2 * i / dim)).float())

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.rate.to(t.dtype)  # (B, d/2)
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


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


class PlainTime(nn.Module):
    """t/last as it is, (B,) → (B, 1)."""

    out_dim = 1

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.last = schedule.last

    def forward(self, t: Tensor) -> Tensor:
        return t[:, None] / self.last


class NoiseNet(Denoiser):
    """ε̂(x, t) = σ/m²·x + αd/m·net(x/m, t),   m² = α²d² + σ².

    The first term is the best guess for data that are N(0, d²I), and m is the standard
    deviation of x_t. What is left for the network has unit scale at every t, in and
    out; for VP and d = 1 it is v. A plain network, ε̂ = net(x, t), has to learn the
    first term, and its error in x̂₀ = (x − σε̂)/α grows as σ/α.

    Args:
        schedule: α and σ.
        data_std: d.
        width, depth: width and number of the hidden layers.
        frequencies: Fourier features of each coordinate, 0 for none.
        time: how the network sees t: "log-SNR" (Fourier features of λ), "sinusoidal"
            (the transformer's embedding, for steps 1 … T) or "plain".
        time_dim: size d of the sinusoidal embedding.
        classes: number of classes; 0 for a network that knows none.
        preconditioned: False for the plain network.

    Raises:
        ValueError: counts below 1 (frequencies and classes: below 0), unknown options.
    """

    TIMES = ("log-SNR", "sinusoidal", "plain")

    def __init__(
        self,
        schedule: Schedule,
        data_std: float = 1.0,
        *,
        dim: int = 2,
        width: int = 96,
        depth: int = 3,
        frequencies: int = 16,
        time: str = "log-SNR",
        time_dim: int = 32,
        classes: int = 0,
        preconditioned: bool = True,
    ) -> None:
        super().__init__(schedule, dim, classes, data_std)
        self.preconditioned = preconditioned
        self.space = FourierFeatures(dim, frequencies)
        self.time: SinusoidalEmbedding | LogSNRFeatures | PlainTime
        if check_option("time", time, self.TIMES) == "sinusoidal":
            self.time = SinusoidalEmbedding(time_dim)
        else:
            make = LogSNRFeatures if time == "log-SNR" else PlainTime
            self.time = make(schedule)
        hidden = [check_count("width", width)] * check_count("depth", depth)
        inputs = self.space.out_dim + self.time.out_dim
        self.embedding = nn.Embedding(classes, width // 4) if classes else None
        inputs += width // 4 if classes else 0
        self.net = mlp([inputs, *hidden, dim], zero_last=True)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        if not self.preconditioned:
            return self.net(self._join(x, t, label))
        alpha = self.schedule.alpha(t)[:, None]  # (B, 1)
        sigma = self.schedule.sigma(t)[:, None]
        m = (alpha**2 * self.data_std**2 + sigma**2).sqrt()
        left = self.net(self._join(x / m, t, label))
        return sigma / m**2 * x + alpha * self.data_std / m * left

    def _join(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        parts = [self.space(x), self.time(t)]
        if self.embedding is not None:
            parts.append(self.embedding(label))
        return torch.cat(parts, dim=1)


# --- the loss -------------------------------------------------------------------------


@dataclass
class DiffusionLoss:
    """‖ε̂(x_t, t) − ε‖² of every sample, summed over the coordinates, shape (B,).

    Args:
        kind: "eps", or "x0" or "v" for the error of those.
        generator: source of t and ε.
    """

    kind: str = "eps"
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_option("kind", self.kind, KINDS)

    def __call__(self, model: Denoiser, batch: Batch) -> Tensor:
        x0, label = batch if isinstance(batch, tuple) else (batch, None)
        t = model.schedule.draw_time(len(x0), self.generator).to(x0.dtype)
        eps = torch.randn(x0.shape, generator=self.generator, dtype=x0.dtype)
        return self.at(model, x0, t, eps, label)

    def at(
        self,
        model: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
    ) -> Tensor:
        """The same for given times and noise."""
        x = jump(model.schedule, x0, t, eps)
        guess = model.predict(x, t, label)
        if self.kind == "eps":
            return ((guess.eps - eps) ** 2).sum(1)
        level = Level(
            *(f(t)[:, None] for f in (model.schedule.alpha, model.schedule.sigma))
        )
        truth = convert("x0", x0, x, level)
        return ((getattr(guess, self.kind) - getattr(truth, self.kind)) ** 2).sum(1)
