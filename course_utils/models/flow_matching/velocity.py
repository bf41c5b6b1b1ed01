"""A velocity field v(y, t | condition), and the network that learns one.

The network, what it knows of the time, what it knows of the condition, and the head
start that it gets are separate pieces: any backbone can be handed in, for samples of
any shape (course_utils/networks/basic.py says how it is called).

Source: Karras et al. 2022, preconditioning (arXiv:2206.00364).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_alike,
    check_count,
    check_number,
    check_samples,
    check_times,
    has_values,
)
from course_utils.distributions import same_time, widen
from course_utils.models.guidance import check_guided, guide
from course_utils.networks.basic import FourierFeatures, MLPBackbone, PlainTime, ask
from course_utils.networks.conditioning import (
    ClassLabels,
    Condition,
    Conditioning,
    Unconditional,
)
from course_utils.solvers import value_and_divergence


class Velocity(nn.Module, ABC):
    """A field v(y, t), or v(y, t | condition).

    Args:
        condition: what it knows beside y and t; nothing by default.
    """

    def __init__(self, condition: Conditioning | None = None) -> None:
        super().__init__()
        self.condition = condition or Unconditional()

    @property
    def classes(self) -> int:
        """The number of classes that it knows, 0 for none."""
        return self.condition.classes

    @abstractmethod
    def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The velocity, for times and a condition that are as they should be."""

    def forward(self, y: Tensor, t: Tensor, condition: Condition = None) -> Tensor:
        """Velocity (B, *shape) at y (B, *shape), t (B,) and condition (B, …).

        Raises:
            TypeError, ValueError: t that is not a time in [0, 1] for each sample; a
                condition that is missing, malformed or unexpected; a network that does
                not give the shape of y.
        """
        weight = next(self.parameters(), None)
        check_samples(y, shape=y.shape[1:], like=weight, finite=False)
        check_times(t, batch=len(y), first=0.0, last=1.0)
        self.condition.check(condition, len(y))
        return check_alike("the velocity", self.at(y, t, condition), y)

    def value_and_divergence(
        self, y: Tensor, t: float, condition: Condition = None
    ) -> tuple[Tensor, Tensor]:
        """v (B, *shape) at one time, and div v = Σ_i ∂v_i/∂y_i (B,), by autograd."""
        return value_and_divergence(lambda p: self(p, same_time(t, p), condition), y)


class VelocityNet(Velocity):
    """v(y, t) = (2t−1)/c² · y + net(y/c, t)/c,   c² = t² + (1−t)².

    The first term is the best field for data that are N(0, I). What is left for the
    network then has about unit scale at every t, and with y/c an edge of the data stays
    at the same place while t → 1. There the field changes over a distance of 1−t, so
    the network sees log(1−t) beside t.

    Args:
        backbone: net.
        condition: what it knows beside y and t; nothing by default.
        preconditioned: False for the plain network of (y, t), for comparison.
        time: what the network sees of t, (B,) → (B, T); by default
            :class:`TimeFeatures`, or t as it is for the plain network.
    """

    def __init__(
        self,
        backbone: nn.Module,
        condition: Conditioning | None = None,
        preconditioned: bool = True,
        time: nn.Module | None = None,
    ) -> None:
        super().__init__(condition)
        self.backbone, self.preconditioned = backbone, preconditioned
        self.time = time or (TimeFeatures() if preconditioned else PlainTime())

    def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
        time = self.time(t).to(y.dtype)  # (B, T)
        known = self.condition(condition, len(y))  # (B, E)
        if not self.preconditioned:
            return ask(self.backbone, y, time, known)
        c = (t**2 + (1 - t) ** 2).sqrt()
        linear, c = widen((2 * t - 1) / c**2, y), widen(c, y)  # (B, 1, …)
        return linear * y + ask(self.backbone, y / c, time, known) / c


