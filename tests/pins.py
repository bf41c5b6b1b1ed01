"""``requirements.txt``: its sections, and all that its packages bring along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MODELS = "The models and the notebooks"
NOTEBOOKS = "Reading and running the notebooks"
SITE = "Building the site"
TESTING = "Testing"
BROUGHT = "What these bring along"


def sections(text: str) -> dict[str, list[Requirement]]:
    """The pins below each heading; headings stand after an empty line.

    Raises:
        InvalidRequirement: a line that pip would not take either.
    """
    found: dict[str, list[Requirement]] = {}
    for block in text.strip().split("\n\n"):
        heading, *lines = block.splitlines()
        pins = [Requirement(line) for line in lines if line[:1] not in "#-"]
        if pins:
            found[heading.removeprefix("# ")] = pins
    return found


SECTIONS = sections((ROOT / "requirements.txt").read_text(encoding="utf-8"))


def names(pins: Iterable[Requirement]) -> set[str]:
    """The names of some requirements, as packages compare them."""
    return {canonicalize_name(pin.name) for pin in pins}


def brought_along(
    packages: Iterable[str], environment: Mapping[str, str] | None = None
) -> list[tuple[str, Requirement]]:
    """All that packages need, and what that needs, each with the name of who needs it.

    Args:
        packages: names; one that is not installed here counts as needing nothing.
        environment: values of markers that differ from those of this Python.
    """
    left = [(canonicalize_name(name), "") for name in packages]
    seen, found = set(left), []
    while left:
        name, extra = left.pop()
        for need in _needs(name):
            marker, values = need.marker, {**(environment or {}), "extra": extra}
            if marker is not None and not marker.evaluate(values):
                continue
            found.append((str(name), need))
            parts = {(canonicalize_name(need.name), e) for e in ("", *need.extras)}
            left += parts - seen
            seen |= parts
    return found


def _needs(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
