"""The one training loop of the book.

At each step a batch comes, and every *turn* is played on it: a loss, and the optimizers
of what it moves. Most models need one turn. A latent that is learnt beside its decoder,
or a generator against a discriminator, takes one for each.

The learning rate of every optimizer rises for some steps and falls to zero along a
cosine. Lightning Fabric carries the model, the optimizers and the backward pass, so
another device, another precision or several processes are a matter of the ``Fabric``
that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_utils.checks import check_count, check_number
from course_utils.training.history import History
from course_utils.training.run import Measure, Run
from course_utils.training.turns import Loss, Turn, adamw, check_turns

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")  # a batch: a tensor, or a tuple of tensors


def train(
    model: M,
    turns: Loss[M, B] | Sequence[Turn[M, B]],
    batches: Iterable[B],
    steps: int,
    *,
    lr: float | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
    warmup: int = 50,
    ema: float | None = None,
    measure: Measure[M] | None = None,
    steps_per_epoch: int = 200,
    keep: Collection[int] = (),
    fabric: Fabric | None = None,
) -> History:
    """Minimise the mean loss over the batches; return the history.

    Stop it at any time (Ctrl-C, or Jupyter's stop button): the model keeps what it has
    learnt and the history so far is returned. An error carries the history so far too.
    The model is in train mode in the steps, in eval mode while it is measured and in
    the end, whatever happens. Torch's random numbers start anew in each measurement and
    go on undisturbed after it, so measuring changes nothing in the training (unless it
    draws from a generator that the training draws from too).

    Args:
        model: trained in place.
        turns: the loss of every sample of a batch, (B,), which moves all of the model
            by AdamW; or turns, each with its loss and optimizers.
        batches: gives a batch at each ``next``; a ``DataLoader``, or another collection
            of batches, starts again when it ends. Lists become tuples. Several
            processes share a batch that all are given, see
            :mod:`~course_utils.training.processes`.
        steps: how many steps to take.
        lr, weight_decay, clip: AdamW's peak learning rate (0.01 by default) and weight
            decay (0.01), and the length to which gradients are shortened (they are
            not), for a loss without turns.
        warmup: steps until the learning rate reaches its peak, see
            :func:`~course_utils.training.turns.warmup_cosine`.
        ema: β of an average of the weights over time, θ̄ ← β·θ̄ + (1−β)·θ, which is what
            is measured, kept, and left in the model in the end; it begins with the
            weights after the first step; buffers, such as the
            statistics of a batch normalization, are those of the last step.
        measure: held-out quantities of the model it is given, one value per sample; the
            first is watched for divergence.
        steps_per_epoch: measure at the start and after each epoch of so many steps.
        keep: after how many epochs the history keeps the weights; 0 is the start.
        fabric: where to train, in which precision and in how many processes, after
            its ``launch``; the default is one CPU. A loss's own generator should start
            at another seed in each process; torch's random numbers see to it.

    Raises:
        TypeError, ValueError: settings out of range or at odds with each other; a loss
            that is not one value for each sample.
        TrainingDivergedError: the loss or its gradient is not finite, or the tail of
            what is measured blew up.
        BatchesEndedError: an iterator with fewer batches than steps.
    """
    if callable(turns):
        rates = (
            1e-2 if lr is None else lr,
            0.01 if weight_decay is None else weight_decay,
        )
        turns = [Turn(turns, [adamw(_trainable(model), *rates)], clip=clip)]
    elif (lr, weight_decay, clip) != (None, None, None):
        raise ValueError(
            "lr, weight_decay and clip are for a loss without turns: give them to the"
            f" turns and their optimizers, got lr={lr}, weight_decay={weight_decay} and"
            f" clip={clip} beside them"
        )
    check_turns(model, turns)
    steps, steps_per_epoch, warmup, keep = _check_settings(
        steps, steps_per_epoch, warmup, keep, ema
    )
    run = Run(model, turns, steps, warmup, ema, measure, steps_per_epoch, keep, fabric)
    with torch.enable_grad(), run.recorded() as history:
        take_steps(run, batches)
    return history


def take_steps(run: Run, batches: Iterable[Any]) -> None:
    """The loop: on every batch, each turn is played as often as it repeats."""
    for batch in run.each_step(batches):  # progress, learning rates, measurements
        for turn in run.turns:
            for _ in range(turn.repeats):
                loss = run.objective(turn.loss, batch)  # (B,)
                mean = run.checked_mean(turn, loss, batch)  # finite, before it spoils
                for optimizer in turn.optimizers:
                    optimizer.zero_grad()
                run.fabric.backward(mean, inputs=turn.moved)
                run.check_gradients(turn)  # finite; shortened if asked
                for optimizer in turn.optimizers:
                    optimizer.step()


class Stream(Protocol):
    """Data without end, such as a distribution on the plane."""

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, labelled: bool
    ) -> Iterator[Any]:
        """Fresh batches of samples, or of samples and their classes."""


class Collected(Protocol):
    """A finite data set, such as images."""

    def steps(self, size: int) -> int:
        """How many batches a pass over all of it has."""

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[Any]:
        """Batches without end, pass after pass."""


def train_fresh(
    model: Any,
    data: Stream,
    loss: Callable[[Any, Any], Tensor],
    *,
    steps: int,
    batch: int = 512,
    lr: float = 6e-3,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> History:
    """:func:`train` on fresh samples of ``data``, with labels if the model has classes.

    Args:
        model: trained in place; ``model.classes`` is the number of its classes, if any.
        data: where batches come from.
        loss: the loss of every sample, of the model and a batch.
        steps, batch, lr: number of steps, samples in each, peak learning rate.
        generator: source of the samples.
        settings: what else ``train`` takes.
    """
    batches = data.batches(
        batch, generator, labelled=bool(getattr(model, "classes", 0))
    )
    return train(model, loss, batches, steps, lr=lr, **settings)


def train_epochs(
    model: M,
    data: Collected,
    loss: Loss[M, Any] | Sequence[Turn[M, Any]],
    *,
    epochs: int,
    batch: int,
    **settings: Any,
) -> History:
    """:func:`train` for some passes over ``data``, measured before and after each.

    Args:
        model: trained in place.
        data: what is passed over.
        loss: the loss of every sample of a batch, or turns.
        epochs, batch: passes over the data, samples in a batch.
        settings: what else ``train`` takes.
    """
    each = data.steps(batch)
    steps = check_count("epochs", epochs) * each
    batches = data.batches(batch)
    return train(model, loss, batches, steps, steps_per_epoch=each, **settings)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that a training may move."""
    found = [p for p in model.parameters() if p.requires_grad]
    if not found:
        raise ValueError(
            f"there is nothing to train: {type(model).__name__} has no parameter that"
            " requires a gradient"
        )
    return found


def _check_settings(
    steps: int,
    steps_per_epoch: int,
    warmup: int,
    keep: Collection[int],
    ema: float | None,
) -> tuple[int, int, int, list[int]]:
    """Refuse settings of :func:`train` that are out of range; the counts as ints."""
    steps = check_count("steps", steps)
    steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
    warmup = check_count("warmup", warmup)
    if not isinstance(keep, Iterable):
        raise TypeError(f"keep must hold numbers of epochs, got {keep!r}")
    kept = [check_count("keep", epochs, least=0) for epochs in keep]
    for epochs in kept:
        if epochs > steps // steps_per_epoch:
            raise ValueError(
                "keep must hold numbers of epochs from 0 to"
                f" {steps // steps_per_epoch} ({steps} steps, {steps_per_epoch} an"
                f" epoch), got {epochs}"
            )
    if ema is not None and not 0 <= check_number("ema", ema) < 1:
        raise ValueError(f"ema must lie in [0, 1), got {ema!r}")
    return steps, steps_per_epoch, warmup, kept
