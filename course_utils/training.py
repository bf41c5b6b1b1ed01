"""The one training loop of the book.

Every model here trains with AdamW, a short warm-up and a cosine that brings the
learning rate to zero, on batches drawn afresh. Lightning Fabric carries the model, the
optimizer and the backward pass, so another device or several of them are a matter of
the ``Fabric`` that is passed in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import cos, isfinite, pi
from typing import Any, Generic, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import trange

from course_utils.checks import check_count, check_positive
from course_utils.data import PlaneData

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")  # a batch: a tensor, or a tuple of tensors
Loss = Callable[[M, B], Tensor]  # (model, batch) → the loss of every sample, (B,)
# name → one value per held-out sample, (N,)
Validation = Callable[[], Mapping[str, Tensor]]


class TrainingDivergedError(RuntimeError):
    """Training was stopped because the model got far worse than it was at the start."""


@dataclass
class History:
    """What happened in training, kept also when it was interrupted.

    Attributes:
        loss: mean loss of every step's batch.
        step: the steps after which the model was validated.
        validation: name → mean over the held-out samples at each of those steps.
        seconds: CPU-seconds spent, validation included.
        interrupted: whether the user stopped it.
    """

    loss: list[float] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    validation: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False


def warmup_cosine(steps: int, warmup: int = 50) -> Callable[[int], float]:
    """Factor of the learning rate at a step: up to 1, then (1 + cos πu)/2 down to 0."""
    return lambda step: min(1.0, (step + 1) / warmup) * (1 + cos(pi * step / steps)) / 2


def train(
    model: M,
    loss: Loss[M, B],
    batches: Iterator[B],
    steps: int,
    *,
    lr: float = 1e-2,
    clip: float | None = None,
    validate: Validation | None = None,
    epoch: int = 200,
    fabric: Fabric | None = None,
) -> History:
    """Minimise the mean loss over fresh batches; return the history.

    Stop it at any time (Ctrl-C, or Jupyter's stop button): the model keeps what it has
    learnt and the history so far is returned.

    Args:
        model: trained in place.
        loss: the loss of every sample of a batch, shape (B,).
        batches: gives a batch at each ``next``.
        steps: how many steps to take.
        lr: peak learning rate.
        clip: shorten gradients that are longer than this; None leaves them alone.
        validate: held-out quantities, one value per sample; the first is watched
            for divergence.
        epoch: validate at the start and after each ``epoch`` steps.
        fabric: where to train; the default is one CPU.

    Raises:
        ValueError: counts below 1, a learning rate that is not above 0.
        TrainingDivergedError: the loss is not finite, or its tail blew up.
    """
    check_count("steps", steps)
    check_count("epoch", epoch)
    check_positive("lr", lr)
    if clip is not None:
        check_positive("clip", clip)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99), fused=True)
    schedule = LambdaLR(optimizer, warmup_cosine(steps))
    objective, optimizer = fabric.setup(_Objective(model, loss), optimizer)
    history, watch, start = History(), _TailWatch(), time.process_time()
    try:
        for step in trange(steps, desc="training", leave=False, disable=_silent()):
            if validate and step % epoch == 0:
                _record(history, step, validate, watch)
            batch_loss = objective(fabric.to_device(next(batches))).mean()
            optimizer.zero_grad()
            fabric.backward(batch_loss)
            if clip is not None:
                fabric.clip_gradients(objective, optimizer, max_norm=clip)
            optimizer.step()
            schedule.step()
            history.loss.append(_finite(batch_loss, step))
        if validate:
            _record(history, steps, validate, watch, last=True)
    except KeyboardInterrupt:
        history.interrupted = True
    history.seconds = time.process_time() - start
    return history


def fit(
    model: Any,
    data: PlaneData,
    loss: Callable[[Any, Any], Tensor],
    *,
    steps: int,
    batch: int = 512,
    lr: float = 6e-3,
    held_out: Callable[[Any], Mapping[str, Tensor]] | None = None,
    epoch: int = 400,
    generator: torch.Generator | None = None,
) -> History:
    """:func:`train` on fresh points of ``data``, with labels if the model has classes.

    Args:
        model: trained in place; ``model.classes`` is the number of its classes.
        data: where batches come from.
        loss: the loss of every sample, of the model and a batch.
        steps, batch, lr: number of steps, points in each, peak learning rate.
        held_out: held-out quantities of the model, measured at the start and after each
            ``epoch`` steps.
        generator: source of the points.
    """
    draw: Callable[..., Iterator[Any]]
    draw = data.labelled_batches if model.classes else data.batches
    return train(
        model,
        loss,
        draw(batch, generator),
        steps,
        lr=lr,
        validate=(lambda: held_out(model)) if held_out else None,
        epoch=epoch,
    )


def _silent() -> bool:
    """Whether bars are off: tqdm's own switch, which its notebook bar does not read."""
    return "TQDM_DISABLE" in os.environ


class _Objective(nn.Module, Generic[B]):
    """The loss as a module, so that every engine sees one ``forward``."""

    def __init__(self, model: M, loss: Loss[M, B]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: B) -> Tensor:
        return self.loss(self.model, batch)


class _TailWatch:
    """Stops a run whose worst hundredth blows up while its mean may look harmless.

    Compares the 99 % quantile of the held-out loss with the untrained model's: it may
    grow to ``FACTOR`` times that (at least to ``FACTOR``). A run often exceeds this for
    a moment and recovers; ``PATIENCE`` validations in a row are too many, and so is one
    at the end of training.
    """

    FACTOR = 3.0
    PATIENCE = 3

    def __init__(self) -> None:
        self.limit: float | None = None
        self.exceeded = 0

    def check(self, name: str, values: Tensor, step: int, last: bool) -> None:
        tail = float(values.double().quantile(0.99))
        if self.limit is None:
            self.limit = self.FACTOR * max(1.0, tail)
        self.exceeded = 0 if tail <= self.limit else self.exceeded + 1
        if self.exceeded == self.PATIENCE or (last and self.exceeded):
            raise TrainingDivergedError(
                f"training diverged at step {step}: 1 % of the held-out samples have "
                f"{name} above {tail:.3g} (mean {float(values.mean()):.3g}); "
                f"the limit is {self.limit:.3g}, {self.FACTOR:g} times the untrained "
                "model's. Try a lower learning rate, or clip the gradients."
            )


def _record(
    history: History,
    step: int,
    validate: Validation,
    watch: _TailWatch,
    last: bool = False,
) -> None:
    """Add the held-out quantities' means to the history; watch the first one's tail."""
    with torch.no_grad():
        quantities = validate()
    history.step.append(step)
    for name, values in quantities.items():
        history.validation.setdefault(name, []).append(float(values.mean()))
    watch.check(*next(iter(quantities.items())), step, last)


def _finite(loss: Tensor, step: int) -> float:
    """The loss as a number, if it is finite."""
    value = loss.item()
    if not isfinite(value):
        raise TrainingDivergedError(
            f"training diverged: the loss is {value} at step {step}. "
            "Try a lower learning rate, or clip the gradients."
        )
    return value
