"""The cache of trained models: what it keeps, when it trains anew, what it refuses."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from course_utils import cache, checkpoints, keys
from course_utils.artifacts import trained
from course_utils.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from course_utils.models.normalizing_flow import affine_flow
from course_utils.training import History, train


class Net(nn.Module):
    """A network with all that a state may hold."""

    def __init__(self, width: int = 3, slope: float = 1.0) -> None:
        super().__init__()
        self.slope = slope
        self.first = nn.Linear(2, width, bias=False)
        self.norm = nn.BatchNorm1d(width)  # buffers, one of them a single integer
        self.last = nn.Linear(width, 2, bias=False)
        self.register_buffer("empty", torch.zeros(0, 2))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


class Calls:
    """How often a model was trained."""

    count = 0


def squared(model: nn.Module, x: Tensor) -> Tensor:
    return ((model(x) - x) ** 2).sum(1)


def noise() -> Iterator[Tensor]:
    while True:
        yield torch.randn(16, 2)


def learn(model: nn.Module, steps: int = 20, lr: float = 0.01, **_: Any) -> History:
    Calls.count += 1
    held_out = torch.randn(50, 2)
    return train(
        model,
        squared,
        noise(),
        steps,
        lr=lr,
        steps_per_epoch=10,
        keep=[k for k in (0, 1) if 10 * k <= steps],
        measure=lambda model: {"loss": squared(model, held_out)},
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the models in a cache of its own; this module may use it."""
    monkeypatch.setitem(keys.SOURCES, __name__, Path(__file__).read_text())
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Calls, "count", 0)
    return tmp_path / "cache" / "models"


def trainings(call: Callable[[], object]) -> int:
    """How many trainings a call takes."""
    before = Calls.count
    call()
    return Calls.count - before


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


# --- hits and misses ------------------------------------------------------------------


def test_the_second_time_gives_the_same_without_training(folder: Path) -> None:
    first, made = trained("net", Net, learn, steps=20)
    second, kept = trained("net", Net, learn, steps=20)
    assert Calls.count == 1
    assert first is not second
    assert same(first.state_dict(), second.state_dict())
    assert not first.training
    assert not second.training
    assert made == kept  # but for the snapshots
    assert len(kept.losses["loss"]) == 20
    assert kept.step == [0, 10, 20]
    assert len(kept.measured["loss"]) == 3
    assert kept.seconds > 0
    assert list(made.snapshots) == list(kept.snapshots) == [0, 1]
    assert all(same(made.snapshots[k], kept.snapshots[k]) for k in (0, 1))
    assert not same(kept.snapshots[0], kept.snapshots[1])
    assert [p.suffix for p in folder.iterdir()] == [".safetensors"]


def test_it_is_what_training_gives_without_the_cache() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        by_hand = Net()
        history = learn(by_hand, 12)
    for _ in range(2):
        model, kept = trained("net", Net, learn, seed=3, steps=12)
        assert same(model.state_dict(), by_hand.state_dict())
        assert kept.loss == history.loss


def odd(model: nn.Module) -> History:
    weights = {"w": torch.tensor(1.5, dtype=torch.float64), "n": torch.tensor([2])}
    return History(
        losses={"critic": [0.1, 1e-300, -0.0, float("inf"), 1 / 3], "": []},
        step=[0, 7],
        measured={"a b": [float("nan")], "": []},
        seconds=1e-9,
        snapshots={12: weights, 3: {}},
    )


def test_history_comes_back_exactly() -> None:
    for _ in range(2):
        _, history = trained("net", Net, odd)
        expected = odd(Net())
        facts = {**vars(expected), "snapshots": None}
        assert repr({**vars(history), "snapshots": None}) == repr(facts)
        assert list(history.snapshots) == [12, 3]
        assert same(history.snapshots[12], expected.snapshots[12])
        assert history.snapshots[3] == {}


@pytest.mark.parametrize("hit", [False, True])
def test_random_numbers_outside_go_on_as_if_nothing_had_been(hit: bool) -> None:
    if hit:
        trained("net", Net, learn)
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    trained("net", Net, learn)
    assert torch.equal(torch.rand(3), undisturbed)


