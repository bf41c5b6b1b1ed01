"""Muon: momentum whose matrices are made orthogonal before they are a step.

    B ← μ·B + G                      momentum of the gradient G of a matrix W (A, B)
    O ← orthogonal(G + μ·B)          U·Vᵀ of its singular value decomposition U·S·Vᵀ
    W ← (1 − γ·λ)·W − γ·0.2·√max(A, B)·O

All directions of a step are equally long, not only those of large gradients. The factor
0.2·√max(A, B) gives its entries the size that AdamW's have, so the same γ serves both.

``torch.optim.Muon`` is the same in bfloat16, which is ten times slower on processors
without instructions for it; here a step is computed in the dtype of the weights.

Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks";
Liu et al. 2025 (arXiv:2502.16982) for the factor and the weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from course_utils.checks import check_count, check_number, check_positive

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al.
EPS = 1e-7


def orthogonal(G: Tensor, steps: int = 5) -> Tensor:
    """About U·Vᵀ of a matrix G = U·S·Vᵀ (A, B), by products alone.

    With ‖X‖ = 1 at the start, X ← a·X + (b·XXᵀ + c·(XXᵀ)²)·X moves each singular value
    s to a·s + b·s³ + c·s⁵. Small ones grow fast: after 5 steps those that were at least
    0.01 lie between 0.68 and 1.14, which is near enough to 1 for a step.

    Args:
        G: the matrix.
        steps: how many.
    """
    a, b, c = COEFFICIENTS
    wide = G.shape[0] <= G.shape[1]
    X = G if wide else G.mT
    X = X / X.norm().clamp(min=EPS)
    for _ in range(steps):
        square = X @ X.mT
        X = torch.addmm(
            X, torch.addmm(square, square, square, beta=b, alpha=c), X, beta=a
        )
    return X if wide else X.mT


class Muon(Optimizer):
    """The optimizer of the module's text, for matrices.

    Args:
        parameters: matrices; what a table of embeddings holds are rows, no matrix.
        lr: γ.
        weight_decay: λ.
        momentum: μ.
        steps: of :func:`orthogonal`.

    Raises:
        TypeError: settings that are no numbers.
        ValueError: settings out of range, a parameter that is no matrix.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 0.02,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        steps: int = 5,
    ) -> None:
        if not 0 <= check_number("momentum", momentum) < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum!r}")
        if not 0 <= check_number("weight_decay", weight_decay) < float("inf"):
            raise ValueError(
                "weight_decay must be a finite number of at least 0,"
                f" got {weight_decay!r}"
            )
        settings = {
            "lr": check_positive("lr", lr),
            "weight_decay": weight_decay,
            "momentum": momentum,
            "steps": check_count("steps", steps),
        }
        super().__init__(parameters, settings)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take in more matrices, as torch's optimizers do; none, if one is no matrix.

        Raises:
            ValueError: a parameter that is no matrix.
        """
        found = param_group["params"]
        found = [found] if isinstance(found, Tensor) else list(found)
        for W in found:
            if isinstance(W, Tensor) and W.ndim != 2:
                raise ValueError(
                    f"Muon moves matrices (A, B), got shape {tuple(W.shape)}"
                )
        super().add_param_group({**param_group, "params": found})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step along the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for W in group["params"]:
                if W.grad is not None:
                    self._move(W, W.grad, group)
        return loss

    def _move(self, W: nn.Parameter, G: Tensor, group: dict[str, Any]) -> None:
        """The step of one matrix."""
        mu, rate = group["momentum"], group["lr"]
        state = self.state[W]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(G)
        B = state["momentum"].mul_(mu).add_(G)
        O = orthogonal(G + mu * B, group["steps"])
        W.mul_(1 - rate * group["weight_decay"])
        W.add_(O, alpha=-rate * 0.2 * sqrt(max(W.shape)))
