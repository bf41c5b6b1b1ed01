"""The key of the cache of trained models: all that a training hangs on.

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
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import packages_distributions, version
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.checkpoints import content_of, describe, digest
from course_utils.checks import has_values

CACHE = {f"course_utils.{part}" for part in ("keys", "artifacts", "checkpoints")}


def facts(
    name: str,
    seed: int,
    build: Callable[[], nn.Module],
    train: Callable[..., Any],
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
        return {"tensor": f"{describe(value)} {sha256(content_of(value)).hexdigest()}"}

    def _of_network(self, where: str, network: nn.Module) -> dict[str, Any]:
        """Each part's class and attributes; the weights, and which of them are frozen.

        The mode, of training or evaluation, does not count: it is for ``train`` to set.

        Raises:
            TypeError: a class whose source is neither in the key nor that of an
                installed library.
        """
        parts = {}
        for name, part in network.named_modules():
            if (library := _library(type(part))) is None:
                self.of_code(f"the class of {where}", type(part))
            told = {}
            for attribute, value in vars(part).items():
                if not attribute.startswith("_") and attribute != "training":
                    try:
                        told[attribute] = self.of(where, value)
                    except TypeError:  # at least what it is called
                        called = getattr(value, "__qualname__", type(value).__name__)
                        told[attribute] = {"called": called}
            kind = self._of_class(part)
            parts[name] = {"class": kind, "library": library, "attributes": told}
        weights = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        frozen = [k for k, v in network.named_parameters() if not v.requires_grad]
        return {"parts": parts, "weights": digest(weights, {}), "frozen": frozen}


def _library(kind: type) -> str | None:
    """The installed library that a class is of, and its version; None for others."""
    for name in _distributions().get(kind.__module__.partition(".")[0], []):
        return f"{name} {version(name)}"
    return None


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Top package → the libraries that bring it; this one is not among them."""
    return {k: v for k, v in packages_distributions().items() if k != "course_utils"}


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


PACKAGE = Path(__file__).parent
SOURCES = _sources(PACKAGE)  # as they were when this module was imported


def _code(modules: Iterable[str]) -> dict[str, str]:
    """Name → digest of these modules and all that they import; of this package alone.

    The cache itself is left out: it changes no outcome.

    Raises:
        RuntimeError: a file has changed since this module was imported, so it is not
            sure what runs.
    """
    found: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in SOURCES and name not in found and name not in CACHE:
            found[name], imported = _parsed(name, SOURCES[name])
            file = PACKAGE.parent / f"{name.replace('.', '/')}.py"
            if file.exists():
                now = _parsed(name, file.read_text(encoding="utf-8"))[0]
                if now != found[name]:
                    raise RuntimeError(
                        f"{name} has changed since its source was read: restart the"
                        " kernel, so that what is trained is what is kept"
                    )
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