def test_random_numbers_outside_change_nothing_inside(folder: Path) -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model, _ = trained("net", Net, learn)
        states.append(model.state_dict())
        next(folder.iterdir()).unlink()
    assert Calls.count == 2
    assert same(*states)


class Tied(nn.Module):
    """Two names for one weight, a transposed one, and overlapping views of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)
        self.last.weight = self.first.weight
        self.wide = nn.Parameter(torch.randn(4, 3).T)
        whole = torch.arange(5.0)
        self.register_buffer("start", whole[:3])
        self.register_buffer("end", whole[2:])

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


def scale(model: Tied) -> History:
    Calls.count += 1
    with torch.no_grad():
        model.first.weight.mul_(2)
        model.wide.add_(1)
        model.start.mul_(10)  # type: ignore[operator]
    return History()


def test_shared_and_transposed_weights(folder: Path) -> None:
    made, _ = trained("tied", Tied, scale)
    kept, _ = trained("tied", Tied, scale)
    assert Calls.count == 1
    for model in (made, kept):
        assert model.last.weight is model.first.weight
        assert model.start.tolist() == [0, 10, 20]  # type: ignore[operator]
        assert model.end.tolist() == [20, 3, 4]  # type: ignore[operator]
    assert same(made.state_dict(), kept.state_dict())
    assert not torch.equal(made.wide, Tied().wide)
    load_checkpoint(bare := Tied(), artefact(folder))
    save_checkpoint(bare, folder / "tied.safetensors")
    load_checkpoint(again := Tied(), folder / "tied.safetensors")
    assert same(made.state_dict(), again.state_dict())


# --- the key --------------------------------------------------------------------------


class Data:
    """A data set as the cache sees it."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint


BASE: dict[str, Any] = {"name": "net", "build": partial(Net, 3), "train": learn}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"seed": 1},
        {"steps": 3},
        {"lr": 0.02},
        {"train": partial(learn, steps=3)},
        {"build": partial(Net, 4)},
        {"build": partial(Net, 3, 2.0)},
        {"build": partial(Net, 3, slope=2.0)},
        {"build": Net},
    ],
)
def test_each_argument_is_in_the_key(change: dict[str, Any]) -> None:
    def run(change: dict[str, Any]) -> None:
        trained(**{**BASE, "build": partial(Net, 3), **change})

    assert trainings(lambda: run({})) == 1
    assert trainings(lambda: run(change)) == 1
    assert trainings(lambda: run(change)) == 0
    assert trainings(lambda: run({})) == 0


class Part:
    """An object with an attribute, or with none."""

    def __init__(self, **settings: int) -> None:
        vars(self).update(settings)


@dataclass
class Loss:
    """A loss with settings."""

    power: float = 2.0
    target: Callable[..., Any] = squared
    part: Part | None = None


class Pair(NamedTuple):
    """A named tuple."""

    a: int
    b: int = 1


class Encoder(nn.Module):
    """A network with a setting and a table that its state does not hold."""

    def __init__(self, slope: float = 1.0, value: float = 0.0) -> None:
        super().__init__()
        self.slope, self.ignored = slope, object()
        self.layer = nn.Linear(1, 1).requires_grad_(False)
        self.layer.weight.fill_(1)
        self.layer.bias.fill_(0)
        self.register_buffer("table", torch.tensor(value), persistent=False)


ROW, WAVE = torch.arange(6.0), torch.tensor([1 + 1j])
SLOW, FAST = partial(learn, steps=1), partial(learn, steps=2)


