"""Distributions on the plane, which may know the truth that models are held to.

Every one draws points. The package's own also give log p of any point and know their
entropy

    H = −E[log p(x)]   (nats),

the floor under the negative log-likelihood of every model:
E[−log q(x)] = H + KL(p‖q) ≥ H. A data set may be z-scored per axis,
x = (raw − mean)/std with the exact mean and deviation; then
log p(x) = log p_raw(raw) + Σ log std and H = H_raw − Σ log std.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from hashlib import sha256
from numbers import Real
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from course_utils.checks import (
    check_count,
    check_generator,
    check_labels,
    check_points,
    check_positive,
    check_samples,
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

    A data set of one's own says how its raw points are drawn, and models can be trained
    on it::

        import torch
        from course_utils.data.plane import PlaneData

        class Moons(PlaneData):
            def _draw(self, n, generator):
                angle = torch.pi * torch.rand(n, generator=generator)
                side = 2 * torch.randint(2, (n,), generator=generator) - 1  # −1 or 1
                arc = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
                noise = torch.randn(n, 2, generator=generator)
                return side[:, None] * arc + 0.05 * noise

    The rest it says only for what compares with it. In these methods points (B, 2) are
    raw ones in float64, and labels are int64 in 0 … classes − 1 or None:

    ``_draw(n, generator)`` → points (n, 2), or points and labels (n,)
        needed always. All chance comes from the generator; None is torch's own.
    ``_moments()`` → mean (2,), deviation (2,)
        per axis, for ``standardized=True``.
    ``_log_density(points, labels (B,))`` → (B,)
        log p(x), or log p(x | label), for ``log_prob`` and ``inside``.
    ``_entropy(given_label)`` → number
        H(X), or H(X | label), for ``entropy``, the floor under a model's mean −log q.
    ``_posterior(points, noise (2,), label)`` → :class:`Posterior`
        of u = x + noise·ε at points u, given one label, for ``posterior``: the exact
        denoiser.
    ``_mmse(noise (2,), label)`` → (2,)
        E[Var(x_i | u)], for ``mmse``, the floor under the loss of a denoiser.
    ``_class_weights()`` → (C,)
        P(label), if the classes are not equally likely, for ``mmse`` given the label.

    What is missing is said when it is asked for. Data with classes set ``classes``, and
    ``_draw`` then gives labels as well.

    Attributes:
        classes: number of classes C, 0 if the data have none; of a class or an object.
        mean, std: what z-scoring takes away and divides by, each of shape (2,),
            float64; zeros and ones if the data are left raw.

    Args:
        standardized: z-score with the distribution's own mean and deviation.

    Raises:
        NotImplementedError: standardized data without ``_moments``.
    """

    classes: int = 0
    mean: Tensor = torch.zeros(2, dtype=torch.float64)
    std: Tensor = torch.ones(2, dtype=torch.float64)

    def __init__(self, standardized: bool = False) -> None:
        if standardized:
            self.mean, self.std = self._moments()

    # --- what a subclass says of the raw distribution ---------------------------------

    @abstractmethod
    def _draw(
        self, n: int, generator: torch.Generator | None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """n raw points (n, 2); with classes, also their labels (n,) in int64."""

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per axis, each (2,), float64."""
        raise self._lacks("mean and deviation", "_moments", "z-score it")

    def _log_density(self, raw: Tensor, label: Tensor | None) -> Tensor:
        """log p(raw), or log p(raw | label), shape (B,), for raw (B, 2)."""
        raise self._lacks("density", "_log_density", "compare with it")

    def _entropy(self, given_label: bool) -> float:
        """Entropy in nats: H(X), or H(X | label)."""
        raise self._lacks("entropy", "_entropy", "compare with it")

    def _posterior(self, raw: Tensor, noise: Tensor, label: int | None) -> Posterior:
        """The posterior at raw noisy points (B, 2), with noise (2,) on the two axes."""
        raise self._lacks("posterior", "_posterior", "compare with it")

    def _mmse(self, noise: Tensor, label: int | None) -> Tensor:
        """E[Var(x_i | u)] of both coordinates, (2,), for noise (2,)."""
        raise self._lacks("least squared error", "_mmse", "compare with it")

    def _class_weights(self) -> Tensor:
        """Probability of each class, (C,), float64."""
        return torch.full((self.classes,), 1 / self.classes, dtype=torch.float64)

    def _lacks(self, what: str, hook: str, purpose: str) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} has no {what}: write {hook} to {purpose}"
        )

    # --- what everybody calls ---------------------------------------------------------

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points.

        Returns:
            Tensor of shape (n, 2), float32.

        Raises:
            ValueError: n < 1.
        """
        return self._drawn(n, generator)[0]

    def sample_labelled(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n points with their classes: shapes (n, 2) float32 and (n,) int64.

        Raises:
            ValueError: n < 1, or data without classes.
        """
        self._require_classes()
        x, label = self._drawn(n, generator)
        assert label is not None
        return x, label

    def _drawn(
        self, n: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """n points (n, 2) in float32, and their labels (n,) if there are classes.

        Raises:
            TypeError, ValueError: a subclass that draws something else.
        """
        made = f"what {type(self).__name__}._draw gives"
        drawn = self._draw(check_count("n", n), check_generator(generator))
        raw: Any = drawn
        label: Any = None
        if isinstance(drawn, tuple) and len(drawn) == 2:
            raw, label = drawn
        check_samples(raw, shape=(2,), name=made)
        if len(raw) != n:
            raise ValueError(f"{made} must be {n} points, got {len(raw)}")
        if self.classes:
            if label is None:
                raise TypeError(f"{made} must be points and labels, got points alone")
            check_labels(label, classes=self.classes, batch=n)
        x = self.standardize(raw.double()).float()
        return x, (label if self.classes else None)

    @overload
    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        *,
        labelled: Literal[False] = False,
        block: int = 100,
    ) -> Iterator[Tensor]: ...

    @overload
    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        *,
        labelled: Literal[True],
        block: int = 100,
    ) -> Iterator[tuple[Tensor, Tensor]]: ...

    @overload
    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        *,
        labelled: bool,
        block: int = 100,
    ) -> Iterator[Tensor] | Iterator[tuple[Tensor, Tensor]]: ...

    def batches(
        self,
        size: int,
        generator: torch.Generator | None = None,
        *,
        labelled: bool = False,
        block: int = 100,
    ) -> Iterator[Any]:
        """Fresh batches without end, drawn ``block`` at a time for speed.

        Args:
            size: points in a batch, B.
            generator: source of the points.
            labelled: whether the classes are wanted as well.
            block: batches drawn at once.

        Yields:
            Points (B, 2); if labelled, points (B, 2) and their classes (B,).

        Raises:
            ValueError: a size or block below 1, or classes wanted of data without.
        """
        size = check_count("size", size)
        count = size * check_count("block", block)
        if labelled:
            self._require_classes()

        def draw() -> Iterator[Any]:
            while True:
                if labelled:
                    x, label = self.sample_labelled(count, generator)
                    yield from zip(x.split(size), label.split(size), strict=True)
                else:
                    yield from self.sample(count, generator).split(size)

        return draw()

    @property
    def fingerprint(self) -> str:
        """Says which distribution this is: a part of the key of a cache of models.

        It is the class's name and a digest of the settings, which are the attributes
        without an underscore, of 1,000 points with labels, and of the density and the
        posterior at them, where there are any: so it also tells when the code of these
        has changed, in a notebook as well. Settings other than numbers, text, tensors
        and rows of them are left out; they show in the points.

        Raises:
            ValueError: data that differ from draw to draw with one generator's seed.
        """
        drawn = [
            _described(self._drawn(1000, torch.Generator().manual_seed(0)))
            for _ in range(2)
        ]
        if drawn[0] != drawn[1]:
            raise ValueError(
                f"{type(self).__name__}._draw must take all chance from the generator, "
                "got two draws that differ though the seed is the same"
            )
        # mean and std are computed, and the points, which are z-scored, tell of them
        settings = {
            name: _described(value)
            for name, value in {**vars(self), "classes": self.classes}.items()
            if not name.startswith("_") and name not in {"mean", "std"}
        }
        facts = repr([drawn[0], sorted(settings.items()), self._described_truth()])
        kind = type(self)
        digest = sha256(facts.encode()).hexdigest()[:16]
        return f"{kind.__module__}.{kind.__qualname__}-{digest}"

    def _described_truth(self) -> list[str | None]:
        """What the density and the posterior are at points that are drawn."""
        x = self.sample(1000, torch.Generator().manual_seed(0))
        told: list[str | None] = []
        for ask in (self.log_prob, lambda x: self.posterior(x, 1.0)):
            try:
                told.append(_described(ask(x)))
            except NotImplementedError:
                told.append(None)
        return told

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
        raw = self.to_raw(x.cpu().double())  # the truth is known to the CPU alone
        known = None if label is None else label.cpu()
        return (self._log_density(raw, known) + self.std.log().sum()).to(x)

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
        raw = self.to_raw(u.cpu().double())
        if label is None:
            found = self._posterior(raw, noise, None)
        else:
            self._require_classes()
            check_labels(label, classes=self.classes, batch=len(u))
            found = _by_class(
                raw, label.cpu(), lambda r, c: self._posterior(r, noise, c)
            )
        return Posterior(
            (found.log_density + self.std.log().sum()).to(u),
            self.standardize(found.mean).to(u),
            (found.variance / self.std**2).to(u),
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

    def inside(self, x: Tensor) -> Tensor:
        """Whether each point of ``x`` (B, 2) lies on the support, shape (B,), bool."""
        return self.log_prob(x) > -torch.inf

    def standardize(self, raw: Tensor) -> Tensor:
        """Raw coordinates to the model's: (raw − mean)/std."""
        return (raw - self.mean.to(raw)) / self.std.to(raw)

    def to_raw(self, x: Tensor) -> Tensor:
        """The model's coordinates back to raw ones: x·std + mean."""
        return x * self.std.to(x) + self.mean.to(x)

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


def _described(value: Any) -> str | None:
    """Text that tells numbers, text, tensors and rows of them apart; None for others.

    Tensors are told apart in float32: the last digits of float64 hang on the processor.
    """
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, list | tuple):
        return repr([_described(part) for part in value])
    if isinstance(value, Tensor):
        rounded = value.detach().cpu().float() + 0.0  # −0 is 0
        return f"{tuple(value.shape)} {sha256(rounded.numpy().tobytes()).hexdigest()}"
    return repr(value) if isinstance(value, str) else None


def uniform(n: int, generator: torch.Generator | None) -> Tensor:
    """n numbers uniform on [0, 1), float64."""
    return torch.rand(n, generator=generator, dtype=torch.float64)
