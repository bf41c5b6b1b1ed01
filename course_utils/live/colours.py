"""What the browser knows of the ten colours, for every panel that shows them."""

from __future__ import annotations

from typing import Any

from course_utils.data.colours import COLOURS, DARK, NAMES
from course_utils.live.panel import encode


def palette() -> dict[str, Any]:
    """The colours' names and their light, and below which grey level there is none."""
    return {"names": list(NAMES), "light": encode(COLOURS), "dark": DARK}
