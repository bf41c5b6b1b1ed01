"""Re-execute notebooks and store their outputs: ``python -m engine.refresh [paths…]``.

Without paths, all notebooks of the book. What is stored is normalised, so that a second
run differs only in what it measured. A notebook whose cell fails stays as it was.

They run with a cache in which nothing is trained yet, so that the minutes they take,
which are stored in ``metadata.chapter``, are those of a reader who runs them in this
order. They are minutes of the processor, on one core: other work beside the run hardly
changes them. Figures are stored in both languages (``engine.figures``).
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode
from PIL import Image

from course_utils.cache import VARIABLE, cache_folder
from course_utils.console import say
from engine import BOOK
from engine.pairs import notebook_paths
from engine.words import IN_HEBREW

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

KERNEL_ENV = {
    "TQDM_DISABLE": "1",  # nbval cannot compare a progress bar
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
# What the kernel runs before the first cell
_SPEAK_HEBREW = (
    "import json, os; from engine import figures;"
    " figures.start(json.loads(os.environ['ENGINE_WORDS']))"
)
THUMBNAIL = 400  # pixels, of the longer side
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


def refresh(path: Path) -> list[str]:
    """Execute the notebook at ``path`` in its own folder and store its outputs.

    Returns:
        what its figures say that has no Hebrew, each with its place.

    Raises:
        RefreshError: a cell failed; the file is untouched.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook = nbformat.v4.upgrade(notebook, from_minor=notebook.nbformat_minor)
    for cell in _code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    start = _seconds()
    _execute(notebook, path)
    if "chapter" in notebook.metadata:
        minutes = (_seconds() - start) / 60
        notebook.metadata.chapter["minutes"] = max(1, round(minutes))
    normalise(notebook)
    if "chapter" in notebook.metadata:
        notebook.metadata.chapter["thumbnail"] = _thumbnails(notebook)
    nbformat.validate(notebook)
    _write(notebook, path)
    return [
        f"{path}: cell {number}: no Hebrew for {text!r}"
        for number, cell in enumerate(notebook.cells)
        for text in untold(cell)
    ]


def _seconds() -> float:
    """Processor time of the kernels that have ended; where unknown, the clock's."""
    if resource is None:
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _thumbnails(notebook: NotebookNode) -> dict[str, str]:
    """The chapter's picture for its card on the home page, in both languages."""
    name = notebook.metadata.chapter.get("picture")
    for cell in _code_cells(notebook):
        if cell.metadata.get("figure", {}).get("name") == name:
            for output in cell.outputs:
                data = output.get("data", {})
                if "image/png" in data:
                    he = output.metadata.get(IN_HEBREW, {}).get("image")
                    return {
                        "en": thumbnail(data["image/png"]),
                        "he": thumbnail(he or data["image/png"]),
                    }
    return {}


def thumbnail(picture: str) -> str:
    """A small version of a PNG image, both in base64."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.quantize(64).save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def untold(cell: NotebookNode) -> list[str]:
    """The texts that a cell's figures show and that have no Hebrew."""
    texts = (
        output.get("metadata", {}).get(IN_HEBREW, {}).get("words", {})
        for output in cell.get("outputs", [])
    )
    return [text for said in texts for text, he in said.items() if he is None]


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
            # a run without this engine has no such data, which nbval would miss
            if IN_HEBREW in data:
                output.metadata[IN_HEBREW]["image"] = data.pop(IN_HEBREW)


def main(arguments: list[str]) -> int:
    """Refresh the notebooks named in ``arguments``, or all; 1 if a cell failed."""
    failed = False
    with _nothing_trained():
        for path in map(Path, arguments) if arguments else notebook_paths():
            start = time.perf_counter()
            try:
                missing = refresh(path)
            except RefreshError as error:
                say(error, file=sys.stderr)
                failed = True
            else:
                for line in missing:
                    say(line, file=sys.stderr)
                say(f"{path}: {time.perf_counter() - start:.1f} s")
    return int(failed)


@contextmanager
def _nothing_trained() -> Iterator[None]:
    """Inside, the cache has the data that were fetched before and no trained model."""
    kept = cache_folder()
    fetched = [path for path in kept.glob("*") if path.is_dir()]
    with tempfile.TemporaryDirectory(prefix="course-") as name:
        for folder in fetched:
            if folder.name != "models":
                (Path(name) / folder.name).symlink_to(folder)
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = name
        try:
            yield
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


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
        extra_arguments=[f"--IPKernelApp.exec_lines={_SPEAK_HEBREW}"],
    )
    python_path = os.pathsep.join([str(BOOK), os.environ.get("PYTHONPATH", "")])
    words: dict[str, str] = {}
    for cell in _code_cells(notebook):
        words |= cell.metadata.get("words", {})
    env = {
        **os.environ,
        **KERNEL_ENV,
        "PYTHONPATH": python_path.rstrip(os.pathsep),
        "ENGINE_WORDS": json.dumps(words),
    }
    try:
        client.execute(env=env)
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