@pytest.mark.parametrize(
    ("value", "alike", "others"),
    [
        (None, None, [False, 0, "None", [], {}]),
        (True, np.bool_(True), [False, 1, 1.0, "True"]),
        (3, np.int64(3), [4, 3.0, "3"]),
        (0.5, np.float32(0.5), [-0.5, np.float64(0.25), float("nan")]),
        (float("nan"), float("nan"), [float("inf")]),
        (1 + 2j, 1 + 2j, [2 + 1j, "(1+2j)"]),
        ("text", "text", ["Text"]),
        ([1, ["a"]], (1, ("a",)), [[1, "a"], [1, ["b"]], ["a", [1]]]),
        ({"a": [1]}, {"a": (1,)}, [{"a": 1}, {"b": [1]}, {}, [["a", [1]]]]),
        ({1: "a", 2: "b"}, {1: "a", 2: "b"}, [{"1": "a", "2": "b"}, {2: "b", 1: "a"}]),
        (Data("a"), Data("a"), [Data("b"), "a", {"fingerprint": "a"}]),
        (torch.float32, torch.float, [torch.float64, "torch.float32"]),
        (torch.device("cpu"), torch.device("cpu"), [torch.device("meta"), "cpu"]),
        (ROW, nn.Parameter(ROW.clone()), [-ROW, ROW[:5], ROW.double(), ROW.numpy()]),
        (ROW.view(2, 3).T, ROW.view(2, 3).T.clone(), [ROW.view(3, 2), ROW.view(2, 3)]),
        (WAVE.conj(), torch.tensor([1 - 1j]), [WAVE]),
        (np.ones((2, 1)), np.ones((1, 2)).T, [np.ones(2), np.ones((2, 1), "float32")]),
        (nn.GELU(), nn.GELU().eval(), [nn.ReLU(), nn.GELU("tanh")]),
        (Encoder(), Encoder().eval(), [Encoder(2), Encoder(value=1), Encoder().half()]),
        (Loss(), Loss(2.0), [Loss(3.0), Loss(target=noise), Loss(part=Part())]),
        (Part(), Part(), [Part(a=1), Part(a=2), Part, Loss(), {}]),
        (Pair(1), Pair(1, 1), [Pair(1, 2), (1, 1)]),
        (squared, squared, [noise, Net, SLOW, "test_artifacts.squared"]),
        (SLOW, partial(learn, steps=1), [FAST, learn]),
    ],
)
def test_each_kind_of_setting_counts_by_its_content(
    value: object, alike: object, others: list[object]
) -> None:
    """Also where it stands in others."""

    def run(value: object) -> None:
        trained("net", Net, learn, steps=1, setting={"deep": [value]})

    assert trainings(lambda: run(value)) == 1
    assert trainings(lambda: run(alike)) == 0
    for number, other in enumerate(others):
        assert trainings(lambda: run(other)) == 1, number  # noqa: B023
        assert trainings(lambda: run(other)) == 0, number  # noqa: B023


def test_the_version_of_torch_and_the_architecture_are_in_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run() -> None:
        trained("net", Net, learn, steps=2)

    assert trainings(run) == 1
    assert trainings(run) == 0
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        assert trainings(run) == 1
        assert trainings(run) == 0
    half = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert trainings(run) == 1
    finally:
        torch.set_default_dtype(half)
    assert trainings(run) == 0


PACKAGE = {
    "__init__.py": "",
    "models/__init__.py": "from fakebook.models.net import Net\n",
    "models/net.py": """
        '''A network.'''
        from torch import nn
        from ..layers import layer

        class Net(nn.Module):
            '''It has one layer.'''
            def __init__(self):
                super().__init__()
                self.layer = layer()

        class Twin(Net):
            pass
        """,
    "layers.py": """
        from torch import nn
        from fakebook import sizes
        from fakebook.extra import *

        def layer():
            return nn.Linear(2, sizes.WIDTH)
        """,
    "sizes.py": "WIDTH = 2  # the width\n",
    "extra/__init__.py": "from . import deep\n",
    "extra/deep.py": "DEEP = 1\n",
    "late.py": "LATE = 1\n",
    "hints.py": "HINT = 1\n",
    "recipe.py": """
        from typing import TYPE_CHECKING
        from course_utils.training import History

        if TYPE_CHECKING:
            from fakebook import hints

        def learn(model, note, **settings):
            import fakebook.late
            with open(note, "a") as file:
                file.write("trained\\n")
            return History()

        def learn_twice(model, note):
            learn(model, note)
            return learn(model, note)
        """,
    "losses.py": """
        from dataclasses import dataclass
        import fakebook.powers

        @dataclass
        class Loss:
            power: int = 2
        """,
    "powers.py": "POWER = 1\n",
    "plane.py": "class Plane:\n    pass\n",
    "unused.py": "UNUSED = 1\n",
}


