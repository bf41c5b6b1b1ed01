"""What the browser knows of the rings, the same for every panel that draws on them."""

from __future__ import annotations

from typing import Any

from course_utils.data.rings import CENTRES, INNER, OUTER, OlympicRings


def scene(data: OlympicRings) -> dict[str, Any]:
    """The rings' edges, the window around them and the scale of ``data``."""
    circles = [[*centre, r] for centre in CENTRES.tolist() for r in (INNER, OUTER)]
    return {
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "circles": circles,  # of each ring the inner, then the outer
        "window": [-2.2, 6.2, -3.2, 2.2],  # left, right, bottom, top
    }
