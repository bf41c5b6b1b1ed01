"""Re-execute notebooks and store their outputs: ``python -m engine.refresh [paths…]``.

Without paths, all notebooks of the book. What is stored is normalised, so that a second
run differs only in what it measured. A notebook whose cell fails stays as it was.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode

from course_utils.console import say
from engine.pairs import notebook_paths

KERNEL_ENV = {
    "TQDM_DISABLE": "1",  # nbval cannot compare a progress bar
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE_INFO = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}


class RefreshError(Exception):
    """A cell of a notebook failed."""


def refresh(path: Path) -> None:
    """Execute the notebook at ``path`` in its own folder and store its outputs.

    Raises:
        RefreshError: a cell failed; the file is untouched.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook = nbformat.v4.upgrade(notebook, from_minor=notebook.nbformat_minor)
    for cell in _code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    _execute(notebook, path)
    normalise(notebook)
    nbformat.validate(notebook)
    _write(notebook, path)


def normalise(notebook: NotebookNode) -> None:
    """Remove, in place, what differs between two runs though nothing changed."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = NotebookNode(_KERNELSPEC)
    notebook.metadata["language_info"] = NotebookNode(_LANGUAGE_INFO)
    for cell in _code_cells(notebook):
        cell.metadata.pop("execution", None)
        cell.outputs = _merge_streams(cell.outputs)
        for output in cell.outputs:
            data = output.get("data", {})
            # the static page shows this; the view names a random model
            if "text/html" in data:
                data.pop(WIDGET_VIEW, None)
                output.metadata.pop(WIDGET_VIEW, None)


def main(arguments: list[str]) -> int:
    """Refresh the notebooks named in ``arguments``, or all; 1 if a cell failed."""
    failed = False
    for path in map(Path, arguments) if arguments else notebook_paths():
        start = time.perf_counter()
        try:
            refresh(path)
        except RefreshError as error:
            say(error, file=sys.stderr)
            failed = True
        else:
            say(f"{path}: {time.perf_counter() - start:.1f} s")
    return int(failed)


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _execute(notebook: NotebookNode, path: Path) -> None:
    """Run all cells of ``notebook`` in a fresh kernel."""
    started = [0]

    def note(cell: NotebookNode, cell_index: int) -> None:
        started[0] = cell_index

    client = NotebookClient(
        notebook,
        timeout=None,
        # a machine may be slow: never go on without a cell's outputs
        startup_timeout=600,
        iopub_timeout=600,
        raise_on_iopub_timeout=True,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.resolve().parent)}},
        record_timing=False,
        store_widget_state=False,
        on_cell_start=note,
    )
    try:
        client.execute(env={**os.environ, **KERNEL_ENV})
    except (CellControlSignal, DeadKernelError) as error:
        cell = notebook.cells[started[0]]
        raise RefreshError(
            f"{path}: cell {started[0] + 1} (id {cell.id}): {error}"
        ) from error


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join each run of outputs to the same stream: where they split is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last: Any = merged[-1] if merged else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            merged.append(output)
    return merged


def _write(notebook: NotebookNode, path: Path) -> None:
    """Replace the file at ``path`` in one step: an interrupted run leaves the old."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        nbformat.write(notebook, draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