@pytest.fixture
def fakebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the place of ``course_utils``, which does not count meanwhile."""
    root = tmp_path / "fakebook"
    for name, text in PACKAGE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.replace("\n        ", "\n"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(keys, "SOURCES", keys._sources(root))
    yield root
    for name in [n for n in sys.modules if n.partition(".")[0] == "fakebook"]:
        del sys.modules[name]


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_functions_and_classes_of_one_module_are_told_apart(
    fakebook: Path, tmp_path: Path
) -> None:
    nets, recipe = module("fakebook.models.net"), module("fakebook.recipe")
    note = tmp_path / "note"
    for build, learn, count in (
        (nets.Net, recipe.learn, 1),
        (nets.Net, recipe.learn_twice, 3),
        (nets.Twin, recipe.learn, 4),
    ):
        for _ in range(2):
            trained("net", build, learn, note=str(note))
            assert len(note.read_text().splitlines()) == count


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("models/net.py", "layer()", "layer().double()", True),
        ("models/net.py", "It has one layer.", "It has a single layer.", False),
        ("models/net.py", "    def", "\n    # new\n    def", False),
        ("layers.py", "nn.Linear(2, sizes.WIDTH)", "nn.Linear(sizes.WIDTH, 2)", True),
        ("layers.py", "nn.Linear(2, sizes.WIDTH)", "(nn.Linear(2,sizes.WIDTH))", False),
        ("sizes.py", "# the width", "# the width of the layer", False),
        ("sizes.py", "2", "1 + 1", True),
        ("models/__init__.py", "Net\n", "Net as Other\n", False),  # of a parent
        ("__init__.py", "", "import fakebook.late\n", True),  # named by the layers
        ("extra/__init__.py", "deep", "deep as low", True),
        ("extra/deep.py", "1", "2", True),
        ("recipe.py", "trained", "was trained", True),
        ("late.py", "1", "2", True),
        ("hints.py", "1", "2", True),
        ("losses.py", "import fakebook.powers", "POWER = 2", True),
        ("powers.py", "1", "2", True),
        ("plane.py", "pass", "...", True),
        ("unused.py", "1", "2", False),
    ],
)
def test_the_code_is_in_the_key(
    fakebook: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    old: str,
    new: str,
    counts: bool,
) -> None:
    """Of modules of what is passed in, and of all that they import; of no others."""
    note = tmp_path / "note"
    loss = module("fakebook.losses").Loss()
    data = type("Mine", (module("fakebook.plane").Plane,), {"fingerprint": "mine"})()
    build, learn = module("fakebook.models").Net, module("fakebook.recipe").learn

    def run() -> int:
        """Train after a fresh start, and count all trainings so far."""
        monkeypatch.setattr(keys, "SOURCES", keys._sources(fakebook))
        trained("net", build, learn, note=str(note), losses=[loss], data=data)
        return len(note.read_text().splitlines())

    assert run() == 1
    assert run() == 1
    text = (fakebook / file).read_text()
    assert old in text
    (fakebook / file).write_text(text.replace(old, new, 1))
    assert run() == (2 if counts else 1)


def test_the_cache_itself_is_not_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models whose modules import it would be trained anew at each change of it."""
    name = affine_flow.__module__
    importing = "import course_utils.artifacts\n" + keys.SOURCES[name]
    monkeypatch.setitem(keys.SOURCES, name, importing)
    monkeypatch.setattr(keys, "PACKAGE", Path("nowhere/course_utils"))
    code = keys._code([name])
    assert "course_utils.networks.basic" in code
    assert "course_utils.artifacts" not in code


