"""The one training loop of the book.

At each step a batch comes, and every *turn* is played on it: a loss, and the optimizers
of what it moves. Most models need one turn. A latent that is learnt beside its decoder,
or a generator against a discriminator, takes one for each.

The learning rate of every optimizer rises for some steps and falls to zero along a
cosine. Lightning Fabric carries the model, the optimizers and the backward pass, so
another device or several of them are a matter of the ``Fabric`` that is passed in.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import cos, isfinite, pi
from typing import Any, Generic, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import trange

from course_utils.checks import check_count, check_positive
from course_utils.progress import bars_are_off

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")  # a batch: a tensor, or a tuple of tensors
Loss = Callable[[M, B], Tensor]  # (model, batch) → the loss of every sample, (B,)
# model → name → one value per held-out sample, (N,)
Measure = Callable[[M], Mapping[str, Tensor]]

MEASURE_SEED = 0  # of torch's random numbers in every measurement


# --- what training says ---------------------------------------------------------------


@dataclass
class History:
    """What happened in training, kept also when it was interrupted.

    Attributes:
        losses: turn → mean loss of every step's batch; a turn that repeats says its
            last, one that is played 0 times says nothing.
        step: the steps after which the model was measured.
        measured: name → mean over the held-out samples at each of those steps.
        seconds: CPU-seconds spent, measurements included.
        interrupted: whether the user stopped it.
        snapshots: number of epochs → the weights after them, of those asked for.
    """

    losses: dict[str, list[float]] = field(default_factory=dict)
    step: list[int] = field(default_factory=list)
    measured: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    snapshots: dict[int, dict[str, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def loss(self) -> list[float]:
        """The losses of the only turn, or of the last."""
        return list(self.losses.values())[-1] if self.losses else []


class TrainingError(RuntimeError):
    """Training could not go on.

    Attributes:
        history: what happened until then. The model is as the last step left it.
    """

    history: History


class TrainingDivergedError(TrainingError):
    """The loss is not finite, or the model got far worse than it was at the start."""


class BatchesEndedError(TrainingError):
    """There were fewer batches than steps."""


# --- turns ----------------------------------------------------------------------------


@dataclass
class Turn(Generic[M, B]):
    """A loss, and the optimizers of what it moves; everything else stays as it is.

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
        check_count("repeats", self.repeats, least=0)
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
    """The optimizer of most models here: AdamW that forgets old gradients quickly."""
    return AdamW(
        parameters, lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )


def warmup_cosine(steps: int, warmup: int = 50) -> Callable[[int], float]:
    """Factor of the learning rate at a step: up to 1, then (1 + cos πu)/2 down to 0."""
    return lambda step: min(1.0, (step + 1) / warmup) * (1 + cos(pi * step / steps)) / 2


# --- the loop -------------------------------------------------------------------------


