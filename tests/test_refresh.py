"""Notebooks are refreshed whole or not at all, and nbval accepts what was stored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from engine.pairs import ROOT
from engine.refresh import WIDGET_VIEW, main, refresh
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SANITIZER = ROOT / "tests" / "nbval_sanitize.cfg"
CLAIM = """\
import time
from course_utils.claims import claim
print(f"training time: {time.perf_counter() % 100:.1f} CPU-seconds")
claim("NF1", "gap", time.perf_counter() % 1e-3, "<", 0.040, unit="nats", digits=9)
"""
LIVE = f"""\
import uuid
class Live:
    def _repr_mimebundle_(self, **kwargs):
        view = {{"version_major": 2, "version_minor": 0, "model_id": uuid.uuid4().hex}}
        html = '<div class="live" data-live="demo"></div>'
        data = {{"text/plain": "Live", "text/html": html, "{WIDGET_VIEW}": view}}
        state = {{"state": {{"x": [1, 2]}}}}
        return data, {{"text/html": state, "{WIDGET_VIEW}": {{"colab": {{}}}}}}
Live()
"""
SLIDER = "import ipywidgets\nipywidgets.IntSlider()"
BAR = """\
import os, tqdm, tqdm.auto
for i in tqdm.tqdm(range(3)): pass
# this bar does not read TQDM_DISABLE by itself
for i in tqdm.auto.tqdm(range(3), disable="TQDM_DISABLE" in os.environ): pass
"""
FIGURE = """\
import matplotlib.pyplot as plt
print("before")
print("the figure")
plt.plot([0, 1])
plt.show()
print("after")
"""
OTHER = {"name": "other", "display_name": "Another kernel"}
ENVIRONMENT = (
    'import os\nprint([os.environ[k] for k in ("TQDM_DISABLE", "OMP_NUM_THREADS")])'
)


def write(folder: Path, *sources: str, **metadata: Any) -> Path:
    """A notebook with a title and one code cell for each source."""
    cells = [
        new_markdown_cell("# Title", metadata={"lang": "en"}),
        *map(new_code_cell, sources),
    ]
    path = folder / "tiny.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def run_nbval(path: Path) -> subprocess.CompletedProcess[str]:
    """Compare the stored outputs with a fresh run, as the repository's own tests do."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-q",
        "-rN",  # no summary: where CI is set it repeats the reasons
        path.name,
    ]
    command += ["--nbval-sanitize-with", str(SANITIZER), "-p", "no:cacheprovider"]
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'book'}",
        "MPLBACKEND": "Agg",
    }
    env.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        command, cwd=path.parent, env=env, capture_output=True, text=True, check=False
    )


def test_outputs_are_stored_and_normalised(tmp_path: Path) -> None:
    path = write(tmp_path, FIGURE, LIVE, BAR, widgets={"state": {}}, kernelspec=OTHER)
    ids = [cell.id for cell in read(path).cells]
    refresh(path)
    notebook = read(path)
    _, figure, live, bar = notebook.cells
    assert [cell.id for cell in notebook.cells] == ids
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert [cell.execution_count for cell in (figure, live, bar)] == [1, 2, 3]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert "version" not in notebook.metadata.language_info
    assert [o.get("text") for o in figure.outputs] == [
        "before\nthe figure\n",
        None,
        "after\n",
    ]
    assert "image/png" in figure.outputs[1].data
    assert set(live.outputs[0].data) == {"text/plain", "text/html"}
    assert live.outputs[0].metadata == {"text/html": {"state": {"x": [1, 2]}}}
    assert bar.outputs == []
    assert all(not cell.metadata.get("execution") for cell in notebook.cells)
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "print(1)", LIVE)
    refresh(path)
    first = path.read_bytes()
    refresh(path)
    assert path.read_bytes() == first


def test_runs_in_the_notebooks_folder(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("here")
    path = write(tmp_path, "print(open('data.txt').read())")
    refresh(path)
    assert read(path).cells[1].outputs[0].text == "here\n"


@pytest.mark.parametrize("fault", ["1 / 0", "import os; os._exit(1)"])
def test_a_failing_cell_leaves_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    path = write(tmp_path, "print(1)", fault, "print(2)")
    before = path.read_bytes()
    assert main([str(path)]) == 1
    said = capsys.readouterr()
    cell = read(path).cells[2]
    assert f"{path}: cell 3 (id {cell.id}): " in said.err
    assert ("ZeroDivisionError" in said.err) == (fault == "1 / 0")
    assert said.out == ""
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_prints_the_wall_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "print(1)")
    assert main([str(path)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{path}: ")
    assert line.endswith(" s\n")


def test_nbval_accepts_what_was_stored(tmp_path: Path) -> None:
    """Other times and measured values, a live widget view, a slider, bars, a figure."""
    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    path = write(tmp_path, CLAIM, LIVE, SLIDER, BAR, FIGURE, ENVIRONMENT)
    refresh(path)
    stored = read(path).cells[1].outputs[0].text
    result = run_nbval(path)
    assert result.returncode == 0, result.stdout
    assert "6 passed" in result.stdout
    refresh(path)
    assert read(path).cells[1].outputs[0].text != stored


def test_nbval_blanks_the_values_of_a_table_and_nothing_else(tmp_path: Path) -> None:
    table = (
        "import random\n"
        "from course_utils.notebook import measured_table\n"
        "measured_table('solver', ['error'], {'Euler': [str(random.random())]})"
    )
    path = write(tmp_path, table, table.partition("\n")[2])
    refresh(path)
    notebook = read(path)
    html = notebook.cells[2].outputs[0].data["text/html"]
    notebook.cells[2].outputs[0].data["text/html"] = html.replace("Euler", "Heun")
    nbformat.write(notebook, path)
    assert "1 failed, 1 passed" in run_nbval(path).stdout


def test_nbval_refuses_another_verdict(tmp_path: Path) -> None:
    claim = "✓ NF1 gap < 0.040 nats (measured 0.031)"
    faults = [
        (claim, "✗ NF1 gap < 0.040 nats (measured 0.031)"),
        (claim, "✓ NF1 gap < 0.050 nats (measured 0.031)"),
        (claim, "✓ NF1 gap ≤ 0.040 nats (measured 0.031)"),
        (claim, "✓ NF1 the gap < 0.040 nats (measured 0.031)"),
        (claim, "✓ NF2 gap < 0.040 nats (measured 0.031)"),
        (claim, "NF1 gap < 0.040 nats"),
        (
            "✓ NF1 time: 20 seconds (measured 15)",
            "✓ NF1 time: 30 seconds (measured 15)",
        ),
        ("training time: 15.1 CPU-seconds", "training time: 15.1 minutes"),
        ("gap 0.031", "gap 0.032"),
    ]
    path = write(tmp_path, *(f"print({printed!r})" for printed, _ in faults))
    refresh(path)
    notebook = read(path)
    for cell, (_, stored) in zip(notebook.cells[1:], faults, strict=True):
        cell.outputs[0].text = stored + "\n"
    nbformat.write(notebook, path)
    result = run_nbval(path)
    assert f"{len(faults)} failed" in result.stdout
    assert result.stdout.count("Cell outputs differ") == len(faults)
