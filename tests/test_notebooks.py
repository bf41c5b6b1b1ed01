"""What every committed notebook must be; ``pytest --nbval`` compares its outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import nbformat
import pytest
import yaml
from engine.anatomy import dissect
from engine.pairs import ROOT, notebook_paths
from nbformat import NotebookNode

from course_utils.claims import parse_claims

TAGS = {
    "nbval-skip",
    "nbval-ignore-output",
    "raises-exception",
    "nbval-raises-exception",
}
COMMENT = re.compile(r"^\s*#\s*(?:NBVAL|PYTEST_VALIDATE)_\w+\s*$", re.MULTILINE)
BAR = re.compile(r"\d%\|")

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

PATHS = notebook_paths()
each_notebook = pytest.mark.parametrize(
    "path", PATHS, ids=[str(p.relative_to(ROOT)) for p in PATHS]
)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def outputs(path: Path) -> list[NotebookNode]:
    return [output for cell in code_cells(path) for output in cell.outputs]


def printed(path: Path) -> str:
    return "".join(o.text for o in outputs(path) if o.get("name") == "stdout")


def chapter(path: Path) -> str:
    """A notebook as ``_toc.yml`` names it."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


def listed(toc: Any) -> Iterator[str]:
    """Every file that a part of ``_toc.yml`` names."""
    if isinstance(toc, dict):
        yield from (value for key, value in toc.items() if key == "file")
        toc = list(toc.values())
    if isinstance(toc, list):
        for part in toc:
            yield from listed(part)


@each_notebook
def test_is_executed_in_order(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_is_whole(path: Path) -> None:
    notebook = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert "widgets" not in notebook.metadata


@each_notebook
def test_ran_silently(path: Path) -> None:
    assert [o for o in outputs(path) if o.output_type == "error"] == []
    assert [o.text for o in outputs(path) if o.get("name") == "stderr"] == []
    shown = [
        str(o.get("text") or o.get("data", {}).get("text/plain")) for o in outputs(path)
    ]
    assert [text for text in shown if BAR.search(text)] == [], "a progress bar"


@each_notebook
def test_hides_nothing_from_nbval(path: Path) -> None:
    for cell in code_cells(path):
        assert not TAGS & set(cell.metadata.get("tags", [])), cell.id
        assert not COMMENT.search(cell.source), cell.id


@each_notebook
def test_claims_belong_to_sections(path: Path) -> None:
    """A claim ``NF3a`` without a section of its own belongs to ``NF3``."""
    claims = parse_claims(printed(path))
    assert claims, "expected at least one claim, got none"
    assert printed(path).count("✓") == len(claims), (
        "expected every ✓ to be that of a claim"
    )
    cells = [cell for cell in read(path).cells if cell.cell_type == "markdown"]
    parts = [part for cell in cells for part in dissect(cell.source)]
    labels = {part.content for part in parts if part.kind == "label"}
    for claim in claims:
        question = claim.question.lower()
        assert {question, question.rstrip(ascii_lowercase)} & labels, claim


@each_notebook
def test_is_a_chapter_of_the_book(path: Path) -> None:
    assert path.parent.parent == ROOT / "notebooks"
    assert chapter(path) in set(listed(TOC))


def test_every_chapter_is_there() -> None:
    named = [file for file in listed(TOC) if file.startswith("notebooks/")]
    assert sorted(named) == sorted(chapter(path) for path in PATHS)


def test_a_folder_is_a_part() -> None:
    """The notebooks of a part are all in one folder, and no other part has it."""
    folders = [
        {Path(file).parent for file in listed(part) if file.startswith("notebooks/")}
        for part in TOC["parts"]
    ]
    used = [folder for folder in folders if folder]
    assert [len(folder) for folder in used] == [1] * len(used)
    assert len(set.union(*used)) == len(used)
