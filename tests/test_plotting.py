"""Sheets of images: which pixel lands where."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from course_utils.notebook import seeded
from course_utils.plotting import show_images, tile


@pytest.fixture
def axis() -> Iterator[Axes]:
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def images(count: int, height: int = 4, width: int = 3) -> Tensor:
    """Images without a pixel that is 0."""
    return 0.1 + 0.9 * torch.rand(count, 1, height, width, generator=seeded(0))


@pytest.mark.parametrize("gap", [0, 1, 2])
def test_images_lie_row_by_row_with_gaps(gap: int) -> None:
    """Five images, two in a row: the sixth place stays empty."""
    x = images(5)
    sheet = tile(x, 2, gap)
    assert sheet.shape == (3 * 4 + 2 * gap, 2 * 3 + gap)
    left = sheet.clone()
    for i, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]):
        top, side = row * (4 + gap), column * (3 + gap)
        assert torch.equal(sheet[top : top + 4, side : side + 3], x[i, 0])
        left[top : top + 4, side : side + 3] = 0
    assert not left.any()  # the gaps and the empty place are white


def test_one_row_and_one_column() -> None:
    x = images(3)
    assert tile(x, 3).shape == (4, 3 * 3 + 2 * 2)
    assert tile(x, 1).shape == (3 * 4 + 2 * 2, 3)
    assert torch.equal(tile(x[:1], 1), x[0, 0])
    assert tile(x, 5).shape == (4, 5 * 3 + 4 * 2)  # two places empty
    assert tile(x.double(), 2).dtype == torch.float64
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        tile(x, 0)


def test_coloured_images_lie_on_white() -> None:
    x = 0.9 * torch.rand(5, 3, 4, 2, generator=seeded(1))  # no pixel is white
    sheet = tile(x, 2, gap=1)
    assert sheet.shape == (3 * 4 + 2, 2 * 2 + 1, 3)
    left = sheet.clone()
    for i, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]):
        top, side = row * 5, column * 3
        part = sheet[top : top + 4, side : side + 2]
        assert torch.equal(part, x[i].permute(1, 2, 0))
        left[top : top + 4, side : side + 2] = 1
    assert (left == 1).all()  # the gaps and the empty place


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 2, 4, 4), ValueError, r"or \(N, 3, H, W\).*\(2, 2, 4, 4\)"),
        (torch.zeros(2, 4, 4, 4), ValueError, r"got \(2, 4, 4, 4\)"),
        (torch.zeros(3, 4, 4), ValueError, r"got \(3, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4), ValueError, r"≥ 1, got \(0, 1, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4).byte(), TypeError, r"got torch\.uint8"),
        (np.zeros((2, 1, 4, 4)), TypeError, "got ndarray"),
    ],
)
def test_what_is_no_image_is_refused(
    axis: Axes, x: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tile(x, 2)
    with pytest.raises(error, match=message):
        show_images(axis, x, 2)
    with pytest.raises(ValueError, match="gap must be at least 0, got -1"):
        tile(images(2), 2, gap=-1)


def test_colours_are_shown_as_they_are_and_cut(axis: Axes) -> None:
    x = 1.5 * torch.rand(6, 3, 4, 3, generator=seeded(2)) - 0.2
    show_images(axis, x, 3, ["one", "two"])
    (shown,) = axis.images
    seen = np.asarray(shown.get_array())
    assert seen.shape == (10, 13, 3)
    assert np.array_equal(seen, tile(x, 3).clamp(0, 1).numpy())


def test_what_is_shown_is_the_sheet(axis: Axes) -> None:
    x = images(6)
    show_images(axis, x, 3)
    (shown,) = axis.images
    assert np.array_equal(np.asarray(shown.get_array()), tile(x, 3).numpy())
    assert list(axis.get_xticks()) == list(axis.get_yticks()) == []


def test_ink_is_dark_on_white_paper_and_values_beyond_are_cut(axis: Axes) -> None:
    x = torch.tensor([-3.0, 0.0, 0.5, 1.0, 9.0]).view(1, 1, 1, 5)
    show_images(axis, x, 1)
    (shown,) = axis.images
    level = np.asarray(shown.norm(x.flatten().numpy()))
    colour = np.asarray(shown.cmap(level))[:, :3].mean(1)
    assert colour[1] == pytest.approx(1)
    assert colour[3] == pytest.approx(0)
    assert 0.3 < colour[2] < 0.7
    assert colour[0] == colour[1]
    assert colour[4] == colour[3]


def test_names_stand_beside_the_middle_of_their_rows(axis: Axes) -> None:
    """Row i begins at pixel 30·i and has 28, the first of them around 0."""
    x, names = images(6, 28, 28), ["one", "two", "three"]
    show_images(axis, x, 2, names)
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    for i, place in enumerate(axis.get_yticks()):
        assert place == pytest.approx(30 * i + 13.5, abs=0.51)
    low, high = axis.get_ylim()
    assert low > high  # the first row is on top
    assert (low, high) == (3 * 28 + 2 * 2 - 0.5, -0.5)
