"""Mixtures of round Gaussians, whose every truth is known.

    p(x) = Σ_k w_k·N(x; c_k, σ²I),   Σ_k w_k = 1

Given u = x + n·ε, ε ~ N(0, I), with s² = σ² + n² and g = σ²/s² on each axis,

    p_n(u)      = Σ_k w_k·N(u; c_k, s²)
    P(k | u)    = w_k·N(u; c_k, s²)/p_n(u)
    E[x | u]    = m + g·(u − m),              m = E[c_k | u]
    Var[x | u]  = g·n² + (1 − g)²·Var[c_k | u]

The entropy −∫ p log p and the least squared error E[Var(x | u)] are sums over a grid
with five points for every deviation, which is good to nine digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log, pi, sqrt

import torch
from torch import Tensor

from course_utils.checks import check_labels, check_points, check_positive
from course_utils.data.plane import PlaneData, Posterior

REACH = 8.0  # how far a grid goes beyond the centres, in standard deviations
STEP = 1 / 5  # of a grid, in standard deviations
BLOCK = 2**21  # numbers in a table of points by components, to bound the memory


class GaussianMixture(PlaneData):
    """Gaussians of one width around given centres, left in raw coordinates by default.

    The entropy is a sum over squares of side σ/5, all around the centres: it needs much
    memory if the centres are thousands of σ apart.

    Args:
        centres: c_k, (K, 2), raw units.
        noise: σ, raw units.
        weights: w_k, (K,), up to a factor; None for equal ones.
        label: the class of each component, (K,), 0 … C − 1, each of them at least once;
            None for data without classes.
        standardized: z-score with the mixture's own mean and standard deviation.

    Raises:
        TypeError, ValueError: what is not as above.
    """

    def __init__(
        self,
        centres: Tensor | Sequence[Sequence[float]],
        noise: float = 0.1,
        weights: Tensor | Sequence[float] | None = None,
        label: Tensor | Sequence[int] | None = None,
        standardized: bool = False,
    ) -> None:
        self.centres = check_points(torch.as_tensor(centres, dtype=torch.float64))
        self.noise = check_positive("noise", noise)
        self.weights = _weights(weights, len(self.centres))
        self._whole = _Components(self.centres, self.weights, self.noise)
        self._of_class: list[_Components] = []
        if label is not None:
            self.label = _labels(label, len(self.centres))
            self.classes = int(self.label.max()) + 1
            self._of_class = [self._part(c) for c in range(self.classes)]
        super().__init__(standardized)

    def _class_weights(self) -> Tensor:
        return self.weights.new_zeros(self.classes).index_add(
            0, self.label, self.weights
        )

    def _draw(
        self, n: int, generator: torch.Generator | None
    ) -> Tensor | tuple[Tensor, Tensor]:
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        raw = self.centres[k] + self.noise * noise
        return (raw, self.label[k]) if self.classes else raw

    def _moments(self) -> tuple[Tensor, Tensor]:
        mean = self.weights @ self.centres
        variance = self.weights @ (self.centres - mean) ** 2 + self.noise**2
        return mean, variance.sqrt()

    def _log_density(self, raw: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            return self._whole.log_density(raw)
        out = raw.new_empty(len(raw))
        for c, components in enumerate(self._of_class):
            out[label == c] = components.log_density(raw[label == c])
        return out

    def _entropy(self, given_label: bool) -> float:
        if not given_label:
            return self._whole.entropy
        shares = self._class_weights().tolist()
        pairs = zip(shares, self._of_class, strict=True)
        return sum(share * components.entropy for share, components in pairs)

    def _posterior(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        return self._components(label).posterior(raw, noise)

    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        return self._components(label).mmse(noise)

    def _part(self, c: int) -> _Components:
        """The components of a class."""
        own = self.label == c
        weights = self.weights[own] / self.weights[own].sum()
        return _Components(self.centres[own], weights, self.noise)

    def _components(self, label: int | None) -> _Components:
        return self._whole if label is None else self._of_class[label]


@dataclass(frozen=True, eq=False)
class _Components:
    """The components of a mixture, or of one of its classes.

    Attributes:
        centres: c_k, (K, 2), float64.
        weights: w_k, (K,), float64, in all 1.
        noise: σ.
    """

    centres: Tensor
    weights: Tensor
    noise: float

    def log_density(self, raw: Tensor) -> Tensor:
        """log p at points (B, 2), shape (B,)."""
        spread = raw.new_full((2,), self.noise)
        parts = [self._log_terms(part, spread) for part in self._blocks(raw)]
        return torch.cat([part.logsumexp(dim=1) for part in parts])

    @cached_property
    def entropy(self) -> float:
        """−∫ p log p in nats."""
        across, along = self._bells(self.centres.new_full((2,), self.noise))
        mass = (across * self.weights) @ along.T  # (U, V)
        area = (STEP * self.noise) ** 2
        return -float((torch.xlogy(mass, mass) - mass * log(area)).sum())

    def posterior(self, raw: Tensor, noise: Tensor) -> Posterior:
        """The posterior at noisy points (B, 2), with noise (2,) on the two axes."""
        parts = [self._posterior(part, noise) for part in self._blocks(raw)]
        return Posterior(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _posterior(self, raw: Tensor, noise: Tensor) -> Posterior:
        spread, gain = self._spread_and_gain(noise)
        terms = self._log_terms(raw, spread)
        share = terms.softmax(dim=1)  # P(k | u)
        mean = share @ self.centres
        variance = (share @ self.centres**2 - mean**2).clamp(min=0)
        return Posterior(
            terms.logsumexp(dim=1),
            mean + gain * (raw - mean),
            gain * noise**2 + (1 - gain) ** 2 * variance,
        )

    def mmse(self, noise: Tensor) -> Tensor:
        """E[Var(x_i | u)] of both coordinates, (2,), for noise (2,).

        E[Var(c | u)] = E[c²] − E[E[c | u]²], the second over a grid of u.
        """
        spread, gain = self._spread_and_gain(noise)
        across, along = self._bells(spread)
        mass, first_x, first_y = (
            (across * (self.weights * factor)) @ along.T  # (U, V)
            for factor in (torch.ones_like(self.weights), *self.centres.T)
        )
        first = torch.stack([first_x, first_y])
        seen = first**2 / mass.clamp(min=torch.finfo(mass.dtype).tiny)
        variance = self.weights @ self.centres**2 - seen.sum((1, 2))
        return gain * noise**2 + (1 - gain) ** 2 * variance.clamp(min=0)

    def _spread_and_gain(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """s and g of the two axes, each (2,)."""
        square = self.noise**2 + noise**2
        return square.sqrt(), self.noise**2 / square

    def _log_terms(self, raw: Tensor, spread: Tensor) -> Tensor:
        """log(w_k·N(x; c_k, s²)) for raw (B, 2) and spread s (2,), shape (B, K)."""
        terms = self.weights.log() - (2 * pi * spread.prod()).log()
        for x, c, s in zip(raw.T, self.centres.T, spread, strict=True):
            terms = terms - ((x[:, None] - c) / s) ** 2 / 2
        return terms

    def _bells(self, spread: Tensor) -> list[Tensor]:
        """Each component's mass at the places of a grid, a factor for each axis.

        Args:
            spread: s, the deviation of the components, (2,).

        Returns:
            Two tensors (U, K) and (V, K); each column adds up to 1.
        """
        bells = []
        for c, s in zip(self.centres.T, spread.tolist(), strict=True):
            low, high = float(c.min()) - REACH * s, float(c.max()) + REACH * s
            places = torch.arange(low, high, STEP * s, dtype=c.dtype)
            z = (places[:, None] - c) / s
            bells.append(torch.exp(-(z**2) / 2) * STEP / sqrt(2 * pi))
        return bells

    def _blocks(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Points (B, 2) in parts, so that tables (B, K) stay small."""
        return raw.split(max(1, BLOCK // len(self.centres)))


def _weights(weights: Tensor | Sequence[float] | None, count: int) -> Tensor:
    """Weights (K,) that add up to 1, in float64.

    Raises:
        ValueError: weights that are not one finite number above 0 for each component.
    """
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    w = torch.as_tensor(weights, dtype=torch.float64)
    if w.shape != (count,):
        raise ValueError(f"weights must have shape ({count},), got {tuple(w.shape)}")
    if not (w.isfinite() & (w > 0)).all():
        raise ValueError(f"weights must be finite numbers above 0, got {w.tolist()}")
    return w / w.sum()


def _labels(label: Tensor | Sequence[int], count: int) -> Tensor:
    """The class of each component, (K,), int64.

    Raises:
        TypeError, ValueError: not a label for each component, or a class without any.
    """
    out = check_labels(torch.as_tensor(label), classes=count, batch=count)
    missing = set(range(int(out.max()))) - set(out.tolist())
    if missing:
        raise ValueError(f"every class must have a component, got none of {missing}")
    return out
