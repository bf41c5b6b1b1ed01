"""Checks of what comes in: each says what was expected and what came."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def check_points(
    x: Tensor, *, dim: int = 2, dtype: torch.dtype | None = None
) -> Tensor:
    """Return ``x`` if it is a batch of finite points.

    Args:
        x: points of shape (B, dim), B ≥ 1.
        dim: the number of coordinates.
        dtype: the dtype expected; None allows any floating dtype.

    Raises:
        TypeError: not a tensor, or the wrong dtype.
        ValueError: wrong shape, an empty batch, NaN or infinite coordinates.
    """
    if not isinstance(x, Tensor):
        got = type(x).__name__
        raise TypeError(f"points must be a torch.Tensor of shape (B, {dim}), got {got}")
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"points must have shape (B, {dim}), got {tuple(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(
            f"points must hold at least one row, got an empty batch {tuple(x.shape)}"
        )
    if dtype is None and not x.is_floating_point():
        raise TypeError(f"points must have a floating dtype, got {x.dtype}")
    if dtype is not None and x.dtype != dtype:
        raise TypeError(f"points must have dtype {dtype} like the model, got {x.dtype}")
    finite = x.isfinite().all(dim=1)
    if not finite.all():
        bad = int((~finite).sum())
        first = int((~finite).nonzero()[0])
        raise ValueError(
            f"points must be finite, got {bad} of {len(x)} rows with NaN or infinity, "
            f"the first at row {first}"
        )
    return x


def check_images(x: Tensor, *, shape: tuple[int, ...] = (1, 28, 28)) -> Tensor:
    """Return ``x`` if it is a batch of finite images of one shape.

    Args:
        x: images of shape (B, …), B ≥ 1.
        shape: channels, height, width.

    Raises:
        TypeError: not a tensor of floating dtype.
        ValueError: wrong shape, an empty batch, NaN or infinite pixels.
    """
    expected = ", ".join(map(str, shape))
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"images must be a floating tensor (B, {expected}), got {got}")
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape or len(x) == 0:
        raise ValueError(
            f"images must have shape (B, {expected}) with B ≥ 1, got {tuple(x.shape)}"
        )
    # a sum is cheap, and finite only if all that is summed is
    if not x.sum().isfinite() and not x.isfinite().all():
        raise ValueError("images must be finite, got NaN or infinite pixels")
    return x


def check_labels(label: Tensor, *, classes: int, batch: int) -> Tensor:
    """Return ``label`` if it is an index in 0 … classes−1 for each of the points.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: wrong shape, or a label out of range.
    """
    if not isinstance(label, Tensor) or label.dtype != torch.int64:
        got = label.dtype if isinstance(label, Tensor) else type(label).__name__
        raise TypeError(f"labels must be a torch.int64 tensor, got {got}")
    if label.shape != (batch,):
        raise ValueError(f"labels must have shape ({batch},), got {tuple(label.shape)}")
    if label.numel() and (label.min() < 0 or label.max() >= classes):
        raise ValueError(
            f"labels must lie in 0 … {classes - 1},"
            f" got {int(label.min())} … {int(label.max())}"
        )
    return label


def check_condition(label: Tensor | None, *, classes: int, batch: int) -> None:
    """Refuse labels that a model has no use for, and the lack of those it needs.

    Args:
        label: class indices of shape (batch,), or None.
        classes: how many classes the model knows; 0 for none.
        batch: the number of points they belong to.

    Raises:
        TypeError, ValueError: labels missing, unexpected, or not as
            :func:`check_labels` wants them.
    """
    if classes and label is None:
        raise ValueError(f"this model has {classes} classes: expected labels, got None")
    if label is not None:
        if not classes:
            raise ValueError("this model has no classes: expected no labels")
        check_labels(label, classes=classes, batch=batch)


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """Return ``value`` if it is a whole number ≥ ``least``.

    Raises:
        TypeError: not a whole number.
        ValueError: too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_positive(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number > 0.

    Raises:
        ValueError: otherwise.
    """
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return value


def check_option(name: str, value: str, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``options``.

    Raises:
        ValueError: otherwise, listing the options.
    """
    known = list(options)
    if value not in known:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}"
        )
    return value
