"""Studies: what was measured is kept, and only what is missing runs again."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

from course_utils.studies.__main__ import NAMES
from course_utils.studies.store import SECONDS, Study, StudyError, spread

CALLS: list[tuple[int, float]] = []


def measure(seed: int, size: float) -> dict[str, float]:
    CALLS.append((seed, size))
    return {"size": size, "drawn": float(torch.rand(()))}


def study(folder: Path, **sizes: float) -> Study:
    CALLS.clear()
    return Study("sizes", measure, {k: {"size": v} for k, v in sizes.items()}, folder)


def test_a_study_is_stored_and_not_repeated(tmp_path: Path) -> None:
    first = study(tmp_path, small=1.0, large=9.0)
    with pytest.raises(
        StudyError, match=r"'small' must be measured first: run `python"
    ):
        first.stored()
    first.run(range(2))
    assert CALLS == [(0, 1.0), (0, 9.0), (1, 1.0), (1, 9.0)]
    table = first.stored()
    assert list(table) == ["small", "large"]
    assert table["large"]["size"] == [9.0, 9.0]
    assert len(set(table["large"]["drawn"])) == 2  # each seed draws its own
    assert SECONDS in table["small"]
    first.run(range(3), ["large"])
    assert CALLS[4:] == [(2, 9.0)]
    # the same seed gives the same, outside the study too
    assert first.once("large", 1)["drawn"] == pytest.approx(table["large"]["drawn"][1])
    assert [p.name for p in tmp_path.iterdir()] == ["sizes.json"]


def test_other_settings_are_measured_anew(tmp_path: Path) -> None:
    study(tmp_path, small=1.0, large=9.0).run(range(1))
    changed = study(tmp_path, small=2.0, large=9.0)
    with pytest.raises(StudyError, match="'small'"):
        changed.stored()
    changed.run(range(1))
    assert CALLS == [(0, 2.0)]
    assert json.loads(changed.path.read_text())["small"]["settings"] == {"size": 2.0}


def test_what_was_measured_outlives_an_interruption(tmp_path: Path) -> None:
    def stops(seed: int, size: float) -> dict[str, float]:
        if size > 5:
            raise KeyboardInterrupt
        return measure(seed, size)

    rows = {"small": {"size": 1.0}, "large": {"size": 9.0}}
    with pytest.raises(KeyboardInterrupt):
        Study("sizes", stops, rows, tmp_path).run(range(2))
    study(tmp_path, small=1.0, large=9.0).run(range(1))
    assert CALLS == [(0, 9.0)]


def test_bad_rows_seeds_and_values_are_refused(tmp_path: Path) -> None:
    one = study(tmp_path, small=float("nan"))
    with pytest.raises(ValueError, match="small: size must be finite, got nan"):
        one.once("small")
    with pytest.raises(ValueError, match="row must be one of 'small', got 'big'"):
        one.run(range(1), ["big"])
    with pytest.raises(ValueError, match="seed must be at least 0"):
        one.once("small", -1)


def test_the_spread() -> None:
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    with pytest.raises(ValueError, match="two values or more, got 1"):
        spread([1.0])


def test_every_study_of_the_book_is_stored() -> None:
    """Each has run with the settings that stand in its module."""
    assert NAMES
    for name in NAMES:
        one: Study = import_module(f"course_utils.studies.{name}").STUDY
        assert one.name == name
        for row, measured in one.stored().items():
            assert all(measured.values()), row
