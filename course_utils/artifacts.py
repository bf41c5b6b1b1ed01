"""One cache of trained models, and checkpoints that cannot run code.

A model that another chapter, or a second run, needs again is trained once::

    vae, history = trained("vae", partial(conv_vae, latent=2), train_vae, data=mnist)

The key of the cache is made of the arguments, the version of torch, the weights'
shapes, and the source of the modules of this package that define what is passed in
(``build``, ``train``, and the functions, classes and objects among the arguments and
settings) and of every module of it that they import, directly or through others.

Comments, docstrings and layout do not count. Import statements count wherever they
stand. A package's ``__init__`` counts only where a statement names the package, as in
``from course_utils.data import Spiral``; it also runs for a module of the package, as
in ``from course_utils.data.spiral import Spiral``, but all that it does is import. The
source is that of the moment when this module was imported: after a change, restart the
kernel.

All files are safetensors: a header and raw numbers. Pickles are never read.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import fields, is_dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import safetensors.torch
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from course_utils.cache import VARIABLE, cache_folder
from course_utils.checks import check_count, has_values
from course_utils.training import History, own_randomness

M = TypeVar("M", bound=nn.Module)

FORMAT = 2  # of the files; a part of the key
KEPT = 5  # artefacts of one name, the others are removed
HISTORY = [field.name for field in fields(History)]  # what is kept of one


class CheckpointError(ValueError):
    """A file does not hold the weights of this model."""


# --- the cache ------------------------------------------------------------------------


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
    check_count("seed", seed, least=0)
    facts = _facts(name, seed, build, train, settings)
    with own_randomness(seed), ExitStack() as lock:
        model = build()
        facts["weights"] = {k: _shape(v) for k, v in model.state_dict().items()}
        key = json.dumps(facts, sort_keys=True)
        file = f"{name}-{sha256(key.encode()).hexdigest()[:16]}.safetensors"
        path = cache_folder("models") / file
        history = _load(model, path, key)
        if history is None:
            with suppress(OSError):  # where no lock can be had, it works without
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.enter_context(FileLock(f"{path}.lock"))
                lock.callback(_remove, Path(f"{path}.lock"))
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


class _File(NamedTuple):
    """What is in a file of safetensors."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def _load(model: nn.Module, path: Path, key: str) -> History | None:
    """Fill the model from the cache; None, and nothing changed, if it is not there."""
    try:
        artefact = _read(path)
        if artefact.metadata.get("key") != key:
            return None
        history = _unpack(artefact, model)
    except (ValueError, KeyError, TypeError, OSError):  # damaged, or not there
        return None
    with suppress(OSError):
        os.utime(path)  # was of use: the last to be removed
    return history


def _pack(model: nn.Module, history: History, key: str) -> _File:
    """All of a model and its history."""
    tensors = dict(model.state_dict())
    for epochs, weights in history.snapshots.items():
        tensors |= {f"snapshot/{epochs}/{k}": v for k, v in weights.items()}
    said = {name: getattr(history, name) for name in HISTORY}
    said["snapshots"] = list(history.snapshots)
    return _File(_whole(tensors), {"key": key, "history": json.dumps(said)})


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory: safetensors takes no views."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def _unpack(artefact: _File, model: nn.Module) -> History:
    """Fill the model, return the history.

    Raises:
        CheckpointError: the artefact is of another model, or says something else of
            the training than a history does.
    """
    weights, snapshots = _split(artefact.tensors)
    said = json.loads(artefact.metadata["history"])
    if set(said) != set(HISTORY):
        raise CheckpointError(f"expected a history of {HISTORY}, got {list(said)}")
    said["snapshots"] = {k: snapshots.get(k, {}) for k in said["snapshots"]}
    _fill(model, weights, "training must not change what weights the model has")
    return History(**said)


