"""Several processes that train one model: each takes its share of every batch.

The *global batch* of a step is all that the processes work on together. Where all of
them are given the same batch, because their data are seeded alike, that is the global
batch, and process r of W takes the samples r, r + W, r + 2W, …  Where they are given
batches of their own, as a ``DistributedSampler`` makes them, these are the shares. In
both cases the step is the one that a single process takes on the global batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

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

    def share(self, batch: Any, there: bool = True) -> tuple[Any, bool]:
        """This process's share of the global batch, and whether there is one.

        Args:
            batch: what this process was given,
            there: unless its batches have ended; then they have ended for all.

        Raises:
            ValueError: fewer samples than processes.
        """
        if self.count == 1:
            return batch, there
        size = batch_size(batch) or 0
        mine = torch.tensor([int(there), size, _digest(batch) if there else 0])
        gathered: Any = self.fabric.all_gather(self.fabric.to_device(mine))  # (W, 3)
        every = gathered.tolist()
        if not all(one for one, _, _ in every):
            return None, False
        sizes = [size for _, size, _ in every]
        if len({digest for _, _, digest in every}) == 1:  # the same for all
            if size < self.count:
                raise ValueError(
                    f"a batch must hold a sample for each of {self.count} processes,"
                    f" got {size}"
                )
            batch = _rows(batch, size, slice(self.rank, None, self.count))
            sizes = [len(range(rank, size, self.count)) for rank in range(self.count)]
        if all(sizes):
            self.weight = sizes[self.rank] * self.count / sum(sizes)
        return batch, True

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
    while isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    return len(batch) if isinstance(batch, Tensor) and batch.ndim else None


def _rows(batch: Any, size: int, rows: slice) -> Any:
    """Some samples of a batch; what is not one value for each sample stays whole."""
    if isinstance(batch, Tensor):
        return batch[rows] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, Mapping):
        return {name: _rows(part, size, rows) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_rows(part, size, rows) for part in batch)
    return batch


def _digest(batch: Any, start: int = 0) -> int:
    """A checksum of all numbers of a batch."""
    if isinstance(batch, Tensor):
        return zlib.crc32(content_of(batch.detach()), start)
    if isinstance(batch, Mapping):
        batch = [part for _, part in sorted(batch.items())]
    if isinstance(batch, tuple | list):
        for part in batch:
            start = _digest(part, start)
    return start
