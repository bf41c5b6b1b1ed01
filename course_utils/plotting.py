"""Figures in one style: one palette, readable at the width of a phone.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; where a colour
carries meaning, a marker, a line style or a place carries it too.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats
from torch import Tensor

from course_utils.checks import check_count
from course_utils.data.rings import CENTRES, INNER, OUTER
from course_utils.data.square import RADII

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, INK, GREY = "#CC79A7", "#56B4E9", "#22272E", "#9AA4AF"
CLASSES = [BLUE, INK, RED, ORANGE, GREEN]  # five classes; the rings' own colours
MARKERS = ["o", "s", "^", "D", "v"]  # their shapes, for who cannot tell the colours
LAYER_TIME = LinearSegmentedColormap.from_list(
    "layer time", ["#FFFFFF", "#8CC5E8", "#08306B"]
)
WIDTH = 6.0  # inches; a phone shows it at 0.6 of its size
GAP = 2  # pixels between the images of a sheet


def use_style() -> None:
    """Set matplotlib to the book's style, with figures at twice the resolution."""
    set_matplotlib_formats("retina")
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(
                color=[BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK]
            ),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.titlesize": 12,
            "axes.labelsize": 12,
            "font.size": 12,
            "grid.color": "#E3E7EB",
            "legend.frameon": False,
            "legend.fontsize": 11,
            "lines.linewidth": 1.8,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )


def to_numpy(x: Tensor) -> np.ndarray:
    """A tensor as a numpy array."""
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def panels(
    count: int, columns: int = 3, ratio: float = 0.72
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` small maps, ``columns`` in a row, without ticks."""
    count, columns = check_count("count", count), check_count("columns", columns)
    rows = -(-count // columns)
    height = WIDTH / columns * ratio * rows + 0.25 * rows
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False)
    axes = list(grid.flat)
    for axis in axes:
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.spines[:].set_visible(False)
    return figure, axes[:count]


def map_axes(axis: Axes, low: Sequence[float], high: Sequence[float]) -> None:
    """Fix the window of a map, the same in every panel that is to be compared."""
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def scatter(axis: Axes, points: Tensor, **style: object) -> None:
    """A cloud of points (B, 2), small and slightly transparent."""
    x, y = to_numpy(points).T
    axis.scatter(x, y, **{"s": 3, "lw": 0, "alpha": 0.7, "c": BLUE, **style})  # type: ignore[arg-type]


def scatter_classes(
    axis: Axes, points: Tensor, label: Tensor, names: Sequence[str], **style: object
) -> None:
    """Points (B, 2) coloured and shaped by their class (B,), with legend entries.

    Raises:
        ValueError: more classes than can be told apart.
    """
    if len(names) > len(CLASSES):
        raise ValueError(
            f"names must be of at most {len(CLASSES)} classes, which colours and shapes"
            f" tell apart, got {len(names)}"
        )
    for c, name in enumerate(names):
        scatter(
            axis,
            points[label == c],
            **{"c": CLASSES[c], "marker": MARKERS[c], "label": name, "s": 5, **style},
        )


def rings_outline(axis: Axes) -> None:
    """The true edges of the Olympic rings, in raw coordinates, as thin grey circles."""
    for centre in CENTRES.tolist():
        for radius in (INNER, OUTER):
            axis.add_patch(
                plt.Circle(centre, radius, fill=False, ec=GREY, lw=0.5, zorder=0)
            )


def square_outline(axis: Axes, classes: bool = False) -> None:
    """The edge of the square [−1, 1]² as a thin grey line; those of its classes too."""
    axis.add_patch(plt.Rectangle((-1, -1), 2, 2, fill=False, ec=GREY, lw=0.8, zorder=0))
    for radius in RADII.tolist() if classes else []:
        axis.add_patch(
            plt.Circle((0, 0), radius, fill=False, ec=GREY, lw=0.5, zorder=0)
        )


def tile(images: Tensor, columns: int, gap: int = GAP) -> Tensor:
    """Images side by side on white paper, ``columns`` in a row.

    Args:
        images: (N, 1, H, W), as ink from 0 (none) to 1; or (N, 3, H, W), as red, green
            and blue light.
        columns: images in a row.
        gap: pixels between neighbours.

    Returns:
        One sheet (H', W') of ink, or (H', W', 3) of light, on which paper is 0 or 1.

    Raises:
        TypeError: not a tensor of floating dtype.
        ValueError: images of another shape, no image, no column, or a gap below 0.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating tensor, got {got}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise ValueError(
            "images must have shape (N, 1, H, W) or (N, 3, H, W) with N, H, W ≥ 1, "
            f"got {tuple(images.shape)}"
        )
    n, channels, height, width = images.shape
    down = height + check_count("gap", gap, least=0)
    across = width + gap
    rows = -(-n // check_count("columns", columns))
    paper = 0.0 if channels == 1 else 1.0
    sheet = images.new_full(
        (rows * down - gap, columns * across - gap, channels), paper
    )
    for i, image in enumerate(images):
        top, left = i // columns * down, i % columns * across
        sheet[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return sheet[..., 0] if channels == 1 else sheet


def show_images(
    axis: Axes, images: Tensor, columns: int, names: Sequence[str] = ()
) -> None:
    """Images in [0, 1] on white paper; values beyond are cut.

    Args:
        axis: where to draw.
        images: row by row, grey ones (N, 1, H, W) as dark ink, or coloured ones
            (N, 3, H, W).
        columns: images in a row.
        names: one for each row, written on the left.

    Raises:
        TypeError, ValueError: as for :func:`tile`.
    """
    sheet = to_numpy(tile(images, columns)).clip(0, 1)
    axis.imshow(sheet, cmap="Greys", vmin=0, vmax=1)  # colours need no map
    step = images.shape[2] + GAP
    axis.set(xticks=[], yticks=[step * i + (step - GAP) / 2 for i in range(len(names))])
    axis.set_yticklabels(names)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def layer_colours(steps: int) -> list[tuple[float, float, float, float]]:
    """One colour a step, white for the start and darkest for the end."""
    return [
        LAYER_TIME(i / (check_count("steps", steps, least=2) - 1)) for i in range(steps)
    ]


def trajectories(axis: Axes, path: Tensor) -> None:
    """Paths (T, B, 2): a grey thread through points coloured from white to dark."""
    for points in to_numpy(path).swapaxes(0, 1):  # (T, 2)
        axis.plot(*points.T, color=GREY, lw=0.8, zorder=1)
    for points, colour in zip(path, layer_colours(len(path)), strict=True):
        scatter(
            axis, points, c=[colour], s=22, alpha=1, lw=0.5, edgecolors=INK, zorder=2
        )


def curve_with_floor(
    axis: Axes,
    step: Sequence[int],
    values: Sequence[float],
    floor: float,
    *,
    label: str = "loss",
) -> None:
    """A loss curve above its exact floor, the gap between them shaded."""
    axis.plot(step, values, label=label)
    axis.axhline(
        floor, color=INK, ls=(0, (4, 2)), lw=1.2, label=f"exact floor {floor:.3f}"
    )
    axis.fill_between(step, floor, values, color=BLUE, alpha=0.12, lw=0)


def grid_points(low: Sequence[float], high: Sequence[float], count: int) -> Tensor:
    """A count × count grid over a window, row by row: (count², 2)."""
    x = torch.linspace(low[0], high[0], check_count("count", count))
    y = torch.linspace(low[1], high[1], count)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
