"""What ``requirements.txt`` promises: all is pinned, for every Python from 3.11 on.

Each package that the code imports is pinned in the section of those who import it:
``make book`` installs one section alone.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections import Counter
from functools import cache
from importlib.metadata import metadata, packages_distributions, version
from itertools import product

import pytest
from engine.pairs import notebook_paths
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pins import (
    BROUGHT,
    MODELS,
    NOTEBOOKS,
    ROOT,
    SECTIONS,
    SITE,
    TESTING,
    brought_along,
    names,
)

PINS = {canonicalize_name(pin.name): pin for pins in SECTIONS.values() for pin in pins}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]

(PROMISED,) = SpecifierSet(PYPROJECT["project"]["requires-python"])
OLDEST = f"{PROMISED.version}.0"
PYTHONS = [
    {"python_version": PROMISED.version, "python_full_version": OLDEST},
    {},  # the one that runs
]
PLATFORMS = [
    dict(zip(("sys_platform", "platform_system", "os_name"), values, strict=True))
    for values in (
        ("linux", "Linux", "posix"),
        ("darwin", "Darwin", "posix"),
        ("win32", "Windows", "nt"),
    )
]
# A build of torch for GPUs pins these itself, to a version each.
CUDA = re.compile(r"(nvidia|cuda)-|triton$")

HERE = {
    name: pin
    for name, pin in PINS.items()
    if pin.marker is None or pin.marker.evaluate()
}


@cache
def all_needs() -> list[tuple[str, Requirement]]:
    """What the pins need, on each platform, on the oldest Python and on this one."""
    return [
        need
        for platform, python in product(PLATFORMS, PYTHONS)
        for need in brought_along(PINS, {**platform, **python})
    ]


# --- the pins -------------------------------------------------------------------------


def test_the_sections_are_all_there() -> None:
    assert [*SECTIONS] == [MODELS, NOTEBOOKS, SITE, TESTING, BROUGHT]


def test_each_package_is_pinned_once_to_one_version() -> None:
    pins = [pin for section in SECTIONS.values() for pin in section]
    loose = [p for p in pins if not re.fullmatch(r"==[\w.]+", str(p.specifier))]
    assert loose == []
    counts = Counter(canonicalize_name(pin.name) for pin in pins)
    assert [name for name, count in counts.items() if count > 1] == []


def test_the_pinned_versions_are_installed() -> None:
    installed = {name: version(name) for name in HERE}
    wrong = {
        str(pin): installed[name]
        for name, pin in HERE.items()
        if not pin.specifier.contains(installed[name], prereleases=True)
    }
    assert wrong == {}, "install them: .venv/bin/pip install -r requirements.txt"


def test_a_pin_that_is_not_for_every_machine_is_known() -> None:
    # The other tests see what is installed; these are not, on Linux.
    some = {name for name, pin in PINS.items() if pin.marker is not None}
    assert some == {"appnope", "colorama", "pywinpty"}


def test_all_that_pins_bring_along_is_pinned_too() -> None:
    unpinned = {
        f"{who} needs {need}"
        for who, need in all_needs()
        if canonicalize_name(need.name) not in PINS and not CUDA.match(need.name)
    }
    assert unpinned == set()


def test_pins_agree_with_each_other() -> None:
    pinned = {name: str(pin.specifier).removeprefix("==") for name, pin in PINS.items()}
    against = {
        f"{who} needs {need}, pinned is {pinned[name]}"
        for who, need in all_needs()
        if (name := canonicalize_name(need.name)) in pinned
        and not need.specifier.contains(pinned[name], prereleases=True)
    }
    assert against == set()


def test_no_pin_is_left_over() -> None:
    needed = names(need for _, need in all_needs())
    assert names(SECTIONS[BROUGHT]) - needed == set()


# --- the oldest Python ----------------------------------------------------------------


def test_the_pins_run_on_the_oldest_python_that_is_promised() -> None:
    wanted = {
        name: str(metadata(name).json.get("requires_python", "")) for name in HERE
    }
    too_new = {
        str(HERE[name]): python
        for name, python in wanted.items()
        if not SpecifierSet(python).contains(OLDEST)
    }
    assert too_new == {}, f"{OLDEST} is promised"


def test_what_is_said_elsewhere_is_the_same() -> None:
    assert PROMISED.operator == ">="
    promised = PROMISED.version
    ruff = PYPROJECT["tool"]["ruff"]["target-version"]
    assert ruff == f"py{promised}".replace(".", "")
    (torch,) = (pin for pin in SECTIONS[MODELS] if pin.name == "torch")
    both = [f"Python {promised} or later", f"Python {promised} ומעלה"]
    said = {
        "README.md": [*both, str(torch)],
        "book/index.md": both,
        "requirements.txt": [f"Python {promised} and later"],
        "Makefile": [both[0], f"({promised})".replace(".", ", ")],
    }
    for file, words in said.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert [one for one in words if one not in text] == [], file


# --- who imports what -----------------------------------------------------------------

ROOMS = {  # the sections from which the code in a folder, or in a file, may import
    "course_utils": {MODELS, NOTEBOOKS},
    "notebooks": {MODELS, NOTEBOOKS},
    "notebooks/conftest.py": {TESTING},
    "book/engine": {SITE},
    "book/engine/refresh.py": {SITE, NOTEBOOKS},
    "book/engine/figures.py": {SITE, NOTEBOOKS, MODELS},  # runs in a kernel
    "tests": {MODELS, NOTEBOOKS, SITE, TESTING},
}
OWN = {"course_utils", "engine", *(path.stem for path in ROOT.glob("tests/**/*.py"))}


def sources(room: str) -> list[str]:
    """The code in a room: of modules, without files that are rooms, and of cells."""
    place = ROOT / room
    if place.is_file():
        return [place.read_text(encoding="utf-8")]
    files = {*place.rglob("*.py")} - {ROOT / other for other in ROOMS}
    notebooks = [json.loads(p.read_bytes()) for p in notebook_paths(place)]
    cells = [cell for notebook in notebooks for cell in notebook["cells"]]
    return [path.read_text(encoding="utf-8") for path in sorted(files)] + [
        "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"
    ]


def imported(code: str) -> set[str]:
    """The packages that a piece of code imports, on top or within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
    return found - {*sys.stdlib_module_names} - OWN


def not_from(allowed: set[str], modules: set[str]) -> dict[str, list[str]]:
    """Of some modules, those that no allowed package brings, and who brings them."""
    bring = packages_distributions()
    packages = {module: bring.get(module, []) for module in modules}
    return {
        module: brought
        for module, brought in packages.items()
        if not {canonicalize_name(name) for name in brought} & allowed
    }


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_imported_is_pinned_in_the_right_section(room: str) -> None:
    allowed = {name for title in ROOMS[room] for name in names(SECTIONS[title])}
    modules = set().union(*map(imported, sources(room)))
    assert modules
    assert not_from(allowed, modules) == {}, f"pin it under {sorted(ROOMS[room])}"


def test_the_package_declares_what_it_imports_and_all_of_that_is_pinned() -> None:
    modules = set().union(*map(imported, sources("course_utils")))
    assert not_from(names(DECLARED), modules) == {}
    assert names(DECLARED) - names([*SECTIONS[MODELS], *SECTIONS[NOTEBOOKS]]) == set()