def train(
    model: M,
    turns: Loss[M, B] | Sequence[Turn[M, B]],
    batches: Iterable[B],
    steps: int,
    *,
    lr: float = 1e-2,
    weight_decay: float = 0.01,
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
    the end, whatever happens. Measuring has random numbers of its own: it changes
    nothing in the training.

    Args:
        model: trained in place.
        turns: the loss of every sample of a batch, (B,), which moves all of the model
            by AdamW; or turns, each with its loss and optimizers.
        batches: gives a batch at each ``next``; a ``DataLoader``, or another collection
            of batches, starts again when it ends. Lists become tuples.
        steps: how many steps to take.
        lr, weight_decay, clip: AdamW's peak learning rate and weight decay, and the
            length to which gradients are shortened, for a loss without turns.
        warmup: steps until the learning rate reaches its peak.
        ema: β of an average of the weights over time, θ̄ ← β·θ̄ + (1−β)·θ, which is what
            is measured, kept, and left in the model in the end.
        measure: held-out quantities of the model it is given, one value per sample; the
            first is watched for divergence.
        steps_per_epoch: measure at the start and after each epoch of so many steps.
        keep: after how many epochs the history keeps the weights; 0 is the start.
        fabric: where to train; the default is one CPU.

    Raises:
        TypeError, ValueError: settings out of range or at odds with each other; a loss
            that is not one value for each sample.
        TrainingDivergedError: the loss is not finite, or its tail blew up.
        BatchesEndedError: an iterator with fewer batches than steps.
    """
    if callable(turns):
        moved = [p for p in model.parameters() if p.requires_grad]
        _check_rates(lr, weight_decay)
        turns = [Turn(turns, [adamw(moved, lr, weight_decay)], clip=clip)]
    elif (lr, weight_decay, clip) != (1e-2, 0.01, None):
        raise ValueError(
            "lr, weight_decay and clip are for a loss without turns: give them to the"
            f" turns and their optimizers, got lr={lr!r},"
            f" weight_decay={weight_decay!r}, clip={clip!r} beside them"
        )
    _check_turns(model, turns)
    steps, steps_per_epoch, keep = _check_settings(
        steps, steps_per_epoch, warmup, keep, ema
    )
    run = _Run(model, turns, steps, warmup, ema, measure, steps_per_epoch, keep, fabric)
    with run.recorded() as history:
        take_steps(run, batches)
    return history


def take_steps(run: _Run, batches: Iterable[Any]) -> None:
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
        model: trained in place; ``model.classes`` is the number of its classes.
        data: where batches come from.
        loss: the loss of every sample, of the model and a batch.
        steps, batch, lr: number of steps, samples in each, peak learning rate.
        generator: source of the samples.
        settings: what else ``train`` takes.
    """
    batches = data.batches(batch, generator, labelled=bool(model.classes))
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


# --- what the loop relies on ----------------------------------------------------------


class _Objective(nn.Module):
    """The losses as a module, so that every engine sees one ``forward``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Loss[Any, Any], batch: Any) -> Tensor:
        return loss(self.model, batch)


class _Run:
    """One training: engine, optimizers, learning rates, history and measurements."""

    def __init__(
        self,
        model: nn.Module,
        turns: Sequence[Turn[Any, Any]],
        steps: int,
        warmup: int,
        ema: float | None,
        measure: Measure[Any] | None,
        steps_per_epoch: int,
        keep: Collection[int],
        fabric: Fabric | None,
    ) -> None:
        self.steps, self.fabric = steps, fabric or Fabric(accelerator="cpu", devices=1)
        self.history = History(losses={turn.name: [] for turn in turns})
        optimizers = _all_optimizers(turns)
        factor = warmup_cosine(steps, warmup)
        self.schedules = [LambdaLR(optimizer, factor) for optimizer in optimizers]
        self.objective, *ready = self.fabric.setup(_Objective(model), *optimizers)
        at_work = {id(old): new for old, new in zip(optimizers, ready, strict=True)}
        self.turns = []
        for turn in turns:
            mine = [at_work[id(optimizer)] for optimizer in turn.optimizers]
            played = replace(turn, optimizers=mine)
            everything = len(mine) == len(ready)
            # several processes exchange the gradients of all the model
            parallel = self.fabric.world_size > 1 and everything
            played.moved = None if parallel else _parameters(turn)
            self.turns.append(played)
        self.latest: dict[str, float] = {}  # turn → its loss of this step
        self.average = None
        if ema is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self.look = _Observer(
            model, self.average, self.history, measure, steps_per_epoch, keep
        )

    @contextmanager
    def recorded(self) -> Iterator[History]:
        """The history, finished whatever happens; Ctrl-C ends the training alone."""
        start = time.process_time()
        self.objective.train()
        try:
            yield self.history
        except KeyboardInterrupt:
            self.history.interrupted = True
        except Exception as error:
            error.history = self.history  # type: ignore[attr-defined]
            raise
        finally:
            self.look.finish()
            self.objective.eval()
            self.history.seconds = time.process_time() - start

    def each_step(self, batches: Iterable[Any]) -> Iterator[Any]:
        """A batch for each step; between the steps everything that is not one."""
        source = _endless(batches)
        bar = trange(self.steps, desc="training", leave=False, disable=bars_are_off())
        for self.step in bar:
            self.look(self.step)
            try:
                batch = next(source)
            except StopIteration:
                raise BatchesEndedError(
                    f"batches ended after {self.step} of {self.steps} steps: expected"
                    " an iterator without end, or a collection such as a DataLoader,"
                    " which starts again"
                ) from None
            yield self.fabric.to_device(tuple(batch) if type(batch) is list else batch)
            for name, value in self.latest.items():
                self.history.losses[name].append(value)
            for schedule in self.schedules:
                schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.look.model)
        self.look(self.steps, last=True)

    def checked_mean(self, turn: Turn[Any, Any], loss: Tensor, batch: Any) -> Tensor:
        """The mean of a loss that is one finite value for each sample."""
        size = _size(batch)
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            got = loss.dtype if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"the loss must be a floating tensor (B,), got {got}")
        if loss.ndim != 1 or (size is not None and len(loss) != size):
            raise ValueError(
                f"the loss must have shape ({'B' if size is None else size},), a value"
                f" for each sample, got {tuple(loss.shape)}"
            )
        mean = loss.mean()
        value = mean.item()
        if not isfinite(value):
            raise TrainingDivergedError(
                f"training diverged: the loss is {value} at step {self.step}. "
                "Try a lower learning rate, or clip the gradients."
            )
        self.latest[turn.name] = value
        return mean

    def check_gradients(self, turn: Turn[Any, Any]) -> None:
        """Refuse gradients that are not finite; shorten them to the turn's length."""
        gradients = [p.grad for p in _parameters(turn) if p.grad is not None]
        length = get_total_norm(
            [g.coalesce().values() if g.is_sparse else g for g in gradients]
        )
        if not isfinite(length.item()):
            raise TrainingDivergedError(
                f"training diverged: the length of the gradient is {length.item()} at"
                f" step {self.step}, though the loss is finite. Look for a root or a"
                " logarithm at 0 in the loss, or try a lower learning rate."
            )
        if turn.clip is not None:
            clip_grads_with_norm_(_parameters(turn), turn.clip, length)


class _TailWatch:
    """Stops a run whose worst hundredth blows up while its mean may look harmless.

    Compares the 99 % quantile of the held-out loss with the untrained model's: it may
    grow to ``FACTOR`` times that (at least to ``FACTOR``). A run often exceeds this for
    a moment and recovers; ``PATIENCE`` measurements in a row are too many, and so is
    one at the end of training.
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
    """Looks at a model between two steps: keeps its weights, measures it."""

    def __init__(
        self,
        model: nn.Module,
        average: AveragedModel | None,
        history: History,
        measure: Measure[Any] | None,
        steps_per_epoch: int,
        keep: Collection[int],
    ) -> None:
        self.model, self.history = model, history
        self.shown = model if average is None else average.module
        self.measure, self.steps_per_epoch, self.keep = measure, steps_per_epoch, keep
        self.watch = _TailWatch()

    def __call__(self, step: int, *, last: bool = False) -> None:
        epochs, rest = divmod(step, self.steps_per_epoch)
        if not rest and epochs in self.keep:
            weights = self.shown.state_dict()
            self.history.snapshots[epochs] = {k: v.clone() for k, v in weights.items()}
        if self.measure and (last or not rest):
            self._measure(self.measure, step, last)

    def _measure(self, measure: Measure[Any], step: int, last: bool) -> None:
        """Add the held-out quantities' means to the history; watch the first's tail."""
        self.shown.eval()
        with torch.no_grad(), own_randomness(MEASURE_SEED):
            quantities = measure(self.shown)
        self.shown.train()
        self.history.step.append(step)
        for name, values in quantities.items():
            self.history.measured.setdefault(name, []).append(float(values.mean()))
        self.watch.check(*next(iter(quantities.items())), step, last)

    def finish(self) -> None:
        """Leave the averaged weights in the model, if there are any."""
        if self.shown is not self.model:
            self.model.load_state_dict(self.shown.state_dict())


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Torch's random numbers start at ``seed`` inside, go on undisturbed outside."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    """An iterator as it is; a collection starts again when it ends."""
    if isinstance(batches, Tensor | tuple | Mapping) or not isinstance(
        batches, Iterable
    ):
        raise TypeError(
            "batches must be an iterator, such as data.batches(512), or a collection of"
            f" batches, such as a DataLoader, got a {type(batches).__name__}"
        )
    # an iterator is the caller's: it can go on after the training
    return batches if isinstance(batches, Iterator) else _again(batches)


def _again(batches: Iterable[Any]) -> Iterator[Any]:
    """Pass after pass over a collection, as long as there is something in it."""
    there = True
    while there:
        there = False
        for batch in batches:
            there = True
            yield batch


def _size(batch: Any) -> int | None:
    """How many samples a batch holds, where its form tells."""
    while isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    return len(batch) if isinstance(batch, Tensor) and batch.ndim else None


def _all_optimizers(turns: Sequence[Turn[Any, Any]]) -> list[Optimizer]:
    """The optimizers of all turns, each once."""
    every = [optimizer for turn in turns for optimizer in turn.optimizers]
    return list({id(optimizer): optimizer for optimizer in every}.values())


def _parameters(turn: Turn[Any, Any]) -> list[nn.Parameter]:
    """What a turn moves: what its optimizers hold, unless it is frozen."""
    groups = [group for part in turn.optimizers for group in part.param_groups]
    return [p for group in groups for p in group["params"] if p.requires_grad]


def _check_settings(
    steps: int,
    steps_per_epoch: int,
    warmup: int,
    keep: Collection[int],
    ema: float | None,
) -> tuple[int, int, list[int]]:
    """Refuse settings of :func:`train` that are out of range; the counts as ints."""
    steps = check_count("steps", steps)
    steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
    check_count("warmup", warmup)
    kept = [check_count("keep", epochs, least=0) for epochs in keep]
    for epochs in kept:
        if epochs > steps // steps_per_epoch:
            raise ValueError(
                "keep must hold numbers of epochs from 0 to"
                f" {steps // steps_per_epoch} ({steps} steps, {steps_per_epoch} an"
                f" epoch), got {epochs}"
            )
    if ema is not None and not 0 <= ema < 1:
        raise ValueError(f"ema must lie in [0, 1), got {ema!r}")
    return steps, steps_per_epoch, kept


def _check_rates(lr: float, weight_decay: float) -> None:
    """Refuse a learning rate or a weight decay that is out of range."""
    check_positive("lr", lr)
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(
            f"weight_decay must be a finite number of at least 0, got {weight_decay!r}"
        )


def _check_turns(model: nn.Module, turns: Sequence[Turn[Any, Any]]) -> None:
    """Refuse turns that leave a parameter out, or move it by two optimizers."""
    listed = isinstance(turns, Sequence) and bool(turns)
    if not listed or not all(isinstance(turn, Turn) for turn in turns):
        raise TypeError(f"expected a loss, or a list of turns, got {turns!r}")
    names = [turn.name for turn in turns]
    if len(set(names)) < len(names):
        raise ValueError(f"turns must have names of their own, got {names}")
    held = Counter(
        id(parameter)
        for optimizer in _all_optimizers(turns)
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and held[id(parameter)] != 1:
            raise ValueError(
                "optimizers must hold every trainable parameter once,"
                f" got {name!r} {held[id(parameter)]} times"
            )
