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
from collections.abc import Iterator

import torch
from torch import Tensor

from course_utils.checks import check_count, check_labels, check_points


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


def uniform(n: int, generator: torch.Generator | None) -> Tensor:
    """n numbers uniform on [0, 1), float64."""
    return torch.rand(n, generator=generator, dtype=torch.float64)
