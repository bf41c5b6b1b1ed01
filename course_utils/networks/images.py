"""Networks that see and make images of any number of channels and any size.

Weights are kept with their channels last, the order that convolutions on a CPU like
best.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from course_utils.checks import check_count, check_shape


def channels_last(network: nn.Module) -> nn.Module:
    """The same network, its convolutions' weights with their channels last."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def conv_encoder(
    out_dim: int,
    width: int = 8,
    hidden: int = 256,
    shape: Sequence[int] = (1, 28, 28),
) -> nn.Module:
    """Two strided convolutions, two linear layers: (B, C, H, W) to (B, out_dim).

    Args:
        out_dim: numbers that come out.
        width: channels of the first layer, w; the second has 2w.
        hidden: width of the linear layer between.
        shape: (C, H, W) of an image; H and W can be divided by 4.

    Raises:
        ValueError: counts below 1, or another kind of shape.
    """
    channels, *quarter = _quarter(shape)
    w, hidden = check_count("width", width), check_count("hidden", hidden)
    layers = nn.Sequential(
        nn.Conv2d(channels, w, 4, stride=2, padding=1),  # (B, w, H/2, W/2)
        nn.SiLU(),
        nn.Conv2d(w, 2 * w, 4, stride=2, padding=1),  # (B, 2w, H/4, W/4)
        nn.SiLU(),
        nn.Flatten(),  # (B, 2w·H/4·W/4)
        nn.Linear(2 * w * prod(quarter), hidden),
        nn.SiLU(),
        nn.Linear(hidden, check_count("out_dim", out_dim)),
    )
    return channels_last(layers)


def conv_decoder(
    latent: int,
    width: int = 8,
    hidden: int = 256,
    shape: Sequence[int] = (1, 28, 28),
) -> nn.Module:
    """The encoder's mirror image: (B, latent) to (B, C, H, W), see there."""
    channels, *quarter = _quarter(shape)
    w, hidden = check_count("width", width), check_count("hidden", hidden)
    layers = nn.Sequential(
        nn.Linear(check_count("latent", latent), hidden),
        nn.SiLU(),
        nn.Linear(hidden, 2 * w * prod(quarter)),
        nn.SiLU(),
        nn.Unflatten(1, (2 * w, *quarter)),  # (B, 2w, H/4, W/4)
        nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1),  # (B, w, H/2, W/2)
        nn.SiLU(),
        nn.ConvTranspose2d(w, channels, 4, stride=2, padding=1),  # (B, C, H, W)
    )
    return channels_last(layers)


def _quarter(shape: Sequence[int]) -> tuple[int, int, int]:
    """C, H/4 and W/4 of images (C, H, W)."""
    sizes = check_shape(shape)
    if len(sizes) != 3 or sizes[1] % 4 or sizes[2] % 4:
        raise ValueError(
            "images must have a shape (C, H, W) whose sides can be divided by 4,"
            f" got {sizes}"
        )
    channels, height, width = sizes
    return channels, height // 4, width // 4