def test_code_that_changed_under_a_running_kernel_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "somebook"
    folder.mkdir()
    (folder / "model.py").write_text("STEPS = 1800\n")
    monkeypatch.setattr(keys, "SOURCES", keys._sources(folder))
    monkeypatch.setattr(keys, "PACKAGE", folder)
    code = keys._code(["somebook.model"])
    (folder / "model.py").write_text("STEPS = 1800  # a comment does no harm\n")
    assert keys._code(["somebook.model"]) == code
    (folder / "model.py").write_text("STEPS = 3\n")
    with pytest.raises(RuntimeError, match=r"somebook\.model has changed.*restart"):
        keys._code(["somebook.model"])


def test_a_package_that_is_imported_only_imports() -> None:
    """So it does not matter that the key leaves a parent's ``__init__`` out."""
    inits = {k: v for k, v in keys.SOURCES.items() if k.endswith(".__init__")}
    assert "course_utils.data.__init__" in inits
    for name, source in inits.items():
        for node in ast.parse(source).body:
            plain = isinstance(node, ast.Import | ast.ImportFrom)
            named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0])
            assert plain or keys._is_text(node) or named == "__all__", name


def test_modules_are_imported_by_statements_alone() -> None:
    """The key would not see other ways."""
    for name, source in keys.SOURCES.items():
        if name.startswith("course_utils"):
            assert "import_module" not in source, name
            assert "__import__" not in source, name


def closure(value: int) -> Callable[..., Any]:
    return lambda *_, **__: value


def in_a_notebook(text: str, name: str) -> Any:
    """What a cell of a notebook defines."""
    notebook = ModuleType("__main__")
    exec(text, vars(notebook))
    return vars(notebook)[name]


@pytest.mark.parametrize(
    ("item", "got"),
    [
        (closure(3), r"test_artifacts\.closure\.<locals>\.<lambda>"),
        (in_a_notebook("def f(): ...", "f"), r"__main__\.f"),
        (in_a_notebook("class C: ...", "C"), r"__main__\.C"),
        (nn.functional.gelu, r"torch\._C\._nn\.gelu"),
        (nn.Linear, r"torch\.nn\.modules\.linear\.Linear"),
        (Net().double, r"torch\.nn\.modules\.module\.Module\.double"),
        (len, r"builtins\.len"),
    ],
)
def test_code_elsewhere_is_refused(item: Any, got: str) -> None:
    why = (
        f"must be a function or class that stands at the top of a module of "
        f"course_utils, .*, got {got}: put it into such a module, or train without"
    )
    with pytest.raises(TypeError, match=f"build {why}"):
        trained("net", item, learn)
    with pytest.raises(TypeError, match=f"build {why}"):
        trained("net", partial(item, 1), learn)
    with pytest.raises(TypeError, match=f"train {why}"):
        trained("net", Net, item)
    with pytest.raises(TypeError, match=rf"setting 'odd'\.target {why}"):
        trained("net", Net, learn, odd=Loss(target=item))
    assert Calls.count == 0


def test_what_cannot_be_called_is_refused() -> None:
    network: Any = Net()
    with pytest.raises(TypeError, match=r"build must be a function .*, got Net\("):
        trained("net", network, learn)
    with pytest.raises(TypeError, match=r"train must be a function .*, got 3:"):
        trained("net", Net, 3)  # type: ignore[arg-type]


