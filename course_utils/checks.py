"""Checks of what comes in: each says what was expected and what came.

A tensor without values (on torch's ``meta`` device, or a fake one) stands for one on
another machine: its type, shape, dtype and device are checked, its values are not.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat, SupportsIndex

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def has_values(x: Tensor) -> bool:
    """Whether a tensor holds numbers that can be looked at."""
    return not (x.is_meta or isinstance(x, FakeTensor))


# --- samples --------------------------------------------------------------------------


def check_samples(
    x: Tensor,
    *,
    shape: Sequence[int],
    like: Tensor | None = None,
    name: str = "samples",
    finite: bool = True,
) -> Tensor:
    """Return ``x`` if it is a batch of finite samples of one shape.

    Args:
        x: samples (B, *shape), B ≥ 1.
        shape: of one sample: (2,) for points on the plane, (3, 8, 8) for images.
        like: a weight of the model that they are for, whose dtype and device they must
            have; None allows any floating dtype and any device. In mixed precision
            torch sees to the dtypes.
        name: what the samples are called in the message.
        finite: whether NaN and infinity are looked for.

    Raises:
        TypeError: not a tensor of floating dtype, or not of the model's dtype.
        ValueError: wrong shape or device, an empty batch, NaN or infinity.
    """
    expected = f"(B, {', '.join(map(str, shape))})"
    if not isinstance(x, Tensor):
        got = type(x).__name__
        raise TypeError(f"{name} must be a torch.Tensor of shape {expected}, got {got}")
    if tuple(x.shape[1:]) != tuple(shape) or x.ndim != len(shape) + 1:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(
            f"{name} must hold at least one row, got an empty batch {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype, got {x.dtype}")
    if like is not None and x.dtype != like.dtype and not _autocast(x):
        raise TypeError(
            f"{name} must have dtype {like.dtype} like the model, got {x.dtype}"
        )
    if like is not None and x.device != like.device:
        raise ValueError(
            f"{name} must be on {like.device} like the model, got {x.device}"
        )
    return check_finite(name, x) if finite else x


def _autocast(x: Tensor) -> bool:
    """Whether torch mixes precisions on the device of ``x``."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def check_points(x: Tensor, *, dim: int = 2) -> Tensor:
    """Return ``x`` if it is a batch of finite points (B, dim) of floating dtype.

    Raises:
        TypeError, ValueError: as for :func:`check_samples`.
    """
    return check_samples(x, shape=(dim,), name="points")


def check_images(
    x: Tensor, *, shape: Sequence[int], like: Tensor | None = None
) -> Tensor:
    """Return ``x`` if it is a batch of finite images (B, C, H, W) of one shape.

    Raises:
        TypeError, ValueError: as for :func:`check_samples`.
    """
    return check_samples(x, shape=shape, like=like, name="images")


