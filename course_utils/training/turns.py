"""Turns: what a loss moves, and by which optimizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from typing import Any, Generic, TypeVar

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from course_utils.checks import check_count, check_number, check_positive

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")  # a batch: a tensor, or a tuple of tensors
Loss = Callable[[M, B], Tensor]  # (model, batch) → the loss of every sample, (B,)


@dataclass
class Turn(Generic[M, B]):
    """A loss, and the optimizers of what it moves; no other weight moves.

    Attributes:
        loss: the loss of every sample of a batch, shape (B,).
        optimizers: the learning rate of each is its peak. Turns may share one.
        repeats: how often the turn is played on each batch.
        clip: shorten gradients that are longer than this; None leaves them alone.
        name: of its losses in the history.
    """

    loss: Loss[M, B]
    optimizers: Sequence[Optimizer]
    repeats: int = 1
    clip: float | None = None
    name: str = "loss"
    # the parameters that get gradients; None for all there are
    moved: list[nn.Parameter] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.repeats = check_count("repeats", self.repeats, least=0)
        if isinstance(self.optimizers, Optimizer):
            got = type(self.optimizers).__name__
            raise TypeError(f"a turn must have a list of optimizers, got {got}")
        if not self.optimizers:
            raise ValueError("a turn must have an optimizer of what it moves, got none")
        if self.clip is not None:
            check_positive("clip", self.clip)
            kinds = [type(optimizer).__name__ for optimizer in self.optimizers]
            if len(kinds) > 1 or "SparseAdam" in kinds:
                raise ValueError(
                    "clip needs one optimizer, with dense gradients: the length is that"
                    f" of all gradients together, got {', '.join(kinds)}"
                )


def adamw(
    parameters: Iterable[nn.Parameter], lr: float = 1e-2, weight_decay: float = 0.01
) -> AdamW:
    """The optimizer of most models here: AdamW that forgets old gradients quickly.

    Raises:
        TypeError, ValueError: a rate that is not above 0, a weight decay below 0.
    """
    lr, decay = check_positive("lr", lr), check_number("weight_decay", weight_decay)
    if not 0 <= decay < float("inf"):
        raise ValueError(
            f"weight_decay must be a finite number of at least 0, got {weight_decay!r}"
        )
    return AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=decay, fused=True)


def warmup_cosine(steps: int, warmup: int = 50) -> Callable[[int], float]:
    """Factor of the learning rate at step s of S: min(1, (s+1)/w)·½(1 + cos(πs/S)).

    It rises for w steps and falls to 0; close to 1 in between if w is short beside S.
    """
    return lambda step: min(1.0, (step + 1) / warmup) * (1 + cos(pi * step / steps)) / 2


def all_optimizers(turns: Sequence[Turn[Any, Any]]) -> list[Optimizer]:
    """The optimizers of all turns, each once."""
    every = [optimizer for turn in turns for optimizer in turn.optimizers]
    return list({id(optimizer): optimizer for optimizer in every}.values())


def moved_parameters(turn: Turn[Any, Any]) -> list[nn.Parameter]:
    """What a turn moves: what its optimizers hold, unless it is frozen."""
    groups = [group for part in turn.optimizers for group in part.param_groups]
    return [p for group in groups for p in group["params"] if p.requires_grad]


def check_turns(model: nn.Module, turns: Sequence[Turn[Any, Any]]) -> None:
    """Refuse turns that leave a parameter out, or move it by two optimizers."""
    listed = isinstance(turns, Sequence) and bool(turns)
    if not listed or not all(isinstance(turn, Turn) for turn in turns):
        raise TypeError(f"expected a loss, or a list of turns, got {turns!r}")
    names = [turn.name for turn in turns]
    if len(set(names)) < len(names):
        raise ValueError(f"turns must have names of their own, got {names}")
    held = Counter(
        id(parameter)
        for optimizer in all_optimizers(turns)
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
    for turn in turns:
        if not moved_parameters(turn):
            raise ValueError(
                f"the turn {turn.name!r} must move something: its optimizers hold no"
                " parameter that requires a gradient"
            )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and held[id(parameter)] != 1:
            raise ValueError(
                "optimizers must hold every trainable parameter once,"
                f" got {name!r} {held[id(parameter)]} times"
            )
