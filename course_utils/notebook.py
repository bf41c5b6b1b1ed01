"""What every notebook begins with, and how it shows code from this package."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from html import escape

import torch
from IPython.display import HTML, Markdown

from course_utils.checks import check_count
from course_utils.plotting import use_style

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
    """The source code of functions, classes or methods, as it stands in its file.

    Raises:
        TypeError: an object that has no Python source.
    """
    parts = []
    for item in objects:
        source = inspect.getsource(item)  # TypeError if there is none
        parts.append(
            inspect.cleandoc("\n" + source) if source[0] == " " else source.rstrip()
        )
    return Markdown("```python\n" + "\n\n\n".join(parts) + "\n```")


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
