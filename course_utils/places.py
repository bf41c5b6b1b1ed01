"""The place of a live panel in HTML: a panel writes it, the site finds it again.

    <div class="live" data-live="MODULE" data-state="NAME">…</div>

MODULE is the JavaScript that runs there, NAME the state it starts from. What the page's
script and styles look for are this class and these two attributes.
"""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

_NAME = re.compile(r"[\w-]+(/[\w-]+)*")
_TAG = re.compile(r'<div\b[^>]*\bclass="live"[^>]*>')
_ATTRIBUTE = re.compile(r'\bdata-(live|state)="([^"]*)"')


class Place(NamedTuple):
    """Which panel stands in a place.

    Attributes:
        module: the JavaScript module that runs there.
        state: the name of the state it starts from.
    """

    module: str
    state: str

    def html(self, inside: str = "", failed: str = "") -> str:
        """The place as HTML.

        Args:
            inside: HTML that stands there until the panel runs.
            failed: what is shown if it cannot be loaded.
        """
        module, state = escape(self.module), escape(self.state)
        message = f' data-failed="{escape(failed)}"' if failed else ""
        return (
            f'<div class="live" data-live="{module}" data-state="{state}"'
            f"{message}>{inside}</div>"
        )


def find_places(html: str) -> list[Place]:
    """The places in a piece of HTML, in order.

    Raises:
        ValueError: a place whose names are not made of words and slashes.
    """
    found = []
    for tag in _TAG.findall(html):
        attributes = dict(_ATTRIBUTE.findall(tag))
        for key in ("live", "state"):
            if not _NAME.fullmatch(attributes.get(key, "")):
                raise ValueError(
                    f"a live panel needs data-{key} made of words and slashes,"
                    f" got {tag}"
                )
        found.append(Place(attributes["live"], attributes["state"]))
    return found