OBJECTS = """
from dataclasses import dataclass
from torch import nn
@dataclass
class Record:
    pass
class Network(nn.Module):
    pass
"""


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (torch.zeros(2).to_sparse(), "Tensor that is sparse or has no values"),
        (torch.zeros(2, device="meta"), "Tensor that is sparse or has no values"),
        (np.array([None]), "ndarray with objects in it"),
        ({1, 2}, "set"),
        (noise(), "generator"),
        ({"x": [1, Path("x")]}, r"\w+Path"),
        (type("Odd", (), {"fingerprint": 3})(), r"test_artifacts\.Odd: put it into"),
        (in_a_notebook("class C: ...", "C")(), "C"),
        (Part(a=object()), "object"),  # type: ignore[arg-type]
        (torch.Generator(), "a Generator, whose state changes .*: give a seed"),
        (np.random.default_rng(), "a Generator, whose state changes .*: give a seed"),
        (Loss(part=torch.Generator()), "a Generator, whose"),  # type: ignore[arg-type]
        (in_a_notebook(OBJECTS, "Record")(), r"__main__\.Record: put it into"),
        (in_a_notebook(OBJECTS, "Network")(), r"__main__\.Network: put it into"),
    ],
)
def test_settings_that_no_key_can_hold_are_refused(value: object, got: str) -> None:
    with pytest.raises(TypeError, match=rf"setting 'odd'.* must be .*, got {got}"):
        trained("net", Net, learn, odd=value)
    with pytest.raises(TypeError, match=rf"argument '0' of build.* must be .* {got}"):
        trained("net", partial(Net, value), learn)  # type: ignore[arg-type]
    assert Calls.count == 0


@pytest.mark.parametrize("name", ["", "a/b", "../net", ".net", "a b", "net*", "נט"])
def test_names_that_make_no_file_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must consist of letters"):
        trained(name, Net, learn)


# --- processes, files, failures -------------------------------------------------------

PROGRAM = """
import sys, time
sys.path.insert(0, {here!r})
from test_artifacts import *

keys.SOURCES["test_artifacts"] = ""
Path({ready!r} + sys.argv[1]).touch()
while not all(Path({ready!r} + i).exists() for i in "01"):
    time.sleep(0.01)
model, history = trained("net", Net, slow, note={note!r})
print(checkpoints.digest(model.state_dict(), {{"loss": repr(history.loss)}}))
"""


def slow(model: nn.Module, note: str) -> History:
    with open(note, "a") as file:
        file.write("trained\n")
    time.sleep(2)
    return learn(model)


