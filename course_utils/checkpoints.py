"""Checkpoints that cannot run code: files of safetensors, a header and raw numbers.

A file is written as a whole or not at all, and knows the SHA-256 of what it holds.
Pickles are never read.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A file does not hold the weights of this model."""


class File(NamedTuple):
    """What is in a file of safetensors."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def save_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights to a file, as a whole or not at all."""
    write(Path(path), whole(model.state_dict()), {})


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Read a model's weights from a file; left as it is if they are not its own.

    Raises:
        CheckpointError: not an intact file of safetensors, or another model's.
        FileNotFoundError: there is no such file.
    """
    weights, _ = split_snapshots(read(Path(path)).tensors)
    fill(model, weights, f"{path} is not a checkpoint of this {type(model).__name__}")


def fill(model: nn.Module, weights: Mapping[str, Tensor], problem: str) -> None:
    """Copy the weights into the model, if they are its own."""
    expected = model.state_dict()
    wrong = [f"missing {name}" for name in expected if name not in weights]
    wrong += [f"unexpected {name}" for name in weights if name not in expected]
    for name in filter(weights.__contains__, expected):
        want, got = describe(expected[name]), describe(weights[name])
        if want != got:
            wrong.append(f"{name}: expected {want}, got {got}")
    if wrong:
        raise CheckpointError("\n  ".join([f"{problem}:", *wrong]))
    model.load_state_dict(weights)


def describe(tensor: Tensor) -> str:
    """Dtype and shape, as in ``float32 (3, 2)``."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file of safetensors, as a whole or not at all."""
    said = {**metadata, "sha256": digest(tensors, metadata)}
    content = safetensors.torch.save(dict(tensors), said)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read(path: Path) -> File:
    """Read a file of safetensors, and nothing else.

    Raises:
        CheckpointError: another kind of file, or a damaged one.
        FileNotFoundError: there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"expected a file of safetensors, got {path}, which is another or a "
            f"damaged one ({error}). Pickles (.pt, .pth, .ckpt) are never loaded: "
            "they could run any code"
        ) from error
    said = metadata.pop("sha256", None)
    if said not in (None, digest(tensors, metadata)):
        raise CheckpointError(f"{path} is damaged: expected SHA-256 {said}")
    return File(tensors, metadata)


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of what a file holds."""
    found = sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}: {describe(tensor)}".encode())
        found.update(content_of(tensor))
    return found.hexdigest()


def content_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's values."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.flatten().view(torch.uint8).numpy().data


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory: safetensors takes no views."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def split_snapshots(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """The weights, and the snapshots of them."""
    weights: dict[str, Tensor] = {}
    snapshots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"snapshot/(\d+)/(.*)", name):
            snapshots.setdefault(int(match[1]), {})[match[2]] = tensor
        else:
            weights[name] = tensor
    return weights, snapshots
