"""The one training loop of the book.

Every model here trains with AdamW, or with the optimizers it asks for, a short warm-up
and a cosine that brings the learning rate to zero. Lightning Fabric carries the model,
the optimizers and the backward pass, so another device or several of them are a matter
of the ``Fabric`` that is passed in.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, isfinite, pi
from typing import Any, Generic, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import trange

from course_utils.checks import check_count, check_positive
from course_utils.data import Images, PlaneData
from course_utils.progress import bars_are_off

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")  # a batch: a tensor, or a tuple of tensors
Loss = Callable[[M, B], Tensor]  # (model, batch) → the loss of every sample, (B,)
# name → one value per held-out sample, (N,)
Validation = Callable[[], Mapping[str, Tensor]]
# model → its optimizers, each with its own parameters and learning rate
Optimizers = Callable[[M], Sequence[Optimizer]]


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
        snapshots: number of epochs → the weights after them, of those asked for.
    """

    loss: list[float] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    validation: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    snapshots: dict[int, dict[str, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )


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
    weight_decay: float = 0.01,
    optimizers: Optimizers[M] | None = None,
    warmup: int = 50,
    clip: float | None = None,
    validate: Validation | None = None,
    epoch: int = 200,
    keep: Collection[int] = (),
    fabric: Fabric | None = None,
) -> History:
    """Minimise the mean loss over the batches; return the history.

    Stop it at any time (Ctrl-C, or Jupyter's stop button): the model keeps what it has
    learnt and the history so far is returned. The model is in train mode in the steps,
    in eval mode while it is validated and in the end, whatever happens.

    Args:
        model: trained in place.
        loss: the loss of every sample of a batch, shape (B,).
        batches: gives a batch at each ``next``.
        steps: how many steps to take.
        lr, weight_decay: AdamW's peak learning rate and weight decay.
        optimizers: makes other optimizers in place of AdamW; the learning rate of each
            is its peak.
        warmup: steps until the learning rate reaches its peak.
        clip: shorten gradients that are longer than this; None leaves them alone.
        validate: held-out quantities, one value per sample; the first is watched
            for divergence.
        epoch: validate at the start and after each ``epoch`` steps.
        keep: after how many epochs the history keeps the weights; 0 is the start.
        fabric: where to train; the default is one CPU.

    Raises:
        ValueError: settings out of range or at odds with each other.
        TrainingDivergedError: the loss is not finite, or its tail blew up.
    """
    _check_settings(steps, epoch, warmup, keep, lr, weight_decay, clip)
    parts: Sequence[Optimizer]
    if optimizers is None:
        parts = [_adamw(model, lr, weight_decay)]
    else:
        parts = _check_optimizers(model, optimizers(model), lr, weight_decay, clip)
    schedules = [LambdaLR(part, warmup_cosine(steps, warmup)) for part in parts]
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    objective, *parts = fabric.setup(_Objective(model, loss), *parts)
    history, start = History(), time.process_time()
    look = _Observer(model, objective, history, validate, epoch, keep)
    objective.train()
    try:
        for step in trange(steps, desc="training", leave=False, disable=bars_are_off()):
            look(step)
            batch_loss = objective(fabric.to_device(next(batches))).mean()
            for optimizer in parts:
                optimizer.zero_grad()
            fabric.backward(batch_loss)
            for optimizer, schedule in zip(parts, schedules, strict=True):
                if clip is not None:
                    fabric.clip_gradients(objective, optimizer, max_norm=clip)
                optimizer.step()
                schedule.step()
            history.loss.append(_finite(batch_loss, step))
        look(steps, last=True)
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        objective.eval()
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


