"""One training at work: what surrounds the steps of the loop.

The engine, the learning rates, the batches, the progress bar, the measurements, the
average of the weights, and the history of all that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import isfinite
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import trange

from course_utils.progress import bars_are_off
from course_utils.training.history import (
    BatchesEndedError,
    History,
    TrainingDivergedError,
)
from course_utils.training.processes import Processes, batch_size
from course_utils.training.turns import (
    Loss,
    Turn,
    all_optimizers,
    moved_parameters,
    warmup_cosine,
)

M = TypeVar("M", bound=nn.Module)
# model → name → one value per held-out sample, (N,)
Measure = Callable[[M], Mapping[str, Tensor]]

MEASURE_SEED = 0  # of torch's random numbers in every measurement
_END = object()  # what stands for a batch where there is none


class _Objective(nn.Module):
    """The losses as a module, so that every engine sees one ``forward``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[Any], Tensor]) -> Tensor:
        return loss(self.model)


class Run:
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
        self.processes = Processes(self.fabric)
        self.history = History(losses={turn.name: [] for turn in turns})
        optimizers = all_optimizers(turns)
        factor = warmup_cosine(steps, warmup)
        self.peaks = [(g, g["lr"]) for part in optimizers for g in part.param_groups]
        for group, peak in self.peaks:  # what an earlier training left does not count
            group["initial_lr"] = peak
        self.schedules = [LambdaLR(optimizer, factor) for optimizer in optimizers]
        self.module, *ready = self.fabric.setup(_Objective(model), *optimizers)
        at_work = {id(old): new for old, new in zip(optimizers, ready, strict=True)}
        self.turns = []
        self.parameters = {turn.name: moved_parameters(turn) for turn in turns}
        for turn in turns:
            mine = [at_work[id(optimizer)] for optimizer in turn.optimizers]
            played = replace(turn, optimizers=mine)
            if len(mine) < len(ready):  # the usual backward pass, of all, is faster
                played.moved = self.parameters[turn.name]
            self.turns.append(played)
        # the engine exchanges the gradients of all the model and of nothing else
        own = {id(parameter) for parameter in model.parameters()}
        moved = [p for parameters in self.parameters.values() for p in parameters]
        self.by_hand = self.processes.count > 1 and (
            any(turn.moved is not None for turn in self.turns)
            or any(id(parameter) not in own for parameter in moved)
        )
        self.noise = self.processes.noise()
        self.latest: dict[str, float] = {}  # turn → its loss of this step
        self.average = None
        if ema is not None:
            check_average(model)
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))
        self.look = _Observer(
            model,
            self.average,
            self.history,
            measure,
            steps_per_epoch,
            keep,
            self.processes,
        )

    @contextmanager
    def recorded(self) -> Iterator[History]:
        """The history, finished whatever happens; Ctrl-C ends the training alone."""
        start = time.process_time()
        self.module.train()
        try:
            with self.processes.stopped_together():
                yield self.history
        except KeyboardInterrupt:
            self.history.interrupted = True
        except Exception as error:
            with suppress(AttributeError):  # an error that takes none
                error.history = self.history  # type: ignore[attr-defined]
            raise
        finally:
            self.look.finish()
            self.module.eval()
            for group, peak in self.peaks:
                group["lr"] = peak
            self.history.seconds = time.process_time() - start

    def each_step(self, batches: Iterable[Any]) -> Iterator[Any]:
        """A batch for each step; between the steps everything that is not one."""
        source = _endless(batches)
        silent = bars_are_off() or not self.fabric.is_global_zero
        bar = trange(self.steps, desc="training", leave=False, disable=silent)
        for self.step in bar:
            self.look(self.step)
            batch = next(source, _END)
            batch, there = self.processes.share(batch, batch is not _END)
            if not there:
                raise BatchesEndedError(
                    f"batches ended after {self.step} of {self.steps} steps: "
                    + (
                        "expected an iterator without end, or a collection such as a"
                        " DataLoader, which starts again"
                        if isinstance(batches, Iterator)
                        else "there is none in the collection (a DataLoader with"
                        " drop_last gives none of fewer samples than a batch holds)"
                    )
                )
            yield self._at_home(tuple(batch) if type(batch) is list else batch)
            for name, value in self.latest.items():
                self.history.losses[name].append(value)
            for schedule in self.schedules:
                schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.look.model)
        self.look(self.steps, last=True)

    def _at_home(self, batch: Any) -> Any:
        """A batch where the weights are; in their dtype, unless precision is mixed."""
        batch, precision = self.fabric.to_device(batch), self.fabric.strategy.precision
        mixed = isinstance(precision, MixedPrecision)
        return batch if mixed else precision.convert_input(batch)

    def objective(self, loss: Loss[Any, Any], batch: Any) -> Tensor:
        """The loss of every sample of a batch, (B,), as the engine computes it.

        The batch is no argument of the module, which mixed precision would round.
        """

        def of_batch(model: Any) -> Tensor:
            return loss(model, batch)

        if self.processes.count == 1:
            loss_of_each: Tensor = self.module(of_batch)
            return loss_of_each
        seed = int(torch.randint(2**62, (), generator=self.noise))
        with (
            own_randomness(seed),  # noise drawn alike would be the same in every share
            self.fabric.no_backward_sync(self.module, enabled=self.by_hand),
            self.processes.told_of_errors(),
        ):
            loss_of_each = self.module(of_batch)
        return loss_of_each

    def checked_mean(self, turn: Turn[Any, Any], loss: Tensor, batch: Any) -> Tensor:
        """The mean of a loss that is one finite value for each sample."""
        size = batch_size(batch)
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            got = loss.dtype if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"the loss must be a floating tensor (B,), got {got}")
        if loss.ndim != 1 or (size is not None and len(loss) != size):
            raise ValueError(
                f"the loss must have shape ({'B' if size is None else size},), a value"
                f" for each sample, got {tuple(loss.shape)}"
            )
        if not loss.requires_grad:
            raise ValueError(
                "the loss must depend on a weight that its turn moves, got one without"
                " a gradient (detached, or made under torch.no_grad)"
            )
        mean = self.processes.weighted(loss.mean())
        value = self.processes.mean(mean).item()
        if not isfinite(value):
            raise TrainingDivergedError(
                f"training diverged: the loss is {value} at step {self.step}. "
                "Try a lower learning rate, or clip the gradients."
            )
        self.latest[turn.name] = value
        return mean

    def check_gradients(self, turn: Turn[Any, Any]) -> None:
        """Refuse gradients that are not finite; shorten them to the turn's length.

        Where half precision scales the gradients, its scaler looks after infinite ones.
        """
        moved = self.parameters[turn.name]
        if self.by_hand:
            self.processes.average_gradients(moved)
        if getattr(self.fabric.strategy.precision, "scaler", None) is not None:
            for optimizer in turn.optimizers if turn.clip is not None else ():
                self.fabric.clip_gradients(
                    self.module,
                    optimizer,
                    max_norm=turn.clip,
                    error_if_nonfinite=False,
                )
            return
        gradients = [p.grad for p in moved if p.grad is not None]
        gradients = [g.coalesce().values() if g.is_sparse else g for g in gradients]
        if turn.clip is None and _surely_finite(gradients):
            return
        length = get_total_norm(gradients)
        if not isfinite(length.item()):  # or only too long for their dtype
            length = get_total_norm([g.double() for g in gradients])
        if not isfinite(length.item()):
            raise TrainingDivergedError(
                f"training diverged: the length of the gradient is {length.item()} at"
                f" step {self.step}, though the loss is finite. Look for a root or a"
                " logarithm at 0 in the loss, or try a lower learning rate."
            )
        if turn.clip is not None:
            clip_grads_with_norm_(moved, turn.clip, length)


