"""The claims helper prints what holds, raises what does not, reads its lines back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from course_utils.claims import Claim, ClaimError, claim, parse_claims

GAP = "spline flow: gap to the entropy floor"


def test_line_of_a_true_claim(capsys: pytest.CaptureFixture[str]) -> None:
    claim("NF1", GAP, 0.0312, "<", 0.040, unit="nats")
    expected = f"✓ NF1 {GAP} < 0.040 nats (measured 0.031)\n"
    assert capsys.readouterr().out == expected


def test_a_false_claim_raises_and_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ClaimError) as error:
        claim("NF1", GAP, 0.0512, "<", 0.040, unit="nats")
    assert str(error.value) == f"✗ NF1 {GAP} < 0.040 nats (measured 0.051)"
    assert isinstance(error.value, AssertionError)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("measured", "op", "bound", "printed"),
    [
        (1, "<", 2, "< 2 (measured 1)"),
        (2, "<=", 2, "≤ 2 (measured 2)"),
        (2, "≤", 2.0, "≤ 2.000 (measured 2)"),
        (3.5, ">", 2, "> 2 (measured 3.500)"),
        (2.0, ">=", 2, "≥ 2 (measured 2.000)"),
        (2, "≥", 2, "≥ 2 (measured 2)"),
        (7, "==", 7, "= 7 (measured 7)"),
        ("a red seven", "=", "a red seven", "= a red seven (measured a red seven)"),
        (True, "=", True, "= True (measured True)"),
        (-math.inf, "=", -math.inf, "= -inf (measured -inf)"),
        (torch.tensor(0.25), "<", 0.5, "< 0.500 (measured 0.250)"),
        (0.000012, "<", 0.5, "< 0.500 (measured 0.00001)"),
        (0.0, "<", 0.5, "< 0.500 (measured 0.000)"),
        (np.float32(0.25), "<", 0.5, "< 0.500 (measured 0.250)"),
        (np.int64(3), "=", torch.tensor(3), "= 3 (measured 3)"),
    ],
)
def test_operators_and_scalars(
    capsys: pytest.CaptureFixture[str], measured: Any, op: str, bound: Any, printed: str
) -> None:
    claim("VAE3a", "a measured thing", measured, op, bound)
    assert capsys.readouterr().out == f"✓ VAE3a a measured thing {printed}\n"


@pytest.mark.parametrize(
    ("measured", "op", "bound"),
    [
        (2, "<", 2),
        (2, ">", 2),
        (3, "≤", 2),
        (1, "≥", 2),
        (1, "=", 2),
        ("a", "=", "b"),
        (math.nan, "<", 1),
        (math.nan, ">", 1),
        (math.nan, "=", 1.0),
        (math.inf, ">", 1),
        (-math.inf, "<", 1),
        (math.inf, "≥", 1),
        (math.inf, "=", -math.inf),
        (torch.tensor(float("nan")), "<", 1),
    ],
)
def test_false_claims_raise(measured: Any, op: str, bound: Any) -> None:
    with pytest.raises(ClaimError, match=r"^✗ NF1 x "):
        claim("NF1", "x", measured, op, bound)


def test_rounding_never_contradicts_the_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    claim("NF1", "gap", 0.03996, "<", 0.040)
    assert capsys.readouterr().out == "✓ NF1 gap < 0.040 (measured 0.03996)\n"
    with pytest.raises(ClaimError, match=r"≤ 0\.040 \(measured 0\.04004\)"):
        claim("NF1", "gap", 0.04004, "≤", 0.040)


def test_digits(capsys: pytest.CaptureFixture[str]) -> None:
    claim("SC1", "test accuracy", 97.814, ">=", 97.69, unit="%", digits=2)
    assert capsys.readouterr().out == "✓ SC1 test accuracy ≥ 97.69 % (measured 97.81)\n"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"question": "nf1"},
            ValueError,
            "question must look like NF1 or VAE3a, got 'nf1'",
        ),
        ({"question": "NF1\n"}, ValueError, "question"),
        ({"question": "NF"}, ValueError, "question"),
        ({"op": "!="}, ValueError, "op must be one of .*, got '!='"),
        ({"text": " "}, ValueError, "text must say what is measured"),
        ({"text": "a\nb"}, ValueError, "text must be one line"),
        ({"text": "a (measured b"}, ValueError, "without '\\(measured'"),
        ({"unit": "a\nb"}, ValueError, "unit must be one line"),
        (
            {"measured": torch.zeros(2)},
            TypeError,
            r"measured must be a scalar, got shape \(2,\)",
        ),
        ({"measured": np.zeros((1, 1))}, TypeError, r"got shape \(1, 1\)"),
        (
            {"measured": [1.0]},
            TypeError,
            "measured must be a number or a string, got list",
        ),
        ({"measured": None}, TypeError, "got NoneType"),
        ({"measured": 1j}, TypeError, "got complex"),
        ({"measured": "a"}, TypeError, "one kind, got 'a' and 1"),
        ({"measured": "a", "bound": "b"}, TypeError, "< compares numbers"),
        ({"measured": True}, TypeError, "< compares numbers"),
        (
            {"measured": "(a)", "op": "=", "bound": "(a)"},
            ValueError,
            "without parentheses",
        ),
        ({"bound": math.inf}, ValueError, "bound of < must be finite, got inf"),
        (
            {"bound": math.nan, "op": "="},
            ValueError,
            "bound of = must be finite, got nan",
        ),
        ({"bound": 0.0405}, ValueError, "bound 0.0405 has more than digits=3 decimals"),
    ],
)
def test_bad_input(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    good: dict[str, Any] = {
        "question": "NF1",
        "text": "gap",
        "measured": 0,
        "op": "<",
        "bound": 1,
        "unit": "nats",
    }
    with pytest.raises(error, match=message):
        claim(**(good | change))


def test_printed_claims_are_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    print("training time: 15.1 CPU-seconds")
    claim("NF1", GAP, 0.0312, "<", 0.040, unit="nats")
    claim("NF5", "rank of the outside point (of 5)", 4, ">=", 4)
    assert parse_claims(capsys.readouterr().out) == [
        Claim("NF1", f"{GAP} < 0.040 nats", "0.031"),
        Claim("NF5", "rank of the outside point (of 5) ≥ 4", "4"),
    ]


def test_other_lines_are_no_claims() -> None:
    assert (
        parse_claims("✗ NF1 gap < 1 (measured 2)\n✓ all fine\nNF1 gap < 1 (measured 0)")
        == []
    )


def test_a_tiny_number_is_no_zero(capsys: pytest.CaptureFixture[str]) -> None:
    claim("NF1", "gap", 1e-20, ">", 0.0)
    line = capsys.readouterr().out
    assert line == "✓ NF1 gap > 0.000 (measured 1e-20)\n"
    assert parse_claims(line.replace("\n", "\r\n"))[0].measured == "1e-20"


def test_a_whole_number_may_be_larger_than_a_float() -> None:
    claim("NF1", "count", 10**400, ">", 3)


@pytest.mark.parametrize(
    ("statement", "parts"),
    [
        ("gap < 0.040 nats", ("gap", "< 0.040 nats")),
        ("v = 0 against π - floor ≥ 1 %", ("v = 0 against π - floor", "≥ 1 %")),
        ("order of the points = A B C", ("order of the points", "= A B C")),
        ("הפער < 0.040 nats", ("הפער", "< 0.040 nats")),
    ],
)
def test_a_claim_has_a_text_and_a_bound(statement: str, parts: tuple[str, str]) -> None:
    assert Claim("NF1", statement, "0.031").parts == parts


def test_a_claim_without_a_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="must end in an operator and its bound"):
        _ = Claim("NF1", "the gap is small", "0.031").parts
