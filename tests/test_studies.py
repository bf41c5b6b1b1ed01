"""Studies: what was measured is kept, and only what is missing runs again."""

import inspect
import json
import multiprocessing
from pathlib import Path

import pytest
import torch

from course_utils.studies import captions
from course_utils.studies.__main__ import STUDIES, main
from course_utils.studies.store import SECONDS, Study, StudyError, spread, told

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


def quick(seed: int, row: int) -> dict[str, float]:
    return {"row": row, "seed": seed}


def run_some(folder: Path, first: int) -> None:
    rows = {str(k): {"row": k} for k in range(12)}
    study = Study("many", quick, rows, folder)
    study.run(range(4), [str(k) for k in range(first, 12, 2)])


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=run_some, args=(tmp_path, k)) for k in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["many.json"]
    kept = json.loads((tmp_path / "many.json").read_text())
    assert {row: list(one["seeds"]) for row, one in kept.items()} == {
        str(k): ["0", "1", "2", "3"] for k in range(12)
    }


def test_seeds_of_other_quantities_are_told(tmp_path: Path) -> None:
    def changed(seed: int, size: float) -> dict[str, float]:
        return {"size": size} if seed else measure(seed, size)

    one = Study("sizes", changed, {"small": {"size": 1.0}}, tmp_path)
    one.run(range(2))
    with pytest.raises(StudyError, match=r"'small' must have size, .* on seed 1"):
        one.stored()


def test_bad_rows_seeds_and_values_are_refused(tmp_path: Path) -> None:
    one = study(tmp_path, small=float("nan"))
    with pytest.raises(ValueError, match="small: size must be finite, got nan"):
        one.once("small")
    with pytest.raises(ValueError, match="row must be one of 'small', got 'big'"):
        one.run(range(1), ["big"])
    with pytest.raises(ValueError, match="seed must be at least 0"):
        one.once("small", -1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--rows", "big"], "--rows must be of 'continuous 2'"),
        (["--seeds", "0"], "must be at least 1"),
        (["--threads", "-1"], "must be at least 1"),
    ],
)
def test_the_command_says_what_it_wants(
    given: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["studies", "vaes", *given])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err


def test_the_spread() -> None:
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    with pytest.raises(ValueError, match="two values or more, got 1"):
        spread([1.0])


def test_what_a_table_tells_of_several_seeds() -> None:
    assert told([1.0, 2.0, 4.0], 2) == "2.00 ± 1.53"
    assert told([0.12345]) == "0.123"
    with pytest.raises(ValueError, match="one value or more, got none"):
        told([])


@pytest.mark.parametrize("name", STUDIES)
def test_rows_have_settings_that_a_study_takes(name: str) -> None:
    one = STUDIES[name]
    taken = inspect.signature(one.measure)
    for settings in one.rows.values():
        taken.bind(0, **settings)
    assert len({repr(settings) for settings in one.rows.values()}) == len(one.rows)
    assert json.loads(json.dumps(one.rows)) == one.rows  # as they are kept


NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SHOWN = [
    name
    for name in STUDIES
    for path in sorted(NOTEBOOKS.rglob("*.ipynb"))
    if f"course_utils.studies.{name} " in path.read_text(encoding="utf-8")
    or f"course_utils.studies import {name}" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_the_book(name: str) -> None:
    """Each that a chapter shows has run with the settings that stand in its module."""
    for measured in STUDIES[name].stored().values() if name in SHOWN else []:
        assert all(measured.values())


# --- captions -------------------------------------------------------------------------


def test_a_straight_line_at_constant_speed_is_even() -> None:
    start, end = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    times = torch.linspace(0, 1, 11)[:, None, None]
    assert captions.unevenness(start + times * (end - start)) < 1e-10


def test_unevenness_is_that_of_the_steps_by_hand() -> None:
    # steps of 2 and 0 on the way to 2: both are off by 1, so (1 + 1)·2/2²
    path = torch.tensor([0.0, 2.0, 2.0]).view(3, 1, 1)
    assert captions.unevenness(path) == pytest.approx(1.0)


def test_shares_leave_out_what_cannot_be_read() -> None:
    law = captions.law(torch.tensor([3, 3, -1, 9]))
    assert law.tolist() == pytest.approx([0, 0, 0, 2 / 3, 0, 0, 0, 0, 0, 1 / 3])
