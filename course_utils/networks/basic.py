"""Small networks that several model families share.

A *backbone* is the network inside a velocity or a denoiser. It is handed in, and any
module will do that can be called as

    backbone(x, time, condition) → the shape of x

with samples x (B, *shape), features of the time (B, T), and the embedded condition:
(B, E), tokens (B, L, E), or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from course_utils.checks import (
    check_alike,
    check_count,
    check_positive,
    check_shape,
)

# --- features -------------------------------------------------------------------------


class FourierFeatures(nn.Module):
    """γ(x) = (x, sin(kπx/b), cos(kπx/b)), k = 1 … K, for every coordinate of x.

    A plain network learns slow changes first; these features hand it fast ones, of
    period down to 2b/K (Tancik et al. 2020, arXiv:2006.10739).

    Shapes: x (B, D) → (B, D·(2K + 1)).

    Args:
        dim: D.
        frequencies: K; 0 leaves x as it is.
        bound: b, half the longest period, in the units of x.
    """

    k: Tensor

    def __init__(self, dim: int, frequencies: int, bound: float = 4.0) -> None:
        super().__init__()
        dim = check_count("dim", dim)
        frequencies = check_count("frequencies", frequencies, least=0)
        bound = check_positive("bound", bound)
        self.out_dim = dim * (2 * frequencies + 1)
        self.register_buffer("k", torch.arange(1, frequencies + 1) * torch.pi / bound)

    def forward(self, x: Tensor) -> Tensor:
        angle = (x[:, :, None] * self.k).flatten(1)  # (B, D·K)
        return torch.cat([x, angle.sin(), angle.cos()], dim=1)


class SinusoidalEmbedding(nn.Module):
    """PE(t)_{2i} = sin(t/10000^{2i/d}),   PE(t)_{2i+1} = cos(t/10000^{2i/d}).

    Here t is the time step of a sample, one number, where in a language model it is the
    place of a token. The slow waves tell far times apart, the fast ones near times.

    Shapes: t (B,) → (B, d).

    Args:
        dim: d, even.

    Source: Vaswani et al. 2017 (arXiv:1706.03762).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if check_count("dim", dim, least=2) % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.out_dim = dim
        i = torch.arange(dim // 2, dtype=torch.float64)
        self.rate = 10000 ** (-2 * i / dim)  # no buffer: it keeps its precision

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.rate.to(t)  # (B, d/2)
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


class PlainTime(nn.Module):
    """t over its largest value, and nothing else: (B,) → (B, 1)."""

    out_dim = 1

    def __init__(self, last: float = 1.0) -> None:
        super().__init__()
        self.last = last

    def forward(self, t: Tensor) -> Tensor:
        return t[:, None] / self.last


# --- networks -------------------------------------------------------------------------


def mlp(sizes: Sequence[int], *, zero_last: bool = False) -> nn.Sequential:
    """Linear layers with SiLU between them: sizes[0] → … → sizes[-1].

    Args:
        sizes: widths, the input's and the output's included.
        zero_last: start the last layer at zero, so that the output starts at zero.
    """
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(check_count("size", a), check_count("size", b)), nn.SiLU()]
    last = layers[-2]
    if zero_last and isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers[:-1])


def ask(
    backbone: nn.Module, x: Tensor, time: Tensor, condition: Tensor | None
) -> Tensor:
    """What a backbone gives for ``x``, held to the shape of ``x``.

    Raises:
        ValueError: another shape, which would be broadcast in silence.
    """
    return check_alike("what the backbone gives", backbone(x, time, condition), x)


def gradient_if_asked(x: Tensor) -> torch.set_grad_enabled:
    """A context with gradients if ``x`` requires one, and without them otherwise.

    Along a trajectory, memory grows with the number of steps if the way back is kept.
    A likelihood that is looked at needs none; one whose points require a gradient gives
    it to them, and to the weights too, so a model can be trained by it.
    """
    return torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """The network in evaluation and its weights without gradients, for a while."""
    mode = network.training
    learnt = [p for p in network.parameters() if p.requires_grad]
    try:
        network.eval()
        for parameter in learnt:
            parameter.requires_grad_(False)
        yield
    finally:
        network.train(mode)
        for parameter in learnt:
            parameter.requires_grad_(True)


class MLPBackbone(nn.Module):
    """net(γ(x), time, condition): a backbone for samples of few values.

    Samples of any shape are seen as a row of their D values. The output starts at zero.

    Args:
        shape: of one sample.
        time_dim: T, the number of features of the time.
        condition_dim: E, the size of the embedded condition; 0 for none.
        width, depth: width and number of the hidden layers.
        frequencies: Fourier features of each value of x, 0 for none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        time_dim: int,
        condition_dim: int = 0,
        *,
        width: int = 96,
        depth: int = 3,
        frequencies: int = 16,
    ) -> None:
        super().__init__()
        dim = prod(check_shape(shape))
        self.space = FourierFeatures(dim, frequencies)
        inputs = self.space.out_dim + time_dim + condition_dim
        hidden = [check_count("width", width)] * check_count("depth", depth)
        self.net = mlp([inputs, *hidden, dim], zero_last=True)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        """(B, *shape) for x (B, *shape), time (B, T) and condition (B, E) or None."""
        parts = [self.space(x.flatten(1)), time]
        if condition is not None:
            if condition.ndim != 2:
                raise ValueError(
                    "linear layers take a condition of shape (B, E), not tokens,"
                    f" got {tuple(condition.shape)}"
                )
            parts.append(condition)
        return self.net(torch.cat(parts, dim=1)).view_as(x)
