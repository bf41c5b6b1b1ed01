"""One cache of trained models.

A model that another chapter, or a second run, needs again is trained once::

    vae, history = trained("vae", partial(conv_vae, latent=2), train_vae, data=mnist)

Everything that the outcome hangs on is the key under which it is kept
(``course_utils/keys.py`` has the rule); the files are checkpoints
(``course_utils/checkpoints.py``).
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from course_utils.cache import VARIABLE, cache_folder, locked, remove
from course_utils.checkpoints import (
    CheckpointError,
    File,
    describe,
    fill,
    read,
    split_snapshots,
    whole,
    write,
)
from course_utils.checks import check_count
from course_utils.keys import facts
from course_utils.training.history import History
from course_utils.training.run import own_randomness

M = TypeVar("M", bound=nn.Module)

FORMAT = 2  # of the files; a part of the key
KEPT = 5  # artefacts of one name, the others are removed
HISTORY = [field.name for field in fields(History)]  # what is kept of one


def trained(
    name: str,
    build: Callable[[], M],
    train: Callable[..., History],
    *,
    seed: int = 0,
    **settings: Any,
) -> tuple[M, History]:
    """The model that ``train(build(), **settings)`` makes, and the history.

    From the cache if it was made before, by this process or another. Both ways give
    the same: a new model in eval mode, with the weights that training left. Torch's
    random numbers start at ``seed`` here and go on undisturbed outside.

    An interrupted training is returned, but not kept.

    Args:
        name: what the artefact is called: letters, digits, ``.``, ``_`` and ``-``.
        build: a class or function at the top of a module of this package, or a
            ``functools.partial`` of one.
        train: another such function, which trains the model in place.
        seed: of torch's random numbers, for building and training.
        settings: what else ``train`` takes: None, numbers, text; tensors and arrays;
            whatever has a text ``fingerprint``, as data sets do; networks; objects,
            functions and classes of this package; dtypes and devices of torch; and
            lists, tuples and dicts of all these.

    Raises:
        TypeError: functions or settings of which the key cannot be made.
        ValueError: an unsuitable name, or a seed below 0.
        CacheError: the cache is a file.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(
            f"name must consist of letters, digits, '.', '_' and '-', got {name!r}"
        )
    seed = check_count("seed", seed, least=0)
    told = {"format": FORMAT, **facts(name, seed, build, train, settings)}
    with own_randomness(seed), ExitStack() as lock:
        model = build()
        told["weights"] = {k: describe(v) for k, v in model.state_dict().items()}
        key = json.dumps(told, sort_keys=True)
        file = f"{name}-{sha256(key.encode()).hexdigest()[:16]}.safetensors"
        path = cache_folder("models") / file
        history = _load(model, path, key)
        if history is None:
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
            if lock.enter_context(locked(Path(f"{path}.lock"))):
                history = _load(model, path, key)
        if history is None:
            history = train(model, **settings)
            if not isinstance(history, History):
                got = type(history).__name__
                raise TypeError(f"train must return a History, got {got}")
            if not history.interrupted:
                artefact = _pack(model, history, key)
                _store(artefact, path, name)
                torch.manual_seed(seed)
                model = build()
                history = _unpack(artefact, model)
    return model.eval(), history


def _load(model: nn.Module, path: Path, key: str) -> History | None:
    """Fill the model from the cache; None, and nothing changed, if it is not there."""
    try:
        artefact = read(path)
        if artefact.metadata.get("key") != key:
            return None
        history = _unpack(artefact, model)
    except (ValueError, KeyError, TypeError, OSError):  # damaged, or not there
        return None
    with suppress(OSError):
        os.utime(path)  # was of use: the last to be removed
    return history


def _pack(model: nn.Module, history: History, key: str) -> File:
    """All of a model and its history."""
    tensors = dict(model.state_dict())
    for epochs, weights in history.snapshots.items():
        tensors |= {f"snapshot/{epochs}/{k}": v for k, v in weights.items()}
    said = {name: getattr(history, name) for name in HISTORY}
    said["snapshots"] = list(history.snapshots)
    return File(whole(tensors), {"key": key, "history": json.dumps(said)})


def _unpack(artefact: File, model: nn.Module) -> History:
    """Fill the model, return the history.

    Raises:
        CheckpointError: the artefact is of another model, or says something else of
            the training than a history does.
    """
    weights, snapshots = split_snapshots(artefact.tensors)
    said = json.loads(artefact.metadata["history"])
    if set(said) != set(HISTORY):
        raise CheckpointError(f"expected a history of {HISTORY}, got {list(said)}")
    said["snapshots"] = {k: snapshots.get(k, {}) for k in said["snapshots"]}
    fill(model, weights, "training must not change what weights the model has")
    return History(**said)


def _store(artefact: File, path: Path, name: str) -> None:
    """Keep an artefact, remove the oldest of its name; warn if that is not possible."""
    try:
        write(path, *artefact)
    except OSError as error:
        warnings.warn(
            f"the trained model {name!r} could not be kept in {path.parent} ({error}): "
            f"it will be trained anew each time. Let the variable {VARIABLE} name a "
            "folder that can be written to.",
            stacklevel=3,
        )
        return
    with suppress(OSError):
        mine = path.parent.glob(f"{name}-{'[0-9a-f]' * 16}.safetensors")
        for old in sorted(mine, key=_used)[:-KEPT]:
            remove(old)


def _used(path: Path) -> float:
    """When an artefact was last of use; 0 if another process has removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