def check_alike(name: str, x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` if it has the shape of ``like``, so that nothing is broadcast.

    Raises:
        ValueError: otherwise.
    """
    if x.shape != like.shape:
        raise ValueError(
            f"{name} must have shape {tuple(like.shape)}, got {tuple(x.shape)}"
        )
    return x


def check_finite(name: str, x: Tensor) -> Tensor:
    """Return ``x`` (B, …) if no value is NaN or infinite.

    Raises:
        ValueError: otherwise, naming the first row.
    """
    # a sum is cheap, and finite only if all that is summed is
    if not has_values(x) or x.sum().isfinite() or x.isfinite().all():
        return x
    finite = x.flatten(1).isfinite().all(dim=1)
    first = int((~finite).nonzero()[0])
    raise ValueError(
        f"{name} must be finite, got {int((~finite).sum())} of {len(x)} rows with NaN"
        f" or infinity, the first at row {first}"
    )


def check_times(
    t: Tensor, *, batch: int, first: float, last: float, whole: bool = False
) -> Tensor:
    """Return ``t`` if it is one time for each sample.

    Args:
        t: times (B,) of floating dtype.
        batch: B.
        first, last: what t may be, with room for rounding.
        whole: whether times are whole numbers, which need no room.

    Raises:
        TypeError: not a tensor of floating dtype.
        ValueError: wrong shape, a time outside [first, last], NaN; a time between
            whole numbers, if only they are allowed.
    """
    if not isinstance(t, Tensor) or not t.is_floating_point():
        got = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"t must be a floating tensor of shape ({batch},), got {got}")
    if t.shape != (batch,):
        raise ValueError(
            f"t must have shape ({batch},), a time for each sample,"
            f" got {tuple(t.shape)}"
        )
    if has_values(t):
        rounding = 0.0 if whole else max(1e-6, torch.finfo(t.dtype).eps)
        slack = rounding * (last - first)
        if not ((t >= first - slack) & (t <= last + slack)).all():
            raise ValueError(
                f"t must lie in [{first:g}, {last:g}], got"
                f" {float(t.min()):g} … {float(t.max()):g}"
            )
        if whole and (t != t.round()).any():
            raise ValueError(
                f"t must be a whole number from {first:g} to {last:g}, got"
                f" {float(t[t != t.round()][0]):g}"
            )
    return t


def check_labels(label: Tensor, *, classes: int, batch: int) -> Tensor:
    """Return ``label`` if it is an index in 0 … classes−1 for each of the samples.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: wrong shape, or a label out of range.
    """
    if not isinstance(label, Tensor) or label.dtype != torch.int64:
        got = label.dtype if isinstance(label, Tensor) else type(label).__name__
        raise TypeError(f"labels must be a torch.int64 tensor, got {got}")
    if label.shape != (batch,):
        raise ValueError(f"labels must have shape ({batch},), got {tuple(label.shape)}")
    if label.numel() and has_values(label):
        low, high = int(label.min()), int(label.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels must lie in 0 … {classes - 1}, got {low} … {high}"
            )
    return label


def split_batch(batch: Any) -> tuple[Tensor, Any]:
    """Samples and their condition, or None, from a batch of any usual form.

    Args:
        batch: the samples (B, …); or a tuple or list of them alone, or of them and
            their condition, as a ``DataLoader`` makes. What follows, such as the places
            that a set of images gives, is left out.

    Raises:
        TypeError: a batch of another form.
    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, tuple | list) and batch:
        return batch[0], (batch[1] if len(batch) > 1 else None)
    empty = "an empty " if isinstance(batch, tuple | list) else ""
    raise TypeError(
        "a batch must be samples, or (samples, condition), got"
        f" {empty}{type(batch).__name__}"
    )


# --- settings -------------------------------------------------------------------------


def check_count(name: str, value: SupportsIndex, *, least: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number ≥ ``least``.

    Whole numbers of numpy and torch are taken, booleans are not.

    Raises:
        TypeError: not a whole number.
        ValueError: too small.
    """
    boolean = isinstance(value, bool) or _boolean(value)
    try:
        whole = operator.index(value)
    except TypeError:
        boolean = True
    if boolean:
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if whole < least:
        raise ValueError(f"{name} must be at least {least}, got {whole}")
    return whole


def _boolean(value: Any) -> bool:
    """Whether it is a boolean of torch or numpy."""
    return getattr(value, "dtype", None) in (torch.bool, "bool")


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple, if it is one.

    Raises:
        TypeError: not a row of whole numbers.
        ValueError: no axis, or one of size below 1.
    """
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise TypeError(f"shape must be like (2,) or (3, 8, 8), got {shape!r}")
    if not shape:
        raise ValueError("shape must have at least one axis, got ()")
    return tuple(check_count("a size in shape", size) for size in shape)


def check_number(name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float if it is a number, be it NaN or infinite.

    Numbers of numpy and tensors of shape () are taken, booleans and texts are not.

    Raises:
        TypeError: no number.
    """
    word = isinstance(value, bool | str | bytes) or not hasattr(value, "__float__")
    if word or len(getattr(value, "shape", "")) or _boolean(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value.detach() if isinstance(value, Tensor) else value)


def check_positive(name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float if it is a finite number > 0.

    Raises:
        TypeError: no number.
        ValueError: a number that is not above 0, NaN or infinite.
    """
    number = check_number(name, value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def check_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """Return a source of random numbers, or None for torch's own.

    Raises:
        TypeError: something else, such as a seed.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    raise TypeError(
        "generator must be a torch.Generator, as seeded(0) of course_utils.notebook"
        f" makes, or None, got {generator!r}"
    )


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
