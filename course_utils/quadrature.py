"""Integrals as sums: Gauss and Legendre's rule.

    ∫ f(x) dx from low to high ≈ Σ_i w_i·f(x_i),

exact for polynomials up to degree 2·nodes − 1, and close for what they come close to.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from course_utils.checks import check_count


def gauss_legendre(
    low: float, high: float, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places x_i in (low, high), ascending, and weights w_i: each (nodes,), float64.

    The weights add up to high − low.

    Raises:
        TypeError: nodes that are not a whole number.
        ValueError: no node, or ends that are not two finite numbers low ≤ high.
    """
    if not (isfinite(low) and isfinite(high) and low <= high):
        raise ValueError(
            f"low and high must be finite numbers, low ≤ high, got {low!r} and {high!r}"
        )
    place, weight = np.polynomial.legendre.leggauss(check_count("nodes", nodes))
    half = (high - low) / 2  # the rule is made for [−1, 1]
    return low + half * (place + 1), half * weight