def test_two_processes_train_it_once(tmp_path: Path, folder: Path) -> None:
    note, script = tmp_path / "note", tmp_path / "program.py"
    here = str(Path(__file__).parent)
    ready = str(tmp_path / "ready")
    script.write_text(PROGRAM.format(here=here, note=str(note), ready=ready))
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(i)], stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    try:
        printed = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    assert note.read_text() == "trained\n"
    assert len(printed[0]) == 65
    assert printed[0] == printed[1]
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def artefact(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


class Bomb:
    """What a pickle can do: this one makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def one_bit(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    return bytes(content)


def zipped_pickle(path: Path) -> bytes:
    torch.save(Bomb(path.with_name("bomb")), path)
    return path.read_bytes()


def checkpoint(path: Path) -> bytes:
    save_checkpoint(Net(), path)
    return path.read_bytes()


def another(path: Path) -> bytes:
    trained("other", Net, learn, steps=4)
    (other,) = path.parent.glob("other-*")
    return other.read_bytes()


def saying(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], bytes]:
    """The same artefact with another history."""

    def damage(path: Path) -> bytes:
        content = checkpoints.read(path)
        said = change(json.loads(content.metadata["history"]))
        metadata = {**content.metadata, "history": json.dumps(said)}
        checkpoints.write(path, content.tensors, metadata)
        return path.read_bytes()

    return damage


DAMAGES: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda path: b"",
    "truncated": lambda path: path.read_bytes()[:-1],
    "beginning only": lambda path: path.read_bytes()[:100],
    "noise": lambda path: os.urandom(path.stat().st_size),
    "one bit": one_bit,
    "pickle": lambda path: pickle.dumps(Bomb(path.with_name("bomb"))),
    "torch.save": zipped_pickle,
    "a checkpoint": checkpoint,
    "another artefact": another,
    "a history with more": saying(lambda said: {**said, "more": 1}),
    "a history with less": saying(lambda said: dict(list(said.items())[1:])),
    "a history of another kind": saying(lambda said: 3),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_bad_file_is_replaced(damage: Callable[[Path], bytes], folder: Path) -> None:
    good, _ = trained("net", Net, learn, steps=3)
    path = artefact(folder)
    path.write_bytes(damage(path))
    Calls.count = 0
    for _ in range(2):
        again, _ = trained("net", Net, learn, steps=3)
        assert Calls.count == 1
        assert same(good.state_dict(), again.state_dict())
    assert not (folder / "bomb").exists()


def test_an_artefact_says_what_it_is(folder: Path) -> None:
    trained("net", partial(Net, 4), learn, steps=10)
    with safe_open(artefact(folder), framework="pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    facts = json.loads(metadata["key"])
    assert facts["build"] == {
        "partial": "test_artifacts.Net",
        "arguments": {"0": 4},
    }
    assert facts["settings"] == {"steps": 10}
    assert facts["weights"]["first.weight"] == "float32 (4, 2)"
    assert "course_utils.training.loop" in facts["code"]
    assert len(json.loads(metadata["history"])["losses"]["loss"]) == 10
    assert {"first.weight", "snapshot/1/first.weight", "empty"} <= names
    assert "scratch" not in names


def stopped(model: nn.Module) -> History:
    Calls.count += 1

    def source() -> Iterator[Tensor]:
        yield torch.ones(4, 2)
        raise KeyboardInterrupt

    return train(model, squared, source(), 5)


def test_an_interrupted_training_is_returned_but_not_kept(folder: Path) -> None:
    for count in (1, 2):
        model, history = trained("net", Net, stopped)
        assert history.interrupted
        assert len(history.loss) == 1
        assert not model.training
        assert Calls.count == count
    assert list(folder.iterdir()) == []


def failing(model: nn.Module) -> History:
    Calls.count += 1
    if Calls.count == 1:
        raise ZeroDivisionError("on purpose")
    return learn(model)


def test_a_failure_leaves_nothing_and_frees_the_lock(folder: Path) -> None:
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(ZeroDivisionError):
        trained("net", Net, failing)
    assert list(folder.iterdir()) == []
    assert torch.equal(torch.rand(3), undisturbed)
    trained("net", Net, failing)  # would wait for ever for a lock


def grow(model: nn.Module) -> History:
    model.more = nn.Linear(1, 1)
    return History()


def nothing(model: nn.Module) -> Any:
    return None


def test_what_is_no_training_is_refused(folder: Path) -> None:
    with pytest.raises(TypeError, match="train must return a History, got NoneType"):
        trained("net", Net, nothing)
    with pytest.raises(CheckpointError, match=r"not change .*\n  unexpected more"):
        trained("net", Net, grow)


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    message = r"'net' could not be kept in .*file/cache/models .*COURSE_CACHE name a"
    with pytest.warns(UserWarning, match=message) as warned:
        model, history = trained("net", Net, learn)
    assert warned[0].filename == __file__
    assert len(history.loss) == 20
    with torch.random.fork_rng():
        torch.manual_seed(0)
        by_hand = Net()
        learn(by_hand)
    assert same(model.state_dict(), by_hand.state_dict())


def test_a_full_disk_leaves_no_part_of_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        trained("net", Net, learn)
    assert list(folder.iterdir()) == []


def test_a_cache_that_can_only_be_read_is_enough(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("net", Net, learn)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    for place, name in ((cache, "FileLock"), (os, "utime"), (os, "replace")):
        monkeypatch.setattr(place, name, refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained("net", Net, learn)
    assert Calls.count == 1


def test_the_newest_of_a_name_are_kept(folder: Path) -> None:
    def steps() -> set[int]:
        found = set()
        for path in folder.glob("net-*.safetensors"):
            with safe_open(path, framework="pt") as file:
                found.add(json.loads(file.metadata()["key"])["settings"]["steps"])
        return found

    trained("net-2", Net, learn, steps=1)
    for number in range(1, 6):
        trained("net", Net, learn, steps=number)
        time.sleep(0.01)
    trained("net", Net, learn, steps=1)  # is of use: now the newest
    assert Calls.count == 6
    trained("net", Net, learn, steps=6)
    assert steps() == {1, 3, 4, 5, 6}
    assert len(list(folder.glob("net-2-*"))) == 1


@pytest.mark.parametrize("looks", [0, 1])
def test_another_process_may_remove_an_artefact_at_any_time(
    looks: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is looked at, or right after."""
    trained("net", Net, learn, steps=1)
    victim, stat = artefact(folder), Path.stat

    def removing(path: Path, **settings: Any) -> os.stat_result:
        if path != victim:
            return stat(path, **settings)
        if looks == 0:
            path.unlink(missing_ok=True)
        found = stat(path, **settings)
        path.unlink()
        return found

    monkeypatch.setattr(Path, "stat", removing)
    model, _ = trained("net", Net, learn, steps=2)
    assert Calls.count == 2
    assert not model.training
    assert artefact(folder) != victim


# --- checkpoints ----------------------------------------------------------------------


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "net.safetensors"
    saved, loaded = Net(), Net()
    save_checkpoint(saved, path)
    assert not same(saved.state_dict(), loaded.state_dict())
    load_checkpoint(loaded, str(path))
    assert same(saved.state_dict(), loaded.state_dict())
    assert list(path.parent.iterdir()) == [path]


def test_an_artefact_is_a_checkpoint_too(folder: Path) -> None:
    model, _ = trained("net", Net, learn)
    loaded = Net()
    load_checkpoint(loaded, artefact(folder))
    assert same(model.state_dict(), loaded.state_dict())


def refused(model: nn.Module, path: Path) -> str:
    """Why a checkpoint is refused; the model has to stay as it was."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(model, path)
    assert same(before, model.state_dict())
    return str(error.value)


@pytest.mark.parametrize("how", ["pickle", "old torch", "torch", "empty", "noise"])
def test_other_files_are_refused_and_never_unpickled(how: str, tmp_path: Path) -> None:
    path, bomb = tmp_path / "model.pt", tmp_path / "bomb"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(bomb)))
    elif how == "empty":
        path.touch()
    elif how == "noise":
        path.write_bytes(os.urandom(5000))
    else:
        zipped = how == "torch"
        torch.save(Bomb(bomb), path, _use_new_zipfile_serialization=zipped)
    message = refused(Net(), path)
    assert "expected a file of safetensors" in message
    assert "Pickles (.pt, .pth, .ckpt) are never loaded" in message
    assert str(path) in message
    assert not bomb.exists()
    if how == "pickle":  # the bomb would work
        pickle.loads(path.read_bytes()).close()
        assert bomb.exists()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(Net(), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 128
    path.write_bytes(content)
    assert "damaged: expected SHA-256" in refused(Net(), path)


def test_safetensors_of_others_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path, model = tmp_path / "net.safetensors", nn.Linear(2, 1)
    save_file({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, path)
    load_checkpoint(model, path)
    assert model.weight.tolist() == [[1, 1]]


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(Net(), path)
    wider = Net(5).double()
    del wider.last
    wider.extra = nn.Linear(1, 1)
    lines = refused(wider, path).splitlines()
    assert lines[0] == f"{path} is not a checkpoint of this Net:"
    assert "  missing extra.weight" in lines
    assert "  unexpected last.weight" in lines
    assert "  first.weight: expected float64 (5, 2), got float32 (3, 2)" in lines
    assert not any("norm.num_batches_tracked" in line for line in lines)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        load_checkpoint(Net(), tmp_path / "nowhere.safetensors")


def test_saving_replaces_a_checkpoint_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, saved = tmp_path / "net.safetensors", Net()
    save_checkpoint(saved, path)

    def refuse(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="no"):
            save_checkpoint(Net(), path)
    assert list(tmp_path.glob("*net*")) == [path]
    loaded = Net()
    load_checkpoint(loaded, path)
    assert same(saved.state_dict(), loaded.state_dict())
    save_checkpoint(loaded := Net(), path)
    load_checkpoint(saved, path)
    assert same(saved.state_dict(), loaded.state_dict())
