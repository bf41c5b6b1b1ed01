"""One cache of trained models, and checkpoints that cannot run code.

A model that another chapter, or a second run, needs again is trained once::

    vae, history = trained("vae", partial(VAE, latent=2), train_vae, data=mnist)

The key of the cache says all that the outcome hangs on: the arguments, the version of
torch, the architecture, and the code of this package's modules that make and train the
model and of those that they import, without comments and docstrings. It is the code as
it was when this module was imported: after a change, restart the kernel.

All files are safetensors: a header and raw numbers. Pickles are never read.
"""

from __future__ import annotations

import ast
import dis
import inspect
import json
import linecache
import os
import re
import sys
import textwrap
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import cache, partial
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple, TypeVar

import safetensors.torch
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from course_utils.checks import check_count
from course_utils.data.download import VARIABLE, cache_folder
from course_utils.training import History

M = TypeVar("M", bound=nn.Module)

FORMAT = 1  # of the files; a part of the key
KEPT = 5  # artefacts of one name, the others are removed


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
        build: a class or function, or a ``functools.partial`` of one.
        train: a function that trains the model in place.
        seed: of torch's random numbers, for building and training.
        settings: what else ``train`` takes: numbers, text, None, lists and dicts of
            these, and whatever has a ``fingerprint``, as data sets do.

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
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), ExitStack() as lock:
        torch.manual_seed(seed)
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
    facts = {**vars(history), "snapshots": list(history.snapshots)}
    return _File(_whole(tensors), {"key": key, "history": json.dumps(facts)})


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory: safetensors takes no views."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def _unpack(artefact: _File, model: nn.Module) -> History:
    """Fill the model, return the history.

    Raises:
        CheckpointError: the artefact is of another model.
    """
    weights, snapshots = _split(artefact.tensors)
    history = History(**json.loads(artefact.metadata["history"]))
    history.snapshots = {k: snapshots.get(k, {}) for k in history.snapshots}
    _fill(model, weights, "training must not change what weights the model has")
    return history


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
    mine = path.parent.glob(f"{name}-{'[0-9a-f]' * 16}.safetensors")
    for old in sorted(mine, key=_used)[:-KEPT]:
        _remove(old)


def _remove(path: Path) -> None:
    """Remove a file if possible."""
    with suppress(OSError):
        path.unlink()


def _used(path: Path) -> float:
    """When an artefact was last of use, if it is still there."""
    return path.stat().st_mtime if path.exists() else 0.0


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
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# --- the key --------------------------------------------------------------------------


