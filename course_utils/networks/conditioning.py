"""What a model knows beside the sample and the time: nothing, classes, or a text.

A condition comes to every model as one argument. Here it is checked and embedded, the
same for flow matching and diffusion:

    Unconditional   None                                  → None
    ClassLabels     class indices (B,)                    → (B, E), a row of a table
    Vectors         vectors (B, V) of a text encoder      → (B, E)
    Tokens          tokens (B, L, V) of a text encoder    → (B, L, E)
    Words           places of words (B, L), 0: no word    → (B, E), encoded here

For guidance without a classifier a model must also know what comes without a condition:
with ``drop`` above 0, a model in train mode replaces this share of the conditions by a
learnt "nothing" (as dropout does, by torch's own random numbers), and None stands for
it (Ho and Salimans 2022, arXiv:2207.12598). A text of "nothing" is one such token, or
as many as the text has: a backbone should not tell these apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_count,
    check_labels,
    check_number,
    check_samples,
    has_values,
)
from course_utils.networks.basic import mlp

Condition = Tensor | None
_NAME = "conditions"  # in messages


class Conditioning(nn.Module, ABC):
    """How one kind of condition is checked and embedded.

    Attributes:
        out_dim: E, 0 if nothing is embedded.
        classes: how many classes are known, 0 if conditions are no classes.
        optional: whether None is a condition too.
    """

    out_dim: int = 0
    classes: int = 0
    optional: bool = False

    @abstractmethod
    def check(self, condition: Condition, batch: int) -> None:
        """Refuse a condition that is missing, unexpected or malformed.

        Raises:
            TypeError, ValueError: saying what was expected and what came.
        """

    @abstractmethod
    def forward(self, condition: Condition, batch: int) -> Tensor | None:
        """The embedded condition of ``batch`` samples."""


class Unconditional(Conditioning):
    """No condition: what has one to give is refused."""

    def check(self, condition: Condition, batch: int) -> None:
        if condition is not None:
            got = getattr(condition, "shape", None)
            raise ValueError(
                "this model has no classes: expected no labels and no other condition,"
                f" got {type(condition).__name__ if got is None else tuple(got)};"
                " let the batches hold samples alone"
            )

    def forward(self, condition: Condition, batch: int) -> None:
        return None


class _Given(Conditioning):
    """A condition that is there, or "nothing" in its place.

    Args:
        dim: E.
        drop: share of the conditions that training replaces by "nothing".
    """

    nothing: nn.Parameter | None

    def __init__(self, dim: int, drop: float) -> None:
        super().__init__()
        self.out_dim = check_count("dim", dim, least=0)
        drop = check_number("drop", drop)
        if not 0 <= drop < 1:
            raise ValueError(f"drop must lie in [0, 1), got {drop!r}")
        if drop and not dim:
            raise ValueError(f"drop={drop} needs an embedding to drop, got dim=0")
        self.drop, self.optional = drop, drop > 0
        self.nothing = nn.Parameter(torch.zeros(dim)) if drop else None

    @abstractmethod
    def embed(self, condition: Tensor) -> Tensor | None:
        """The embedding (B, …, E) of a condition that is there."""

    def empty(self, batch: int) -> Tensor | None:
        """The embedding of "nothing"."""
        assert self.nothing is not None, "check() comes before"
        return self.nothing.expand(batch, -1)

    def forward(self, condition: Condition, batch: int) -> Tensor | None:
        if condition is None:
            return self.empty(batch)
        embedded = self.embed(condition)
        if self.nothing is None or embedded is None or not self.training:
            return embedded
        gone = torch.rand(batch, device=embedded.device) < self.drop
        wide = gone.view(-1, *[1] * (embedded.ndim - 1))
        return torch.where(wide, self.nothing, embedded)


class ClassLabels(_Given):
    """Class indices (B,), each with a row of a learnt table.

    Args:
        classes: C.
        dim: E; 0 for a model that only needs to be told the class.
        drop: see the module's text.
    """

    def __init__(self, classes: int, dim: int = 0, drop: float = 0.0) -> None:
        super().__init__(dim, drop)
        self.classes = check_count("classes", classes)
        self.table = nn.Embedding(classes, dim) if dim else None

    def check(self, condition: Condition, batch: int) -> None:
        if condition is not None:
            check_labels(condition, classes=self.classes, batch=batch)
        elif not self.optional:
            raise ValueError(
                f"this model has {self.classes} classes: expected labels, got None"
            )

    def embed(self, condition: Tensor) -> Tensor | None:
        return None if self.table is None else self.table(condition)


class Vectors(_Given):
    """Vectors (B, V), such as the meaning of a whole text, through a linear layer.

    Args:
        in_dim: V.
        dim: E.
        drop: see the module's text.
    """

    def __init__(self, in_dim: int, dim: int, drop: float = 0.0) -> None:
        super().__init__(check_count("dim", dim), drop)
        self.in_dim = check_count("in_dim", in_dim)
        self.project = nn.Linear(in_dim, dim)

    def check(self, condition: Condition, batch: int) -> None:
        if condition is None:
            if not self.optional:
                raise ValueError(
                    f"this model needs a condition: expected {self._form}, got None"
                )
            return
        like = self.project.weight
        check_samples(condition, shape=self._shape(condition), like=like, name=_NAME)
        if len(condition) != batch:
            raise ValueError(
                f"there must be a condition for each of {batch} samples,"
                f" got {len(condition)}"
            )

    def embed(self, condition: Tensor) -> Tensor:
        return self.project(condition)

    @property
    def _form(self) -> str:
        return f"(B, {self.in_dim})"

    def _shape(self, condition: Tensor) -> tuple[int, ...]:
        """What the condition of one sample should look like."""
        return (self.in_dim,)


class Tokens(Vectors):
    """Tokens (B, L, V), such as the words of a text, each through one linear layer."""

    def empty(self, batch: int) -> Tensor | None:
        """One token that says nothing, (B, 1, E)."""
        assert self.nothing is not None, "check() comes before"
        return self.nothing.expand(batch, 1, -1)

    @property
    def _form(self) -> str:
        return f"(B, L, {self.in_dim})"

    def _shape(self, condition: Tensor) -> tuple[int, ...]:
        if not isinstance(condition, Tensor):
            got = type(condition).__name__
            raise TypeError(
                f"{_NAME} must be a torch.Tensor of shape {self._form}, got {got}"
            )
        if condition.ndim != 3 or not condition.shape[1]:
            raise ValueError(
                f"{_NAME} must have shape {self._form} with L ≥ 1,"
                f" got {tuple(condition.shape)}"
            )
        return (condition.shape[1], self.in_dim)


class Words(_Given):
    """A text as the places of its words (B, L), 0 where there is none: a small encoder.

        e = mlp(Σ_i w_i/√n),    w_i the learnt vectors of its n words

    The order of the words is lost. A row without words is "nothing".

    Args:
        words: how many rows the table has, that of 0 included.
        dim: E, also of the words' vectors.
        drop: see the module's text.
    """

    def __init__(self, words: int, dim: int, drop: float = 0.0) -> None:
        super().__init__(check_count("dim", dim), drop)
        self.words = check_count("words", words, least=2)
        self.table = nn.Embedding(words, dim)
        self.mix = mlp([dim, dim, dim])

    def check(self, condition: Condition, batch: int) -> None:
        if condition is None:
            if not self.optional:
                raise ValueError(
                    "this model needs a text: expected places of words (B, L), got None"
                )
            return
        if not isinstance(condition, Tensor) or condition.dtype != torch.int64:
            got = getattr(condition, "dtype", type(condition).__name__)
            raise TypeError(f"texts must be a torch.int64 tensor (B, L), got {got}")
        if condition.ndim != 2 or len(condition) != batch or not condition.shape[1]:
            raise ValueError(
                f"texts must have shape ({batch}, L) with L ≥ 1, a row for each sample,"
                f" got {tuple(condition.shape)}"
            )
        if condition.device != self.table.weight.device:
            raise ValueError(
                f"texts must be on {self.table.weight.device} like the model,"
                f" got {condition.device}"
            )
        if not has_values(condition) or not batch:
            return
        low, high = (int(end) for end in condition.aminmax())
        if low < 0 or high >= self.words:
            raise ValueError(
                f"words must have places 0 … {self.words - 1}, got {low} … {high}"
            )
        if self.nothing is None and not bool((condition > 0).any(1).all()):
            raise ValueError(
                "this model needs a text: expected at least one word in each row, got"
                " a row without any"
            )

    def embed(self, condition: Tensor) -> Tensor:
        there = (condition > 0)[:, :, None].to(self.table.weight)  # (B, L, 1)
        n = there.sum(1)
        e: Tensor = self.mix(
            (self.table(condition) * there).sum(1) / n.clamp(min=1) ** 0.5
        )
        return e if self.nothing is None else torch.where(n > 0, e, self.nothing)
