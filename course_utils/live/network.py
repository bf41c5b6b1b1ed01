"""Networks of images for the browser: layer after layer, weights in half precision."""

from __future__ import annotations

import base64
import json
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.live.panel import as_bytes, encode
from course_utils.networks.basic import frozen

LIMIT = 300_000  # characters of a panel's state: what a reader has to load
HEAVY = 3_000_000  # characters of the weights that a reader loads on a click


def network_state(network: nn.Module) -> list[dict[str, Any]]:
    """The layers for ``network.js``, as in evaluation.

    A batch normalization is folded into the convolution before it.

    Args:
        network: layers in a row: ``Linear``, ``Conv2d`` with or without a
            ``BatchNorm2d`` after it, ``ConvTranspose2d``, ``MaxPool2d``, ``ReLU``,
            ``SiLU``, ``Sigmoid``, ``Flatten``, ``Unflatten``.

    Raises:
        TypeError: not a ``Sequential``, or one with a layer that the browser lacks.
        ValueError: a layer with settings that the browser lacks; weights out of range.
    """
    if not isinstance(network, nn.Sequential):
        got = type(network).__name__
        raise TypeError(f"the panel runs an nn.Sequential, got {got}")
    state: list[dict[str, Any]] = []
    layers = list(network)
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            state.append(_convolution(layer, *_folded(layer, after)))
        elif (
            isinstance(layer, nn.BatchNorm2d) and state and state[-1]["kind"] == "conv"
        ):
            continue  # is in the convolution
        else:
            state.append(_layer_state(layer))
    return state


@torch.no_grad()
def check_decoder(
    decoder: nn.Module, latent: int, *shapes: tuple[int, int, int]
) -> None:
    """Refuse a decoder that does not make an image of so many numbers.

    Raises:
        ValueError: one from other inputs, or to images of none of ``shapes``.
    """
    wanted = " or ".join(f"(B, {', '.join(map(str, shape))})" for shape in shapes)
    expected = f"the panel needs a decoder from (B, {latent}) to {wanted}"
    first = next(decoder.children(), None)
    if not isinstance(first, nn.Linear) or first.in_features != latent:
        raise ValueError(f"{expected}, got one whose first is {first}")
    with frozen(decoder):
        shape = tuple(decoder(first.weight.new_zeros(1, latent)).shape)
    if shape[1:] not in shapes:
        raise ValueError(f"{expected}, got one to {shape}")


