"""Every command works on every console: Windows ones know neither ✓ nor Hebrew."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from course_utils.claims import claim, parse_claims
from course_utils.console import printable, say

ROOT = Path(__file__).resolve().parents[1]
ENCODINGS = ["utf-8", "cp1252", "cp1255", "cp437", "ascii", "latin-1"]


def in_encoding(encoding: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python with a console of an encoding."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "book")])
    settings = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *command], env=settings, capture_output=True, check=False
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_claim_is_printed(encoding: str) -> None:
    code = "from course_utils.claims import claim; claim('NF1', 'gap', .01, '<=', .04)"
    done = in_encoding(encoding, "-c", code)
    assert done.returncode == 0, done.stderr
    line = done.stdout.decode(encoding).rstrip()
    begin = "✓" if encoding == "utf-8" else "OK"
    sign = "≤" if encoding in ("utf-8", "cp437") else "<="
    assert line == f"{begin} NF1 gap {sign} 0.040 (measured 0.010)"


def test_a_problem_of_the_hebrew_is_printed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nעברית\n", encoding="utf-8")
    done = in_encoding("cp1252", "-m", "engine.parity", str(page))
    assert done.returncode == 1, done.stderr
    assert b"page.md: block 1" in done.stdout
    assert b"Traceback" not in done.stderr


def test_nothing_is_lost_where_all_letters_are_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    claim("NF1", "פער", 0.01, "≤", 0.04)
    printed = capsys.readouterr().out
    assert printed == "✓ NF1 פער ≤ 0.040 (measured 0.010)\n"
    assert len(parse_claims(printed)) == 1


def test_signs_become_plain_and_letters_question_marks() -> None:
    assert printable("✓ π ≥ −1 · אב é …", "ascii") == "OK ? >= -1 * ?? ? ..."
    assert printable("✓ π ≥ −1 · אב é …", "cp1252") == "OK ? >= -1 · ?? é …"
    assert printable("✓", None) == "✓"
    out = io.StringIO()  # its encoding is None
    say("✓", file=out)
    assert out.getvalue() == "✓\n"


MODULES = sorted([*ROOT.glob("course_utils/**/*.py"), *ROOT.glob("book/engine/*.py")])


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a module, and the name of what is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_all_that_is_printed_goes_one_way() -> None:
    past = {"print", "sys.stdout.write", "sys.stderr.write"}
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in MODULES
        for name, call in calls(path)
        if name in past and path.name != "console.py"
    ]
    assert not found


def test_no_text_is_read_or_written_in_the_machines_own_encoding() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in MODULES
        for name, call in calls(path)
        if name == "open" or name.rpartition(".")[2] in ("read_text", "write_text")
        if not any(word.arg == "encoding" for word in call.keywords)
    ]
    found += [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in MODULES
        for _, call in calls(path)
        if any(word.arg == "text" for word in call.keywords)
        if not any(word.arg == "encoding" for word in call.keywords)
    ]
    assert not found