class TimeFeatures(nn.Module):
    """Fourier features of t and of log(1−t), for t in [0, 1]: (B,) → (B, 18)."""

    NEAREST = 0.01  # below 1−t = 0.01 the network no longer tells times apart by log

    def __init__(self) -> None:
        super().__init__()
        self.waves = FourierFeatures(2, frequencies=4, bound=1.0)
        self.out_dim = self.waves.out_dim

    def forward(self, t: Tensor) -> Tensor:
        nearness = (1 - t + self.NEAREST).log() / -log(self.NEAREST)
        return self.waves(torch.stack([t, nearness], dim=1))


def mlp_velocity(
    shape: Sequence[int] = (2,),
    *,
    classes: int = 0,
    preconditioned: bool = True,
    width: int = 96,
    depth: int = 3,
    frequencies: int = 16,
) -> VelocityNet:
    """The velocity network of the plane: linear layers on Fourier features.

    Args:
        shape: of one sample.
        classes: number of classes; 0 for a field that knows none.
        preconditioned: whether it gets the head start of :class:`VelocityNet`.
        width, depth, frequencies: of the :class:`MLPBackbone`.
    """
    known = check_count("classes", classes, least=0)
    condition = ClassLabels(known, max(1, width // 4)) if known else Unconditional()
    time = TimeFeatures() if preconditioned else PlainTime()
    backbone = MLPBackbone(
        shape,
        time.out_dim,
        condition.out_dim,
        width=width,
        depth=depth,
        frequencies=frequencies,
    )
    return VelocityNet(backbone, condition, preconditioned, time)


_ROUNDING = 1e-6  # of a time, at the ends of an interval


class GuidedVelocity(Velocity):
    """v(y, t) + w·(v(y, t | c) − v(y, t)): pulled towards the condition.

    Args:
        velocity: knows a condition.
        strength: w; 0 ignores the condition, 1 is the plain conditional field.
        plain: what gives v(y, t); by default ``velocity`` without its condition.
        between: the first and the last time with this strength; at other times it is 1
            (Kynkäänniemi et al. 2024, arXiv:2404.07724).

    Raises:
        TypeError, ValueError: a velocity that cannot do without its condition, and no
            other; a ``plain`` one that needs a condition; a strength that is not
            finite; not two times in order in [0, 1].
    """

    def __init__(
        self,
        velocity: Velocity,
        strength: float,
        plain: Velocity | None = None,
        between: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        check_guided(velocity.condition, strength, plain.condition if plain else None)
        super().__init__(velocity.condition)
        self.velocity, self.strength, self.plain = velocity, strength, plain
        self.between = _check_between(between)

    def at(self, y: Tensor, t: Tensor, condition: Condition) -> Tensor:
        plain = self.plain or self.velocity
        if condition is None:
            return plain(y, t)
        first, last = self.between
        inside = (first - _ROUNDING <= t) & (t <= last + _ROUNDING)  # (B,)
        if self.between == (0.0, 1.0) or (has_values(t) and bool(inside.all())):
            return guide(
                lambda: plain(y, t),
                lambda: self.velocity(y, t, condition),
                self.strength,
            )
        alone = self.velocity(y, t, condition)
        if has_values(t) and not bool(inside.any()):
            return alone
        guided = guide(lambda: plain(y, t), lambda: alone, self.strength)
        return torch.where(widen(inside, y).bool(), guided, alone)


def _check_between(between: tuple[float, float]) -> tuple[float, float]:
    """Return the two ends of an interval of times, if they are that.

    Raises:
        TypeError, ValueError: otherwise.
    """
    if isinstance(between, str) or not isinstance(between, Sequence):
        raise TypeError(f"between must hold two times, got {between!r}")
    times = [check_number("a time in between", time) for time in between]
    if len(times) != 2 or not 0 <= times[0] <= times[1] <= 1:
        raise ValueError(
            f"between must hold two times in order in [0, 1], got {between!r}"
        )
    return times[0], times[1]