def _split(
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


def _store(artefact: _File, path: Path, name: str) -> None:
    """Keep an artefact, remove the oldest of its name; warn if that is not possible."""
    try:
        _write(path, *artefact)
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
            _remove(old)


def _remove(path: Path) -> None:
    """Remove a file if possible."""
    with suppress(OSError):
        path.unlink()


def _used(path: Path) -> float:
    """When an artefact was last of use; 0 if another process has removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


# --- checkpoints ----------------------------------------------------------------------


def save_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights to a file, as a whole or not at all."""
    _write(Path(path), _whole(model.state_dict()), {})


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Read a model's weights from a file; left as it is if they are not its own.

    Raises:
        CheckpointError: not an intact file of safetensors, or another model's.
        FileNotFoundError: there is no such file.
    """
    weights, _ = _split(_read(Path(path)).tensors)
    _fill(model, weights, f"{path} is not a checkpoint of this {type(model).__name__}")


def _fill(model: nn.Module, weights: Mapping[str, Tensor], problem: str) -> None:
    """Copy the weights into the model, if they are its own."""
    expected = model.state_dict()
    wrong = [f"missing {name}" for name in expected if name not in weights]
    wrong += [f"unexpected {name}" for name in weights if name not in expected]
    for name in filter(weights.__contains__, expected):
        want, got = _shape(expected[name]), _shape(weights[name])
        if want != got:
            wrong.append(f"{name}: expected {want}, got {got}")
    if wrong:
        raise CheckpointError("\n  ".join([f"{problem}:", *wrong]))
    model.load_state_dict(weights)


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file of safetensors, as a whole or not at all."""
    digest = _digest(tensors, metadata)
    content = safetensors.torch.save(dict(tensors), {**metadata, "sha256": digest})
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _read(path: Path) -> _File:
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
    digest = metadata.pop("sha256", None)
    if digest not in (None, _digest(tensors, metadata)):
        raise CheckpointError(f"{path} is damaged: expected SHA-256 {digest}")
    return _File(tensors, metadata)


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of what a file holds."""
    digest = sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}: {_shape(tensor)}".encode())
        digest.update(_content(tensor))
    return digest.hexdigest()


def _content(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's values."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.flatten().view(torch.uint8).numpy().data


# --- the key --------------------------------------------------------------------------


def _facts(
    name: str,
    seed: int,
    build: Callable[[], nn.Module],
    train: Callable[..., History],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """All that the outcome hangs on, before the model is there: JSON to be read."""
    told = _Told()
    return {
        "name": name,
        "seed": seed,
        "torch": str(torch.__version__),
        "build": told.of_code("build", build),
        "train": told.of_code("train", train),
        "settings": {k: told.of(f"setting {k!r}", v) for k, v in settings.items()},
        "code": _code(told.modules),
        "format": FORMAT,
    }


class _Told:
    """What the key says of values.

    Each is told as JSON that differs if the value does: as it is, or as an object that
    says of which kind it is. ``where`` says for the reader which value it is.

    Attributes:
        modules: where functions and classes are from that were told of, whether of this
            package or not.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()

    def of(self, where: str, value: Any) -> Any:
        """A value as JSON.

        Raises:
            TypeError: a value that no key can hold.
        """
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.bool_ | np.integer | np.float16 | np.float32):
            return value.item()  # float64 is a float
        if isinstance(value, complex | torch.dtype | torch.device):
            return {type(value).__name__: str(value)}
        if isinstance(value, Tensor | np.ndarray):
            return self._of_array(where, value)
        if callable(value) and hasattr(value, "__qualname__"):
            return {"code": self.of_code(where, value)}
        if isinstance(value, partial):
            return self.of_code(where, value)
        if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
            return {"class": self._of_class(value), "fingerprint": fingerprint}
        if isinstance(value, nn.Module):
            return self._of_network(where, value)
        if (attributes := _attributes(value)) is not None:
            return self._of_object(where, value, attributes)
        if isinstance(value, list | tuple):
            return [self.of(f"{where}[{i}]", item) for i, item in enumerate(value)]
        if isinstance(value, Mapping):
            told = [
                (self.of(f"a key of {where}", k), self.of(f"{where}[{k!r}]", v))
                for k, v in value.items()
            ]
            return {"dict": told}
        raise _refusal(where, value)

    def of_code(self, where: str, item: Any) -> Any:
        """The name of a function or class; of a partial one the arguments, too.

        Raises:
            TypeError: it is not of a module of this package, or not at its top.
        """
        if isinstance(item, partial):
            given = {str(i): value for i, value in enumerate(item.args)} | item.keywords
            return {
                "partial": self.of_code(where, item.func),
                "arguments": {
                    k: self.of(f"argument {k!r} of {where}", v)
                    for k, v in given.items()
                },
            }
        module = getattr(item, "__module__", None)
        name = getattr(item, "__qualname__", "")
        found = getattr(sys.modules.get(module), name, None) if module else None
        if module not in SOURCES or found is not item:
            got = f"{module}.{name}" if name else repr(item)
            raise TypeError(
                f"{where} must be a function or class that stands at the top of a "
                f"module of course_utils, for the key is made of its source, got {got}:"
                " put it into such a module, or train without the cache"
            )
        self.modules.add(module)
        return f"{module}.{name}"

    def _of_class(self, value: Any) -> str:
        """The name of an object's class."""
        kind = type(value)
        self.modules |= {base.__module__ for base in kind.__mro__}
        return f"{kind.__module__}.{kind.__qualname__}"

    def _of_object(self, where: str, value: Any, attributes: Mapping[str, Any]) -> Any:
        """Class and attributes.

        Raises:
            TypeError: a class of another place than this package.
        """
        self.of_code(f"the class of {where}", type(value))
        told = {name: self.of(f"{where}.{name}", x) for name, x in attributes.items()}
        return {"class": self._of_class(value), "attributes": told}

    def _of_array(self, where: str, value: Tensor | np.ndarray) -> dict[str, str]:
        """Dtype, shape and content."""
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                raise _refusal(where, value, "with objects in it")
            said, content = f"{value.dtype} {value.shape}", value.tobytes()
            return {"array": f"{said} {sha256(content).hexdigest()}"}
        if value.layout != torch.strided or not has_values(value):
            raise _refusal(where, value, "that is sparse or has no values")
        return {"tensor": f"{_shape(value)} {sha256(_content(value)).hexdigest()}"}

    def _of_network(self, where: str, network: nn.Module) -> dict[str, Any]:
        """Each part's class and what can be told of its attributes; the weights.

        The mode, of training or evaluation, does not count.

        Raises:
            TypeError: a class of a notebook, whose source is not in the key.
        """
        parts = {}
        for name, part in network.named_modules():
            if type(part).__module__ == "__main__":
                self.of_code(f"the class of {where}", type(part))
            told = {}
            for attribute, value in vars(part).items():
                if not attribute.startswith("_") and attribute != "training":
                    with suppress(TypeError):
                        told[attribute] = self.of(where, value)
            parts[name] = {"class": self._of_class(part), "attributes": told}
        weights = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        return {"parts": parts, "weights": _digest(weights, {})}


