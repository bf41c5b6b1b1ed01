"""What every notebook begins with, and how it shows code from this package."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from IPython.display import Markdown

from course_utils.plotting import use_style


def setup(seed: int = 0) -> None:
    """Seed torch, set the book's figure style and pin torch to one thread.

    Networks this small gain nothing from a second thread, and on a busy machine two
    threads that wait for each other can be several times slower than one.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    use_style()


def seeded(seed: int) -> torch.Generator:
    """A source of randomness that starts at ``seed``, shared with nothing else."""
    return torch.Generator().manual_seed(seed)


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
