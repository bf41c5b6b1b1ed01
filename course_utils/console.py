"""Lines that can be printed on any console, whatever letters it knows."""

from __future__ import annotations

import sys
from typing import TextIO

# What stands for a sign where the console has none; other letters become "?"
PLAIN = {"✓": "OK", "✗": "NO", "≤": "<=", "≥": ">=", "−": "-", "·": "*", "…": "..."}


def say(line: object, file: TextIO | None = None) -> None:
    """Print a line; a console of another encoding shows what it can of it.

    Args:
        line: what is printed.
        file: where; standard output by default.
    """
    out = file or sys.stdout
    print(printable(str(line), getattr(out, "encoding", None)), file=out, flush=True)


def printable(text: str, encoding: str | None) -> str:
    """The text in letters that an encoding has; all of it where that is not known."""
    if encoding is None or _has(text, encoding):
        return text
    plain = "".join(
        sign if _has(sign, encoding) else PLAIN.get(sign, sign) for sign in text
    )
    return plain.encode(encoding, "replace").decode(encoding)


def _has(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    except LookupError:  # no encoding that is known
        return True
    return True