def check_size(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a panel if a reader can load it quickly.

    Raises:
        ValueError: more than 300,000 characters.
    """
    size = len(json.dumps(state))
    if size > LIMIT:
        raise ValueError(
            f"a panel's state must have at most {LIMIT:,} characters, got {size:,}: "
            "take a smaller network or fewer images"
        )
    return state


def all_weights(network: nn.Module) -> tuple[list[tuple[str, list[int]]], bytes]:
    """All weights of a network for a panel that loads them when the reader asks.

    Returns:
        the name and the shape of each, and their values in half precision.

    Raises:
        ValueError: weights out of range, or more than 3,000,000 characters of them.
    """
    named = list(network.named_parameters())
    weights = check_weights(b"".join(halves(weight) for _, weight in named))
    return [(name, list(weight.shape)) for name, weight in named], weights


def check_weights(weights: bytes) -> bytes:
    """Return weights that are loaded on a click if a reader can load them.

    Raises:
        ValueError: more than 3,000,000 characters of them.
    """
    if (size := 4 * -(-len(weights) // 3)) > HEAVY:  # in base64
        raise ValueError(
            f"weights must have at most {HEAVY:,} characters, got {size:,}: take a"
            " smaller network"
        )
    return weights


def layers_apart(layers: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """Layers of :func:`network_state` without their weights, and these for a click.

    Returns:
        the layers, with the number of values in the place of each weight and bias;
        these values in half precision, one after the other.
    """
    values = {
        (i, name): base64.b64decode(layer[name])
        for i, layer in enumerate(layers)
        for name in ("weight", "bias")
        if name in layer
    }
    apart = [dict(layer) for layer in layers]
    for (i, name), value in values.items():
        apart[i][name] = len(value) // 2
    return apart, b"".join(values.values())


def halves(x: Tensor) -> bytes:
    """Values in half precision.

    Raises:
        ValueError: values that it cannot hold.
    """
    _check_half(x)
    return as_bytes(x.half(), "<f2")


def _layer_state(layer: nn.Module) -> dict[str, Any]:
    """One layer, without its neighbours."""
    match layer:
        case nn.Linear():
            return {"kind": "linear", **_weights(layer.weight, layer.bias)}
        case nn.Conv2d():
            return _convolution(layer, layer.weight, layer.bias)
        case nn.ConvTranspose2d():
            _check(layer, output_padding=(0, 0))
            return _convolution(layer, layer.weight, layer.bias)
        case nn.MaxPool2d():
            size = layer.kernel_size
            if not isinstance(size, int):
                raise ValueError(f"the panel pools squares, got {layer}")
            _check(layer, stride=size, padding=0, dilation=1, ceil_mode=False)
            return {"kind": "maxpool", "size": size}
        case nn.ReLU():
            return {"kind": "relu"}
        case nn.SiLU():
            return {"kind": "silu"}
        case nn.Sigmoid():
            return {"kind": "sigmoid"}
        case nn.Flatten():
            _check(layer, start_dim=1, end_dim=-1)
            return {"kind": "flatten"}
        case nn.Unflatten():
            _check(layer, dim=1)
            return {"kind": "unflatten", "shape": list(layer.unflattened_size)}
        case _:
            raise TypeError(f"the panel does not run a layer like {layer}")


def _convolution(
    layer: nn.Conv2d | nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None
) -> dict[str, Any]:
    """A convolution or a transposed one, with these weights."""
    (stride, across), padding = layer.stride, layer.padding
    if stride != across or isinstance(padding, str) or padding[0] != padding[1]:
        raise ValueError(f"the panel runs the same on both axes, got {layer}")
    _check(layer, dilation=(1, 1), groups=1, padding_mode="zeros")
    return {
        "kind": "conv" if isinstance(layer, nn.Conv2d) else "deconv",
        "stride": stride,
        "padding": padding[0],
        **_weights(
            weight, weight.new_zeros(layer.out_channels) if bias is None else bias
        ),
    }


def _folded(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its normalization in evaluation.

    γ·(w∗x + b − m)/√(v + ε) + β = (s·w)∗x + s·(b − m) + β,    s = γ/√(v + ε)
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"the panel needs running statistics, got {norm}")
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
    if norm.affine:
        scale = norm.weight * scale
    bias = scale * shift + (norm.bias if norm.affine else 0)
    return scale[:, None, None, None] * layer.weight, bias


def _weights(weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
    """Weight and bias in half precision, with the weight's shape."""
    if bias is None:
        bias = weight.new_zeros(len(weight))
    for x in (weight, bias):
        _check_half(x)
    return {
        "shape": list(weight.shape),
        "weight": encode(weight, "<f2"),
        "bias": encode(bias, "<f2"),
    }


def _check_half(x: Tensor) -> None:
    """Refuse weights that half precision cannot hold."""
    if not x.detach().half().isfinite().all():
        largest = float(x.detach().abs().max())
        raise ValueError(
            f"weights must fit half precision, at most 65,504, got {largest:g}"
        )


def _check(layer: nn.Module, **expected: object) -> None:
    """Refuse a layer with other settings than these."""
    for name, value in expected.items():
        found = getattr(layer, name)
        if found != value:
            raise ValueError(
                f"the panel runs layers with {name}={value!r}, got {layer}"
            )


def encode_grey(image: Tensor) -> str:
    """Grey levels in [0, 1] as base64 of bytes."""
    return encode((255 * torch.clamp(image, 0, 1)).round(), "u1")
