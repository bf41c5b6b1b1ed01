"""Claims: the verdicts that a notebook prints, checked as they are printed.

A chapter answers its question in words, and the run must support them. Each such
sentence is one call of :func:`claim`, which prints one line

    ✓ <question> <text> <op> <bound> <unit> (measured <value>)

or stops the notebook. :func:`parse_claims` reads the lines back; the format lives here
only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from course_utils.console import say

_SYMBOLS = {
    "<": "<",
    "<=": "≤",
    "≤": "≤",
    ">": ">",
    ">=": "≥",
    "≥": "≥",
    "==": "=",
    "=": "=",
}
_QUESTION = re.compile(r"[A-Z]+\d+[a-z]?")
_LINE = re.compile(
    r"^✓ ([A-Z]+\d+[a-z]?) (.+) \(measured ([^()\n]+)\)\r?$", re.MULTILINE
)
_MOST_DIGITS = 17  # of a float64

Scalar = bool | int | float | str


class ClaimError(AssertionError):
    """A claim that the run does not support."""


_CONDITION = re.compile(r"(.*) ([<≤>≥=] .*)", re.DOTALL)


@dataclass(frozen=True)
class Claim:
    """One printed claim: ``statement`` is its text, operator, bound and unit."""

    question: str
    statement: str
    measured: str

    @property
    def parts(self) -> tuple[str, str]:
        """The text; the operator with the bound and its unit: ``< 0.040 nats``.

        Raises:
            ValueError: the statement has no operator.
        """
        found = _CONDITION.fullmatch(self.statement)
        if found is None:
            raise ValueError(
                "a claim must end in an operator and its bound, such as '< 0.040 nats',"
                f" got {self.statement!r}"
            )
        return found[1], found[2]


def claim(
    question: str,
    text: str,
    measured: Any,
    op: str,
    bound: Any,
    unit: str = "",
    digits: int = 3,
) -> None:
    """Print ``✓ NF1 text < 0.040 nats (measured 0.031)`` if it is true.

    Args:
        question: id of the question that the claim answers, such as ``NF1`` or
            ``VAE3a``.
        text: what is measured, in words.
        measured: a number, a string, or a tensor or array of shape ().
        op: ``<``, ``≤``, ``>``, ``≥`` or ``=`` (also ``<=``, ``>=``, ``==``). ``=`` is
            exact and meant for counts, strings and exact values.
        bound: a number or string. It is compared as it is printed: a float must have no
            more than ``digits`` decimals, and only ``=`` takes an infinite one.
        unit: what follows the bound, such as ``nats`` or ``%``.
        digits: decimals of a printed float. The measured value gets more where rounding
            would make the printed line contradict its verdict (0.03996 is not "0.040"
            beside "< 0.040") or turn a small number into 0.000.

    A NaN or infinite ``measured`` never satisfies a claim, with one exception:
    ``= inf`` and ``= -inf`` hold for exactly that value.

    Raises:
        ClaimError: ``✗ NF1 text < 0.040 nats (measured 0.051)``, if it does not hold.
        TypeError: ``measured`` or ``bound`` is no scalar, or the two cannot be
            compared.
        ValueError: an ill-formed id, text, unit or bound, or an unknown operator.
    """
    if op not in _SYMBOLS:
        raise ValueError(f"op must be one of {', '.join(_SYMBOLS)}, got {op!r}")
    symbol = _SYMBOLS[op]
    value, limit = _scalar("measured", measured), _scalar("bound", bound)
    _check_words(question, text, unit)
    _check_bound(value, symbol, limit, digits)

    verdict = _holds(value, symbol, limit)
    statement = " ".join(filter(None, [text, symbol, _show(limit, digits), unit]))
    shown = _show_measured(value, symbol, limit, digits)
    line = f"{'✓' if verdict else '✗'} {question} {statement} (measured {shown})"
    if not verdict:
        raise ClaimError(line)
    say(line)


def parse_claims(text: str) -> list[Claim]:
    """The claims among the printed lines of ``text``, in order."""
    return [Claim(*match) for match in _LINE.findall(text)]


def _scalar(name: str, value: Any) -> Scalar:
    """``value`` as a plain Python scalar."""
    shape = tuple(getattr(value, "shape", ()))
    if shape:
        raise TypeError(f"{name} must be a scalar, got shape {shape}")
    plain = value.item() if hasattr(value, "item") else value
    if not isinstance(plain, Scalar):
        raise TypeError(
            f"{name} must be a number or a string, got {type(value).__name__}"
        )
    return plain


def _check_words(question: str, text: str, unit: str) -> None:
    """Refuse words that could not be read back from the printed line."""
    if not _QUESTION.fullmatch(question):
        raise ValueError(f"question must look like NF1 or VAE3a, got {question!r}")
    if not text.strip():
        raise ValueError(f"text must say what is measured, got {text!r}")
    for name, words in (("text", text), ("unit", unit)):
        if "\n" in words or "(measured" in words:
            raise ValueError(
                f"{name} must be one line without '(measured', got {words!r}"
            )


def _check_bound(value: Scalar, symbol: str, limit: Scalar, digits: int) -> None:
    """Refuse what cannot be compared, and a bound that would print as another."""
    if isinstance(value, str) != isinstance(limit, str):
        raise TypeError(
            f"measured and bound must be of one kind, got {value!r} and {limit!r}"
        )
    if symbol != "=" and (
        isinstance(value, bool | str) or isinstance(limit, bool | str)
    ):
        raise TypeError(f"{symbol} compares numbers, got {value!r} and {limit!r}")
    for name, word in (("measured", value), ("bound", limit)):
        if isinstance(word, str) and not re.fullmatch(r"[^()\n]+", word):
            raise ValueError(
                f"{name} must be one line without parentheses, got {word!r}"
            )
    if not isinstance(limit, float):
        return
    if math.isnan(limit) or (math.isinf(limit) and symbol != "="):
        raise ValueError(f"bound of {symbol} must be finite, got {limit}")
    if round(limit, digits) != limit:
        raise ValueError(f"bound {limit!r} has more than digits={digits} decimals")


def _holds(value: Scalar, symbol: str, limit: Any) -> bool:
    """Whether ``value symbol limit`` is true."""
    if symbol == "=":
        return value == limit
    number: Any = value if isinstance(value, int) else float(value)
    if isinstance(number, float) and not math.isfinite(number):
        return False
    verdicts = {
        "<": number < limit,
        "≤": number <= limit,
        ">": number > limit,
        "≥": number >= limit,
    }
    return verdicts[symbol]


def _show(value: Scalar, digits: int) -> str:
    """Floats with ``digits`` decimals, everything else plain."""
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _show_measured(value: Scalar, symbol: str, limit: Scalar, digits: int) -> str:
    """``value`` with the fewest decimals, from ``digits`` on, that keep its meaning."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    verdict = _holds(value, symbol, limit)
    enough = (
        d
        for d in range(digits, _MOST_DIGITS)
        if _keeps(value, symbol, limit, d, verdict)
    )
    fewest = next(enough, None)
    return f"{value:.{digits}g}" if fewest is None else _show(value, fewest)


def _keeps(
    value: float, symbol: str, limit: Scalar, digits: int, verdict: bool
) -> bool:
    """Whether ``value`` rounded to ``digits`` keeps its verdict and is no bare 0."""
    rounded = round(value, digits)
    return _holds(rounded, symbol, limit) == verdict and (rounded != 0 or value == 0)