def _attributes(value: Any) -> Mapping[str, Any] | None:
    """All that an object consists of; None if that cannot be said.

    It is what the fields say of a dataclass or a named tuple, and of another object of
    this package, which is not a collection, all its attributes.
    """
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if type(value).__module__ in SOURCES and not isinstance(value, Collection):
        return getattr(value, "__dict__", None)
    return None


def _refusal(where: str, value: Any, which: str = "") -> TypeError:
    """Why there can be no key."""
    got = f"{type(value).__name__} {which}".strip()
    if isinstance(value, torch.Generator | np.random.Generator):
        return TypeError(
            f"{where} must be the same whenever the key is made, got a {got}, whose "
            "state changes while it is used: give a seed instead"
        )
    return TypeError(
        f"{where} must be None, a number, text, a tensor, an array, a network, have a "
        "text fingerprint, be an object, function or class of course_utils, a dtype or "
        f"device of torch, or a list, tuple or dict of these, got {got}"
    )


def _sources(folder: Path) -> dict[str, str]:
    """Name → source, for all modules of the package in a folder."""
    found = {}
    for path in folder.rglob("*.py"):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


SOURCES = _sources(Path(__file__).parent)  # now: later changes are not what runs


def _code(modules: Iterable[str]) -> dict[str, str]:
    """Name → digest of these modules and all that they import; of this package alone.

    The cache itself is left out: it changes no outcome.
    """
    found: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in SOURCES and name not in found and name != __name__:
            found[name], imported = _parsed(name, SOURCES[name])
            todo += imported
    return found


@cache
def _parsed(name: str, source: str) -> tuple[str, list[str]]:
    """A module's digest, and what it may import."""
    tree = ast.parse(source)
    return _tree_digest(tree), list(_imports(tree, package=name.rpartition(".")[0]))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of what import statements name, among them all that may be modules."""
    for node in ast.walk(tree):
        named = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            named = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in named:
            yield from (name, f"{name}.__init__")


def _tree_digest(tree: ast.AST) -> str:
    """SHA-256 of what code says, without comments, docstrings and layout."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