def fit_epochs(
    model: M,
    images: Images,
    loss: Loss[M, tuple[Tensor, Tensor, Tensor]],
    *,
    epochs: int,
    batch: int,
    **settings: Any,
) -> History:
    """:func:`train` for some passes over ``images``, measured before and after each.

    Args:
        model: trained in place.
        images: gives batches of images, labels and places.
        loss: the loss of every sample of such a batch.
        epochs, batch: passes over the images, images in a batch.
        settings: what else ``train`` takes.
    """
    epoch = images.steps(batch)
    batches = images.batches(batch)
    return train(model, loss, batches, epochs * epoch, epoch=epoch, **settings)


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


class _Observer:
    """Looks at a model between two steps: keeps its weights, validates it."""

    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        history: History,
        validate: Validation | None,
        epoch: int,
        keep: Collection[int],
    ) -> None:
        self.model, self.objective, self.history = model, objective, history
        self.validate, self.epoch, self.keep = validate, epoch, keep
        self.watch = _TailWatch()

    def __call__(self, step: int, *, last: bool = False) -> None:
        epochs, rest = divmod(step, self.epoch)
        if not rest and epochs in self.keep:
            weights = self.model.state_dict()
            self.history.snapshots[epochs] = {k: v.clone() for k, v in weights.items()}
        if self.validate and (last or not rest):
            self._measure(self.validate, step, last)

    def _measure(self, validate: Validation, step: int, last: bool) -> None:
        """Add the held-out quantities' means to the history; watch the first's tail."""
        self.objective.eval()
        with torch.no_grad():
            quantities = validate()
        self.objective.train()
        self.history.step.append(step)
        for name, values in quantities.items():
            self.history.validation.setdefault(name, []).append(float(values.mean()))
        self.watch.check(*next(iter(quantities.items())), step, last)


def _adamw(model: nn.Module, lr: float, weight_decay: float) -> AdamW:
    """The optimizer of most models here."""
    return AdamW(
        model.parameters(),
        lr,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=True,
    )


def _check_settings(
    steps: int,
    epoch: int,
    warmup: int,
    keep: Collection[int],
    lr: float,
    weight_decay: float,
    clip: float | None,
) -> None:
    """Refuse settings of :func:`train` that are out of range."""
    for name, value in {"steps": steps, "epoch": epoch, "warmup": warmup}.items():
        check_count(name, value)
    for epochs in keep:
        if check_count("keep", epochs, least=0) > steps // epoch:
            raise ValueError(
                f"keep must hold numbers of epochs from 0 to {steps // epoch}"
                f" ({steps} steps of {epoch} an epoch), got {epochs}"
            )
    check_positive("lr", lr)
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(
            f"weight_decay must be a finite number of at least 0, got {weight_decay!r}"
        )
    if clip is not None:
        check_positive("clip", clip)


def _check_optimizers(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    lr: float,
    weight_decay: float,
    clip: float | None,
) -> Sequence[Optimizer]:
    """Return ``optimizers`` if they move all of the model and nothing is at odds."""
    if (lr, weight_decay) != (1e-2, 0.01):  # the defaults of ``train``
        raise ValueError(
            "lr and weight_decay are the default optimizer's: give them to optimizers"
            f" instead, got lr={lr!r} and weight_decay={weight_decay!r} beside them"
        )
    held = Counter(
        id(parameter)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and held[id(parameter)] != 1:
            raise ValueError(
                "optimizers must hold every trainable parameter once,"
                f" got {name!r} {held[id(parameter)]} times"
            )
    kinds = [type(optimizer).__name__ for optimizer in optimizers]
    if clip is not None and (len(kinds) > 1 or "SparseAdam" in kinds):
        raise ValueError(
            "clip needs one optimizer, with dense gradients: the length is that of all"
            f" gradients together, got {', '.join(kinds)}"
        )
    return optimizers


def _finite(loss: Tensor, step: int) -> float:
    """The loss as a number, if it is finite."""
    value = loss.item()
    if not isfinite(value):
        raise TrainingDivergedError(
            f"training diverged: the loss is {value} at step {step}. "
            "Try a lower learning rate, or clip the gradients."
        )
    return value