def _surely_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether the sum of all numbers is finite: then all are, and it is cheap."""
    return isfinite(float(sum(x.detach().sum() for x in tensors)))


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
        processes: Processes,
    ) -> None:
        self.model, self.history = model, history
        self.shown = model if average is None else average.module
        self.measure, self.steps_per_epoch, self.keep = measure, steps_per_epoch, keep
        self.watch, self.processes = _TailWatch(), processes

    def __call__(self, step: int, *, last: bool = False) -> None:
        epochs, rest = divmod(step, self.steps_per_epoch)
        if last or not rest:
            self.processes.even_out(self.model, self.shown)
        if not rest and epochs in self.keep:
            weights = self.shown.state_dict()
            self.history.snapshots[epochs] = {k: v.clone() for k, v in weights.items()}
        if self.measure and (last or not rest):
            self._measure(self.measure, step, last)

    def _measure(self, measure: Measure[Any], step: int, last: bool) -> None:
        """Add the held-out quantities' means to the history; watch the first's tail."""
        self.shown.eval()
        with torch.no_grad(), own_randomness(MEASURE_SEED):
            quantities = _checked_quantities(measure(self.shown))
        self.shown.train()
        self.history.step.append(step)
        for name, values in quantities.items():
            mean = float(values.double().mean())
            self.history.measured.setdefault(name, []).append(mean)
        self.watch.check(*next(iter(quantities.items())), step, last)

    def finish(self) -> None:
        """Leave the averaged weights in the model, if there are any."""
        if self.shown is not self.model:
            self.model.load_state_dict(self.shown.state_dict())


def _checked_quantities(quantities: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What was measured, if it is one value per held-out sample of some quantities."""
    if not isinstance(quantities, Mapping) or not quantities:
        raise TypeError(
            f"measure must return a dict of tensors (N,), got {quantities!r}"
        )
    for name, values in quantities.items():
        if not isinstance(values, Tensor) or values.ndim != 1 or not len(values):
            got = tuple(values.shape) if isinstance(values, Tensor) else repr(values)
            raise TypeError(
                f"measure must return a tensor (N,), N ≥ 1, for {name!r}, got {got}"
            )
    return quantities


def check_average(model: nn.Module) -> None:
    """Refuse weights in which an average over time would be lost.

    Raises:
        ValueError: half precision, where θ̄ + (1−β)·(θ − θ̄) rounds to θ̄.
    """
    for name, weight in model.named_parameters():
        if weight.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                "ema needs weights of at least float32, as bf16-mixed keeps them, got"
                f" {name!r} of {weight.dtype}"
            )


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Torch's random numbers start at ``seed`` inside, go on undisturbed outside.

    Those of the CPU and of CUDA; on other devices they just go on.
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.default_generator.manual_seed(seed)
        torch.cuda.manual_seed_all(seed)
        yield


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    """An iterator as it is; a collection starts again when it ends."""
    if isinstance(batches, Tensor | np.ndarray | tuple | Mapping) or not isinstance(
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
