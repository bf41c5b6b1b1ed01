"""What pictures are worth that were drawn from captions.

A picture is right if the judge of digits sees the digit of its caption, and the nearest
of the ten colours is that of the caption. The judge refuses a few real digits too, and
errs in a few: what it says of real images is the yardstick.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.checks import check_count, check_labels
from course_utils.data.captions import Language, describe
from course_utils.data.colours import NAMES, check_rule, grey_of, nearest_colour
from course_utils.models.judge import Judge


class Pairs(NamedTuple):
    """Digits and colours that pictures are asked for.

    Attributes:
        digit, colour: int64, (N,).
    """

    digit: Tensor
    colour: Tensor

    def prompts(self, language: Language) -> list[str]:
        """The usual caption of each."""
        both = zip(self.digit.tolist(), self.colour.tolist(), strict=True)
        return [describe(language, digit, colour) for digit, colour in both]


def pairs_but(rule: tuple[int, ...], each: int, choices: int = 9) -> Pairs:
    """The pairs of ``tints_but(…, rule, choices)``, ``each`` times.

    Args:
        rule: digit → colour, ten pairs that are left out.
        each: how often each of the others comes.
        choices: how many colours a digit has, those that follow in the table.

    Raises:
        TypeError, ValueError: no rule for the ten digits, counts out of range.
    """
    if check_count("choices", choices) > 9:
        raise ValueError(f"choices must lie in 1 … 9, got {choices}")
    return _repeated(rule, range(1, choices + 1), each)


def pairs_of(rule: tuple[int, ...], each: int) -> Pairs:
    """The ten pairs of a rule, ``each`` times; see :func:`pairs_but`."""
    return _repeated(rule, range(1), each)


def _repeated(rule: tuple[int, ...], after: range, each: int) -> Pairs:
    """Digits with the colours at these distances from that of the rule."""
    table = torch.zeros(10, 10)
    first = torch.tensor(check_rule(rule, len(table)))
    for distance in after:
        table[range(10), (first + distance) % 10] = 1
    digit, colour = table.nonzero().repeat(check_count("each", each), 1).unbind(1)
    return Pairs(digit, colour)


class Seen(NamedTuple):
    """What is to be seen in pictures, one value for each.

    Attributes:
        digit: by the judge, −1 where it refuses, (N,).
        colour: the nearest of the ten, −1 where it is too dark, (N,).
    """

    digit: Tensor
    colour: Tensor

    def right(self, asked: Pairs) -> Tensor:
        """Whether digit and colour are those of the caption, (N,), bool.

        Raises:
            TypeError, ValueError: not a digit and a colour for each picture.
        """
        for part in asked:
            check_labels(part, classes=len(NAMES), batch=len(self.digit))
        return (self.digit == asked.digit) & (self.colour == asked.colour)

    def shares(self, asked: Pairs) -> Shares:
        """The shares of pictures that are right: in both, digit, colour."""
        return Shares(
            float(self.right(asked).double().mean()),
            float((self.digit == asked.digit).double().mean()),
            float((self.colour == asked.colour).double().mean()),
        )


class Shares(NamedTuple):
    """Shares of pictures that are right in both, in the digit, in the colour."""

    both: float
    digit: float
    colour: float


def see(judge: Judge, x: Tensor) -> Seen:
    """What the judge and the nearest colour say of pictures x (N, 3, H, W)."""
    return Seen(judge.digit(grey_of(x)), nearest_colour(x))
