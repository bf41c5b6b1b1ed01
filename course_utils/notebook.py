"""What every notebook begins with, and how it shows code from this package."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

import torch
from IPython.display import HTML, Markdown

from course_utils.checks import check_count
from course_utils.plotting import use_style

# What opens the folded source; the site puts it into the reader's language
WHOLE_SOURCE = '<details class="whole"><summary>With all checks and details</summary>'
_QUOTES = '"""'
_THREADS = torch.get_num_threads()  # as many as the machine or OMP_NUM_THREADS allow


def setup(seed: int = 0, threads: int = 1) -> None:
    """Seed torch, set the book's figure style, bound the number of torch's threads.

    The small networks of the plane gain nothing from a second thread, and on a busy
    machine two threads that wait for each other can be several times slower than one.
    Convolutions gain from two.

    Args:
        seed: of torch's random numbers.
        threads: how many to use, unless ``OMP_NUM_THREADS`` or the machine allow fewer.
    """
    torch.manual_seed(check_count("seed", seed, least=0))
    torch.set_num_threads(min(check_count("threads", threads), _THREADS))
    use_style()


def seeded(seed: int) -> torch.Generator:
    """A source of randomness that starts at ``seed``, shared with nothing else."""
    return torch.Generator().manual_seed(check_count("seed", seed, least=0))


def show_source(*objects: Callable[..., object] | type) -> Markdown:
    """The source of functions, classes or methods: its idea, and folded, the whole.

    The idea is the source itself without what :func:`idea` leaves out.

    Raises:
        TypeError: an object that has no Python source.
    """
    sources, ideas = [], []
    for item in objects:
        source = inspect.getsource(item)  # TypeError if there is none
        source = inspect.cleandoc("\n" + source) if source[0] == " " else source
        sources.append(source.rstrip())
        ideas.append(idea(source).rstrip())
    shown = _code("\n\n\n".join(ideas))
    if ideas != sources:
        whole = _code("\n\n\n".join(sources))
        shown += f"\n\n{WHOLE_SOURCE}\n\n{whole}\n\n</details>"
    return Markdown(shown)


def _code(source: str) -> str:
    return f"```python\n{source}\n```"


def idea(source: str) -> str:
    """Source code without what stands around its idea; no other line is changed.

    Left out are of each docstring all but the first paragraph, and of each function the
    checks of its arguments: calls of ``check_…``, and conditions that only raise.
    """
    lines: list[str | None] = list(source.splitlines())
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module) or not isinstance(body, list):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            _shorten(lines, body[0])
            body = body[1:]
        checks = [one for one in body if _is_check(one)]
        for check in checks if len(checks) < len(body) else []:
            _remove(lines, check)
    return "\n".join(line for line in lines if line is not None) + "\n"


def _shorten(lines: list[str | None], docstring: ast.stmt) -> None:
    """Keep the first paragraph of a docstring."""
    first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
    ends = (at for at in range(first, last) if not (lines[at] or "").strip())
    end = next(ends, None)
    if end is not None:
        lines[end - 1] = f"{lines[end - 1]}{_QUOTES}"
        lines[end : last + 1] = [None] * (last + 1 - end)


def _remove(lines: list[str | None], statement: ast.stmt) -> None:
    """Remove a statement, the comments above it and one of two empty lines."""
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    while (lines[first - 1] or "").lstrip().startswith("#"):
        first -= 1
    lines[first : last + 1] = [None] * (last + 1 - first)


def _is_check(statement: ast.stmt) -> bool:
    """Whether a statement only checks: ``check_x(x)``, ``x = check_x(x)``, a raise."""
    match statement:
        case ast.If(body=[ast.Raise()], orelse=[]):
            return True
        case ast.Expr(value=ast.Call() as call):
            return _called(call).lstrip("_").startswith("check")
        case ast.Assign(targets=[target], value=ast.Call() as call):
            given = {ast.dump(one) for one in _names(call)}
            taken = {ast.dump(one) for one in _names(target)}
            return _called(call).lstrip("_").startswith("check") and taken <= given
    return False


def _called(call: ast.Call) -> str:
    """The last name of what is called: ``check_times`` in ``checks.check_times(t)``."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _names(tree: ast.AST) -> Iterator[ast.Name]:
    """The variables that an expression names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield ast.Name(node.id, ast.Load())


def measured_table(
    corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> HTML:
    """A table of measured values; nbval compares all but the values.

    Args:
        corner: what the rows' names are.
        columns: what is measured.
        rows: name → one value for each column, as it is to be printed.

    Raises:
        ValueError: a row that does not fit the columns.
    """
    for name, values in rows.items():
        if len(values) != len(columns):
            raise ValueError(
                f"row {name!r} must have {len(columns)} values, got {len(values)}"
            )
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in [corner, *columns])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td data-measured>{escape(v)}</td>" for v in values)
        + "</tr>"
        for name, values in rows.items()
    )
    return HTML(
        f'<table class="measured" dir="ltr"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
