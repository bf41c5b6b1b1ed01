"""Classifier-free guidance: the same network asked twice, with and without condition.

    f_w(x | c) = f(x) + w·(f(x | c) − f(x))

f is a velocity, or a guess of x₀, ε or v: at one x_t these are affine in each other, so
it does not matter which of them is mixed. With w = 1 it is f(x | c). For the score of
x_t it is ∇log p(x) + w·∇log p(c | x), that of p(x)·p(c | x)^w at this noise level.

Source: Ho and Salimans 2022 (arXiv:2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from torch import Tensor

from course_utils.networks.conditioning import Conditioning, Unconditional


def guide(
    plain: Callable[[], Tensor], conditional: Callable[[], Tensor], strength: float
) -> Tensor:
    """f(x) + w·(f(x | c) − f(x)); what has weight 0 is not asked."""
    if strength == 1:
        return conditional()
    without = plain()
    return without if strength == 0 else without + strength * (conditional() - without)


def check_guided(
    condition: Conditioning, strength: float, plain: Conditioning | None
) -> None:
    """Refuse what cannot guide.

    Args:
        condition: what the model knows.
        strength: w.
        plain: what another model knows that is asked without a condition; None if it is
            the same model.

    Raises:
        ValueError: a strength that is not finite; a model that cannot do without a
            condition.
    """
    if not isfinite(strength):
        raise ValueError(f"strength must be a finite number, got {strength!r}")
    if plain is not None and not isinstance(plain, Unconditional):
        if not plain.optional:
            raise ValueError(
                "the plain model must do without a condition, got one that needs"
                f" {type(plain).__name__}"
            )
    elif plain is None and not condition.optional:
        raise ValueError(
            "guidance needs a model that was also trained without its condition:"
            f" expected a conditioning with drop > 0, got {type(condition).__name__}"
        )
