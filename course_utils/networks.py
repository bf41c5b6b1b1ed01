"""Small networks that several model families share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from course_utils.checks import check_count, check_positive


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
        check_count("dim", dim)
        check_count("frequencies", frequencies, least=0)
        check_positive("bound", bound)
        self.out_dim = dim * (2 * frequencies + 1)
        self.register_buffer("k", torch.arange(1, frequencies + 1) * torch.pi / bound)

    def forward(self, x: Tensor) -> Tensor:
        angle = (x[:, :, None] * self.k).flatten(1)  # (B, D·K)
        return torch.cat([x, angle.sin(), angle.cos()], dim=1)


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