def _facts(
    name: str,
    seed: int,
    build: Callable[[], nn.Module],
    train: Callable[..., History],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """All that the outcome hangs on, before the model is there: JSON to be read."""
    made: Any = build
    arguments: dict[str, Any] = {}
    if isinstance(build, partial):
        made = build.func
        arguments = {str(i): value for i, value in enumerate(build.args)}
        arguments |= build.keywords
    if not (inspect.isclass(made) or inspect.isfunction(made)):
        raise TypeError(
            "build must be a class or a function, or a functools.partial of one, "
            f"got {made!r}"
        )
    if not inspect.isfunction(train):
        raise TypeError(f"train must be a function, got {train!r}")
    return {
        "name": name,
        "seed": seed,
        "torch": str(torch.__version__),
        "build": _full_name(made),
        "arguments": _plain("argument of build", arguments),
        "train": _full_name(train),
        "settings": _plain("setting", settings),
        "code": _code(made, train),
        "format": FORMAT,
    }


def _full_name(item: Any) -> str:
    return f"{item.__module__}.{item.__qualname__}"


def _check_visible(item: Any) -> None:
    """Refuse a function, or a class with one, that has variables of its own.

    Raises:
        TypeError: a lambda, or what refers to variables of a function around it.
    """
    parts = [item]
    if inspect.isclass(item):
        parts = list(vars(item).values()) if "<locals>" in item.__qualname__ else []
    hidden: set[str] = set()
    for part in filter(inspect.isfunction, parts):
        hidden |= set(part.__code__.co_freevars) - {"__class__"}
    if hidden or item.__name__ == "<lambda>":
        raise TypeError(
            "expected classes and functions that stand in a module or a cell, for the "
            f"key of the cache, got {_full_name(item)}"
            + (f", which hides {', '.join(sorted(hidden))}" if hidden else "")
        )


def _plain(where: str, value: Any) -> Any:
    """A value as JSON; a data set as its fingerprint.

    Raises:
        TypeError: a value that JSON does not know.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(f"{where} {i}", item) for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(f"{where} {name!r}", x) for name, x in value.items()}
    if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
        return {"fingerprint": fingerprint}
    raise TypeError(
        f"{where} must be a number, text, None, a list or dict of these, or have a "
        f"text fingerprint, got {type(value).__name__}"
    )


class _Module(NamedTuple):
    """The source of a module."""

    text: str
    package: str  # relative imports start here


def _sources(folder: Path) -> dict[str, _Module]:
    """Name → module, for all modules of the package in a folder."""
    found = {}
    for path in folder.rglob("*.py"):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        package = name.rpartition(".")[0]
        if path.stem == "__init__":
            name = package
        found[name] = _Module(path.read_text(encoding="utf-8"), package)
    return found


SOURCES = _sources(Path(__file__).parent)  # now: later changes are not what runs


def _code(*items: Any) -> dict[str, str]:
    """Name → digest of all the code that classes or functions hang on.

    That is each module of this package that they are in or refer to, and what it
    imports. Of a notebook's cell, or a module elsewhere, it is what they refer to.

    Raises:
        TypeError: what they refer to cannot be seen.
    """
    found: dict[str, str] = {}
    modules: list[str] = []
    todo = list(items)
    while todo:
        item = todo.pop()
        _check_visible(item)
        if item.__module__ in SOURCES:
            modules.append(item.__module__)
        elif (name := _full_name(item)) not in found:
            tree = _tree(item)
            scope = vars(sys.modules[item.__module__])
            for used in _globals(tree) & scope.keys():
                value = scope[used]
                if inspect.ismodule(value):
                    modules.append(value.__name__)
                elif inspect.isclass(value) or inspect.isfunction(value):
                    if value.__module__ in {item.__module__, *SOURCES}:
                        todo.append(value)
                elif not _is_fixed(value):
                    known = _plain(f"{used}, to which {name} refers,", value)
                    found[f"{item.__module__}.{used}"] = json.dumps(known)
            found[name] = _tree_digest(tree)
    while modules:
        name = modules.pop()
        if name in SOURCES and name not in found and name != __name__:
            found[name], imports = _parsed(SOURCES[name])
            modules += [name.rpartition(".")[0], *imports]
    return found


def _is_fixed(value: Any) -> bool:
    """Whether a global is a part of Python or a library, such as ``math.sin``."""
    return inspect.isbuiltin(value) or type(value).__module__ == "typing"


@cache
def _parsed(module: _Module) -> tuple[str, list[str]]:
    """A module's digest, and what it may import."""
    tree = ast.parse(module.text)
    return _tree_digest(tree), list(_imports(tree, module.package))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of what is imported, among them all that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _tree(item: Any) -> ast.Module:
    """The source of a class or function.

    Raises:
        TypeError: it has none.
    """
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(item)))
    except (OSError, TypeError) as error:  # as Python does for classes of a notebook
        methods = filter(inspect.isfunction, vars(item).values())
        for file in {method.__code__.co_filename for method in methods}:
            cell = ast.parse("".join(linecache.getlines(file)))
            for node in reversed(cell.body):
                if isinstance(node, ast.ClassDef) and node.name == item.__qualname__:
                    return ast.Module([node], [])
        raise TypeError(
            f"{_full_name(item)} must have Python source, for the key: {error}"
        ) from None


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


def _globals(tree: ast.Module) -> set[str]:
    """Names that code looks up outside itself when it runs, annotations aside."""
    flag = annotations.compiler_flag  # they are never evaluated
    todo: list[Any] = [compile(tree, "", "exec", flags=flag, dont_inherit=True)]
    found = set()
    while todo:
        code = todo.pop()
        todo += [c for c in code.co_consts if isinstance(c, CodeType)]
        for step in dis.get_instructions(code):
            if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
                found.add(step.argval)
    return {name for name in found if not name.startswith("__")}
