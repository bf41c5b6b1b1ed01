"""Distributions on the plane of known density, to hold a model to the truth.

Every one draws points, gives log p of any point and knows its own entropy

    H = −E[log p(x)]   (nats),

the floor under the negative log-likelihood of every model:
E[−log q(x)] = H + KL(p‖q) ≥ H. A data set may be z-scored per axis,
x = (raw − mean)/std with the exact mean and deviation; then
log p(x) = log p_raw(raw) + Σ log std and H = H_raw − Σ log std.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import (
    check_count,
    check_labels,
    check_points,
    check_positive,
)


class Posterior(NamedTuple):
    """What a noisy point u = x + s·ε, ε ~ N(0, I), says of x.

    Attributes:
        log_density: log p_s(u) in nats, (B,).
        mean: E[x | u], (B, 2): the best guess of x in squares.
        variance: Var[x_i | u] of each coordinate, (B, 2).
    """

    log_density: Tensor
    mean: Tensor
    variance: Tensor


class PlaneData(ABC):
    """A distribution on the plane, possibly with classes.

    A subclass describes the raw distribution; this class draws, z-scores and checks.

    Attributes:
        classes: number of classes, 0 if the data have none.
        mean, std: what z-scoring takes away and divides by, each of shape (2,),
            float64; zeros and ones if the data are left raw.
    """

    classes: int = 0

    def __init__(self, standardized: bool) -> None:
        self.mean = torch.zeros(2, dtype=torch.float64)
        self.std = torch.ones(2, dtype=torch.float64)
        if standardized:
            self.mean, self.std = self._moments()

    # --- what a subclass says of the raw distribution ---------------------------------

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """n raw points (n, 2) in float64 and their labels (n,) in int64."""

    @abstractmethod
    def _log_density(self, raw: Tensor, label: Tensor | None) -> Tensor:
        """log p(raw), or log p(raw | label), shape (B,), for raw (B, 2)."""

    @abstractmethod
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per axis of the raw distribution, each (2,)."""

    @abstractmethod
    def _entropy(self, given_label: bool) -> float:
        """Entropy of the raw distribution in nats: H(X), or H(X | label)."""

    @abstractmethod
    def _posterior(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        """The posterior at raw noisy points (B, 2), with noise (2,) on the two axes."""

    @abstractmethod
    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        """E[Var(x_i | u)] of both raw coordinates, (2,), for noise (2,)."""

    # --- what everybody calls ---------------------------------------------------------

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points.

        Returns:
            Tensor of shape (n, 2), float32.

        Raises:
            ValueError: n < 1.
        """
        raw, _ = self._draw(check_count("n", n), generator)
        return self.standardize(raw).float()

    def sample_labelled(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n points with their classes: shapes (n, 2) float32 and (n,) int64.

        Raises:
            ValueError: n < 1, or data without classes.
        """
        self._require_classes()
        raw, label = self._draw(check_count("n", n), generator)
        return self.standardize(raw).float(), label

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, block: int = 100
    ) -> Iterator[Tensor]:
        """Fresh batches (size, 2) without end, drawn ``block`` at a time for speed."""
        count = check_count("size", size) * check_count("block", block)
        while True:
            yield from self.sample(count, generator).split(size)

    def labelled_batches(
        self, size: int, generator: torch.Generator | None = None, *, block: int = 100
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Fresh batches of points (size, 2) and classes (size,) without end."""
        count = check_count("size", size) * check_count("block", block)
        while True:
            x, label = self.sample_labelled(count, generator)
            yield from zip(x.split(size), label.split(size), strict=True)

    def log_prob(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """log p(x) in nats, or log p(x | label); −∞ off the support.

        Args:
            x: points (B, 2).
            label: classes (B,), int64.

        Returns:
            Tensor of shape (B,), the dtype of ``x``.

        Raises:
            TypeError, ValueError: what is not a batch of finite points or of classes.
        """
        check_points(x)
        if label is not None:
            self._require_classes()
            check_labels(label, classes=self.classes, batch=len(x))
        raw = self.to_raw(x.double())
        log_density = self._log_density(raw, label) + self.std.log().sum()
        return log_density.to(x.dtype)

    def entropy(self, given_label: bool = False) -> float:
        """H(X) in nats, or H(X | label): the floor under every model's mean −log q."""
        if given_label:
            self._require_classes()
        return self._entropy(given_label) - float(self.std.log().sum())

    def posterior(self, u: Tensor, s: float, label: Tensor | None = None) -> Posterior:
        """What the noisy points u = x + s·ε say of x: the exact denoiser.

        Args:
            u: points (B, 2).
            s: standard deviation of the noise, in the units of ``u``.
            label: classes (B,), int64, if they are known as well.

        Raises:
            TypeError, ValueError: what is not a batch of finite points or of classes;
                s that is not a finite number above 0.
        """
        check_points(u)
        noise = check_positive("s", s) * self.std
        raw = self.to_raw(u.double())
        if label is None:
            found = self._posterior(raw, noise, None)
        else:
            self._require_classes()
            check_labels(label, classes=self.classes, batch=len(u))
            found = _by_class(raw, label, lambda r, c: self._posterior(r, noise, c))
        return Posterior(
            (found.log_density + self.std.log().sum()).to(u.dtype),
            self.standardize(found.mean).to(u.dtype),
            (found.variance / self.std**2).to(u.dtype),
        )

    def mmse(self, s: float, given_label: bool = False) -> float:
        """min_f E‖x − f(x + s·ε)‖² = E‖x − E[x | x + s·ε]‖², both coordinates summed.

        It is the floor under the loss of every model that guesses x, or the noise, or
        a velocity from a noisy point.

        Args:
            s: standard deviation of the noise.
            given_label: whether f also knows the class; classes weigh as in the data.

        Raises:
            ValueError: s that is not a finite number above 0, data without classes.
        """
        noise = check_positive("s", s) * self.std
        if not given_label:
            return float((self._mmse(noise, None) / self.std**2).sum())
        self._require_classes()
        each = torch.stack([self._mmse(noise, c) for c in range(self.classes)])
        return float(self._class_weights() @ (each / self.std**2).sum(1))

    def _class_weights(self) -> Tensor:
        """Probability of each class, (C,), float64."""
        return torch.full((self.classes,), 1 / self.classes, dtype=torch.float64)

    def inside(self, x: Tensor) -> Tensor:
        """Whether each point of ``x`` (B, 2) lies on the support, shape (B,), bool."""
        return self.log_prob(x) > -torch.inf

    def standardize(self, raw: Tensor) -> Tensor:
        """Raw coordinates to the model's: (raw − mean)/std."""
        return (raw - self.mean.to(raw.dtype)) / self.std.to(raw.dtype)

    def to_raw(self, x: Tensor) -> Tensor:
        """The model's coordinates back to raw ones: x·std + mean."""
        return x * self.std.to(x.dtype) + self.mean.to(x.dtype)

    def _require_classes(self) -> None:
        if self.classes == 0:
            raise ValueError(f"{type(self).__name__} has no classes")


def _by_class(
    raw: Tensor, label: Tensor, posterior: Callable[[Tensor, int], Posterior]
) -> Posterior:
    """Posteriors (B, …) of points of several classes, one class at a time."""
    out = Posterior(raw.new_empty(len(raw)), raw.clone(), raw.clone())
    for c in label.unique().tolist():
        rows = label == c
        for whole, part in zip(out, posterior(raw[rows], c), strict=True):
            whole[rows] = part
    return out


def uniform(n: int, generator: torch.Generator | None) -> Tensor:
    """n numbers uniform on [0, 1), float64."""
    return torch.rand(n, generator=generator, dtype=torch.float64)
