"""What notebooks begin with, and how they show code."""

import ast
import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from course_utils import notebook, plotting
from course_utils.models.flow_matching import LinearPath
from course_utils.models.normalizing_flow import AffineCoupling, NormalizingFlow
from course_utils.notebook import idea, measured_table, seeded, setup, show_source


def test_setup_seeds_and_pins_threads() -> None:
    setup(3)
    first = torch.rand(2)
    setup(3)
    assert torch.equal(torch.rand(2), first)
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.rand(2, generator=seeded(3)), first)


def test_threads_are_bounded_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, wanted, given in ((4, 2, 2), (1, 2, 1), (4, 1, 1)):
        monkeypatch.setattr(notebook, "_THREADS", there)
        setup(threads=wanted)
        assert torch.get_num_threads() == given
    with pytest.raises(ValueError, match="threads must be"):
        setup(threads=0)


def test_show_source_is_the_code_itself() -> None:
    shown = show_source(LinearPath.velocity).data
    source = inspect.cleandoc("\n" + inspect.getsource(LinearPath.velocity))
    assert shown == f"```python\n{source}\n```"  # nothing to fold
    shown = show_source(AffineCoupling, NormalizingFlow.log_prob).data
    start, whole = shown.split('<details class="whole">')
    assert inspect.getsource(AffineCoupling).rstrip() in whole
    lines = start.splitlines()
    assert "def log_prob(self, y: Tensor) -> Tensor:" in lines
    assert "    log_p_z, log_det = self.log_prob_parts(y)" in lines
    assert set(lines) <= {*whole.splitlines(), "", "```"} | {
        line + '"""' for line in whole.splitlines()
    }
    with pytest.raises(TypeError):
        show_source(len)


SOURCE = '''\
class Model:
    """y = f(x).

    Args:
        x: what it takes.
    """

    def f(self, x: Tensor, count: int = 3) -> Tensor:
        """f(x) (B,) for x (B, 2),
        as it is.

        Raises:
            ValueError: never.
        """
        check_points(x)
        # of samples
        count = check_count("count", count)
        self._check(x)
        if x.dim() != 2:
            raise ValueError(
                f"x must be (B, 2), got {x.shape}"
            )

        checked = check_labels(count)
        if x.numel() == 0:
            raise ValueError("nothing")
        else:
            x = x + 1
        if checked:
            check_points(x)
            x = x - 1
        return x.sum(1)  # check_sum

    def check(self, x: Tensor) -> None:
        """Raises."""
        check_points(x)
'''
IDEA = '''\
class Model:
    """y = f(x)."""

    def f(self, x: Tensor, count: int = 3) -> Tensor:
        """f(x) (B,) for x (B, 2),
        as it is."""

        checked = check_labels(count)
        if x.numel() == 0:
            raise ValueError("nothing")
        else:
            x = x + 1
        if checked:
            x = x - 1
        return x.sum(1)  # check_sum

    def check(self, x: Tensor) -> None:
        """Raises."""
        check_points(x)
'''


def test_a_listing_leaves_out_checks_and_the_tails_of_docstrings() -> None:
    """A check whose result is new stays, and so does a function that only checks."""
    assert idea(SOURCE) == IDEA
    ast.parse(idea(SOURCE))


def test_figures_have_the_shapes_asked_for() -> None:
    setup()
    figure, axes = plotting.panels(5, columns=2)
    assert len(axes) == 5
    assert figure.get_size_inches()[0] == plotting.WIDTH
    assert not axes[0].get_xticks().size
    plt.close(figure)
    colours = plotting.layer_colours(4)
    assert colours[0] == (1.0, 1.0, 1.0, 1.0)
    assert sum(colours[-1][:3]) == min(sum(colour[:3]) for colour in colours)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        plotting.panels(0)
    grid = plotting.grid_points((0, 10), (1, 12), 3)
    assert grid[:4].tolist() == [[0, 10], [0.5, 10], [1, 10], [0, 11]]


def test_a_measured_table_marks_its_values_and_escapes_words() -> None:
    html = measured_table("a < b", ["gap", "time"], {"Euler & co": ["0.1", "<2"]}).data
    assert html.count("<td data-measured>") == 2
    assert "<td data-measured>0.1</td><td data-measured>&lt;2</td>" in html
    for heading in ("a &lt; b", "gap", "time"):
        assert f'<th scope="col">{heading}</th>' in html
    assert '<th scope="row">Euler &amp; co</th>' in html
    with pytest.raises(ValueError, match="row 'Heun' must have 2 values, got 1"):
        measured_table("solver", ["gap", "time"], {"Heun": ["0.1"]})


def test_classes_get_a_colour_a_shape_and_a_legend_entry_each() -> None:
    figure, (axis,) = plotting.panels(1)
    x, label = torch.randn(50, 2), torch.arange(50) % 5
    plotting.scatter_classes(axis, x, label, ["a", "b", "c", "d", "e"])
    assert axis.get_legend_handles_labels()[1] == ["a", "b", "c", "d", "e"]
    clouds = axis.collections
    assert len({np.asarray(c.get_facecolor()).tobytes() for c in clouds}) == 5
    shapes = {np.asarray(c.get_paths()[0].vertices).tobytes() for c in clouds}
    assert len(shapes) == 5
    assert [np.asarray(c.get_offsets()).shape for c in clouds] == [(10, 2)] * 5
    plt.close(figure)
