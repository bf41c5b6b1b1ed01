"""Several processes that train one model: each takes its share of every batch.

The *global batch* of a step is all that the processes work on together. Where all of
them are given the same batch, because their data are seeded alike, that is the global
batch, and process r of W takes the samples r, r + W, r + 2W, …  Where they are given
batches of their own, as a ``DistributedSampler`` makes them, these are the shares. In
both cases the step is the one that a single process takes on the global batch. Batch
normalization is the exception: it sees a share alone, as it would a smaller batch.
"""

from __future__ import annotations

import signal
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_utils.checkpoints import content_of

_FAR = 1_000_003  # from one process's seed to the next


class Processes:
    """The processes of a training, seen from one of them.

    Args:
        fabric: the engine, which knows how many there are.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.rank, self.count = fabric.global_rank, fabric.world_size
        self.weight = 1.0  # of this share's mean loss in the mean over processes
        self.stopped = False  # whether the user has pressed Ctrl-C

    def share(self, batch: Any, there: bool = True) -> tuple[Any, bool]:
        """This process's share of the global batch, and whether there is one.

        Args:
            batch: what this process was given,
            there: unless its batches have ended; then they have ended for all.

        Raises:
            KeyboardInterrupt: the user has stopped one of the processes.
        """
        if self.count == 1:
            return batch, there
        size = (batch_size(batch) or 0) if there else 0
        mine = [int(there), int(self.stopped), size, _digest(batch) if there else 0]
        gathered: Any = self.fabric.all_gather(
            self.fabric.to_device(torch.tensor(mine))
        )
        every = gathered.T.tolist()  # one row for each of the four
        if any(every[1]):
            raise KeyboardInterrupt
        if not all(every[0]):
            return None, False
        sizes = every[2]
        if len(set(every[3])) == 1 and size >= self.count:  # the same for all
            batch = _rows(batch, size, slice(self.rank, None, self.count))
            sizes = [len(range(rank, size, self.count)) for rank in range(self.count)]
        if all(sizes):
            self.weight = sizes[self.rank] * self.count / sum(sizes)
        return batch, True

    @contextmanager
    def stopped_together(self) -> Iterator[None]:
        """Ctrl-C in one process ends the training of all, after the same step."""
        main = threading.current_thread() is threading.main_thread()
        if self.count == 1 or not main:
            yield
            return

        def note(*_: object) -> None:
            self.stopped = True

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def told_of_errors(self) -> Iterator[None]:
        """An error inside is the loss NaN for the others, who wait for this loss."""
        try:
            yield
        except Exception:
            self.mean(self.fabric.to_device(torch.tensor(float("nan"))))
            raise

    def noise(self) -> torch.Generator:
        """This process's own source of noise, another one in each training."""
        if self.count == 1:
            return torch.default_generator
        seed = int(torch.randint(2**31, ()))
        shared = torch.Generator().manual_seed(seed)
        return own_generator(shared, self.fabric)

    def even_out(self, *models: nn.Module) -> None:
        """Give the buffers their mean: each process's are those of its shares."""
        if self.count == 1:
            return
        buffers = [buffer for model in models for buffer in model.buffers()]
        for buffer in {id(buffer): buffer for buffer in buffers}.values():
            if buffer.is_floating_point():
                buffer.copy_(self.mean(buffer))

    def weighted(self, mean: Tensor) -> Tensor:
        """A share's mean loss, so weighted that its mean over processes is the global.

        Shares of a batch that does not divide evenly differ by one sample.
        """
        return mean if self.weight == 1 else mean * self.weight

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over the processes."""
        if self.count == 1:
            return value
        total = self.fabric.all_reduce(value.detach(), reduce_op="mean")
        assert isinstance(total, Tensor)
        return total

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Give every process the mean gradient, where the engine has not done so."""
        for parameter in parameters:
            gradient = parameter.grad
            sparse = gradient is not None and gradient.is_sparse
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            mean = self.mean(gradient.to_dense() if sparse else gradient)
            if parameter.grad is not None or mean.any():
                parameter.grad = mean.to_sparse(1) if sparse else mean


def own_generator(shared: torch.Generator, fabric: Fabric | None) -> torch.Generator:
    """A process's own source of noise; ``shared`` itself where there is one process.

    Data that all processes draw alike are shared out; noise drawn alike would be the
    same in every share.
    """
    if fabric is None or fabric.world_size == 1:
        return shared
    seed = shared.initial_seed() + _FAR * (fabric.global_rank + 1)
    return torch.Generator(shared.device).manual_seed(seed)


def batch_size(batch: Any) -> int | None:
    """How many samples a batch holds, where its form tells."""
    while isinstance(batch, tuple | list | Mapping) and batch:
        batch = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
    holds = isinstance(batch, Tensor | np.ndarray) and batch.ndim
    return len(batch) if holds else None


def _rows(batch: Any, size: int, rows: slice) -> Any:
    """Some samples of a batch; what is not one value for each sample stays whole."""
    if isinstance(batch, Tensor | np.ndarray):
        return batch[rows] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {name: _rows(part, size, rows) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [_rows(part, size, rows) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch


def _digest(batch: Any, start: int = 0) -> int:
    """A checksum of all numbers of a batch."""
    if isinstance(batch, np.ndarray) and batch.dtype != object:
        return zlib.crc32(np.ascontiguousarray(batch).tobytes(), start)
    if isinstance(batch, Tensor):
        return zlib.crc32(content_of(batch), start)
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, tuple | list):
        for part in batch:
            start = _digest(part, start)
    return start
