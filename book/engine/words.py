"""Words of figures, tables and printed lines, from English into Hebrew.

What a run draws, tabulates and prints is English. The Hebrew edition shows it in Hebrew
with the words of ``book/strings/words.yml`` and of the cell's ``metadata.words``, where
``{}`` stands for a number:

    "epoch {}": "אפוק {}"
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import yaml

from engine import BOOK

IN_HEBREW = "image/x-he+png"  # a figure with Hebrew words: its type, and its place

MATH = re.compile(r"\$[^$]*\$")
QUOTED = re.compile("“[^”]*”")  # what a model wrote, say
_NUMBER = r"[-−+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
# What stands in both editions as it is: names of methods, models and data, units
_NAMES = re.compile(
    r"\b(?:[A-Z][A-Za-z]*[A-Z0-9][A-Za-z0-9]*|Adam|AdamW|Muon|Euler–Maruyama|nats?"
    r"|sigma|alpha|beta|log|exp|cos|sin|div|ms|std)\b"
)
_WORD = re.compile(r"[A-Za-z]{2,}")


@functools.cache
def common_words() -> dict[str, str]:
    """The words that several chapters share."""
    text = (BOOK / "strings" / "words.yml").read_text(encoding="utf-8")
    words: dict[str, str] = yaml.safe_load(text)
    return words


class Words:
    """A dictionary that knows the common words and those of one cell."""

    def __init__(self, own: Mapping[str, str] | None = None) -> None:
        words = common_words() | dict(own or {})
        self._exact = {text: he for text, he in words.items() if "{}" not in text}
        self._patterns = [
            (re.compile(_pattern(text)), he)
            for text, he in words.items()
            if "{}" in text
        ]

    def __call__(self, text: str) -> str | None:
        """The text in Hebrew; as it is, if it has no words; None, if that is unknown.

        What stands on several lines is looked up as a whole, then line by line.
        """
        bare = text.strip()
        if bare in self._exact:
            return self._exact[bare]
        for pattern, he in self._patterns:
            if found := pattern.fullmatch(bare):
                return _filled(he, found.groups())
        if is_wordless(bare):
            return text
        lines = text.split("\n")
        if len(lines) > 1:
            worded = [self(line) for line in lines]
            if None not in worded:
                return "\n".join(filter(None, worded))
        return None


def _pattern(text: str) -> str:
    return f"({_NUMBER})".join(map(re.escape, text.split("{}")))


def is_wordless(text: str) -> bool:
    """Whether a text says the same in both: symbols, numbers, names, quotations."""
    bare = QUOTED.sub(" ", MATH.sub(" ", text))
    return not _WORD.search(_NAMES.sub(" ", bare))


def _filled(text: str, values: tuple[str, ...]) -> str:
    """The text with its ``{}`` filled in, one after the other."""
    parts = text.split("{}")
    return "".join(
        part + value for part, value in zip(parts, (*values, ""), strict=False)
    )
