"""Each command of the Makefile installs what it needs, and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pins import ROOT, SECTIONS, SITE, sections

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")

# Stands for Python and, in the environment that it makes, for pip: it notes its
# arguments and does nothing else.
STAND_IN = """\
#!/bin/sh
echo "$(basename "$0") $*" >> "$NOTES"
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    cp "$0" "$3/bin/pip"
fi
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    path = tmp_path / "interpreter"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return path


def make(stand_in: Path, *arguments: str) -> list[str]:
    """What ``make`` runs, without the paths; the environment is a new folder's."""
    folder, notes = stand_in.parent, stand_in.parent / "notes"
    notes.write_text("")
    # without what a `make` around this one passes on
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFL"))}
    subprocess.run(
        ["make", *arguments, f"PYTHON={stand_in}", f"VENV={folder}/venv"],
        cwd=ROOT,
        env={**outside, "NOTES": str(notes)},
        check=True,
        capture_output=True,
    )
    ran = notes.read_text().replace(f"{folder}/", "").splitlines()
    return [line for line in ran if not line.startswith("interpreter -c")]


PIP = "pip install --quiet --disable-pip-version-check"
THE_SITE = f"{PIP} --no-compile -r venv/site.txt -c venv/pins.txt"
THE_REST = f"{PIP} -r requirements.txt"


def test_building_installs_one_section_and_running_the_rest(stand_in: Path) -> None:
    new = ["interpreter -m venv venv", THE_SITE]
    build, check = "python -m engine.build", "python -m engine.parity"
    assert make(stand_in, "book") == [*new, build]
    assert make(stand_in, "book") == [build]
    assert make(stand_in, "check") == [check]
    one = "python -m engine.refresh notebooks/a.ipynb"
    assert make(stand_in, "refresh", "NB=notebooks/a.ipynb") == [THE_REST, one]
    assert make(stand_in, "refresh") == ["python -m engine.refresh"]
    assert make(stand_in, "book") == [build]


def test_running_first_installs_both(stand_in: Path) -> None:
    ran = make(stand_in, "refresh")
    assert ran[1:] == [THE_SITE, THE_REST, "python -m engine.refresh"]


def test_the_sections_that_pip_is_given(stand_in: Path) -> None:
    make(stand_in, "book")
    folder = stand_in.parent / "venv"
    site, pins = ((folder / name).read_text() for name in ("site.txt", "pins.txt"))
    assert sections(site) == {SITE: SECTIONS[SITE]}
    (all_pins,) = sections(f"# pins\n{pins}").values()
    assert all_pins == [pin for section in SECTIONS.values() for pin in section]
