"""What a code cell is for, and what of it a page shows at once.

``metadata.role`` says it. A page shows the result and the idea; what makes a figure or
checks a claim is one click away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# role → the tag by which MyST-NB treats the cell's code; None: it stands open
ROLES: dict[str, str | None] = {
    "setup": "hide-input",  # imports, seeds, data: the first code cell
    "listing": "remove-input",  # shows source code of the package
    "code": None,  # what a student would write: models, steps, calls
    "scratch": None,  # a model from an empty file
    "figure": "hide-input",  # draws
    "panel": "hide-input",  # shows a live panel
    "table": "hide-input",  # tabulates
    "claim": "hide-input",  # measures and claims
}
SCRATCH_LINES = 30  # at most, of a cell with the role scratch


def fold(cell: dict[str, Any]) -> None:
    """Tag a code cell by its role, in place."""
    tag = ROLES.get(cell["metadata"].get("role", ""))
    if tag is not None:
        tags = cell["metadata"].setdefault("tags", [])
        if tag not in tags:
            tags.append(tag)


def misfits(cell: Mapping[str, Any], first: bool) -> list[str]:
    """How a code cell does not fit its role.

    Args:
        cell: a code cell.
        first: whether it is the first code cell of its notebook.
    """
    role, source = cell["metadata"].get("role"), "".join(cell["source"])
    if role not in ROLES:
        return [f"metadata.role: expected one of {', '.join(ROLES)}, got {role!r}"]
    problems = []
    imports = re.match(r"(?:from|import) ", source) is not None
    if (role == "setup") != (first and imports) and role != "scratch":
        problems.append(
            "metadata.role: expected setup for the first code cell, which imports, and"
            f" for no other, got {role}"
        )
    if ("show_source(" in source) != (role == "listing") and not imports:
        problems.append(f"role {role}: show_source(…) and the role listing go together")
    if role in ("code", "scratch"):
        problems += [
            f"role {role}: expected no {call}, which belongs into a folded cell"
            for call in ("claim(", "measured_table(")
            if call in source
        ]
    if role == "code":
        problems += [
            f"role code: expected nothing that draws, got {call}"
            for call in ("plt.", "plotting.", ".plot(", ".scatter(", ".imshow(")
            if call in source
        ]
    if role == "scratch":
        lines = source.count("\n") + 1
        if lines > SCRATCH_LINES:
            problems.append(
                f"role scratch: expected at most {SCRATCH_LINES} lines, got {lines}"
            )
        if "course_utils" in source:
            problems.append("role scratch: expected nothing of course_utils")
    shows = any(
        kind.startswith("image/")
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    )
    if cell.get("outputs") and shows != (role in ("figure", "scratch")):
        problems.append(
            f"role {role}: expected {'no image' if shows else 'an image'} in its output"
        )
    return problems
