"""A study: many trainings, measured alike, and the file that keeps the outcome.

A chapter cannot train a hundred models in three minutes. A study does, once, by a
command, and stores what it measured beside its code; the chapter reads the table and
repeats one training of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch

from course_utils.cache import locked
from course_utils.checks import check_count, check_option
from course_utils.console import say
from course_utils.training.run import own_randomness

Measured = dict[str, float]
SECONDS = "CPU-seconds"  # the quantity that every study has


class StudyError(LookupError):
    """A study has not run, or ran with other settings."""


@dataclass(frozen=True)
class Study:
    """Rows of settings, each measured on several seeds.

    Attributes:
        name: of the study, its command and its file.
        measure: ``measure(seed, **settings)`` trains and gives name → value.
        rows: name of a row → its settings, made of JSON's types.
        folder: where the file is.
    """

    name: str
    measure: Callable[..., Measured]
    rows: Mapping[str, Mapping[str, Any]]
    folder: Path = Path(__file__).parent

    @property
    def path(self) -> Path:
        """The file of what was measured."""
        return self.folder / f"{self.name}.json"

    def once(self, row: str, seed: int = 0) -> Measured:
        """Train and measure one row on one seed, with the CPU-seconds it took.

        Raises:
            ValueError: an unknown row, or a quantity that is no finite number.
        """
        check_option("row", row, self.rows)
        seed = check_count("seed", seed, least=0)
        start = time.process_time()
        with own_randomness(seed):
            found = {
                name: float(value)
                for name, value in self.measure(seed, **self.rows[row]).items()
            }
        found.setdefault(SECONDS, time.process_time() - start)
        for name, value in found.items():
            if not isfinite(value):
                raise ValueError(f"{row}: {name} must be finite, got {value!r}")
        return found

    def run(self, seeds: Collection[int], rows: Collection[str] = ()) -> None:
        """Measure what is not stored yet, and store it after each training.

        Args:
            seeds: of each row.
            rows: which; all of them if none is named.
        """
        for row in rows:
            check_option("row", row, self.rows)
        for seed in seeds:
            for row in rows or self.rows:
                if str(seed) in self._read().get(row, {}).get("seeds", {}):
                    continue
                found = self.once(row, seed)
                self._add(row, seed, found)
                told = ", ".join(f"{k} {v:.4g}" for k, v in found.items())
                say(f"{self.name}, {row}, seed {seed}: {told}")

    def stored(self) -> dict[str, dict[str, list[float]]]:
        """row → quantity → its value on each seed, in the order of the seeds.

        Raises:
            StudyError: a row that was not measured, or with other settings; seeds of
                which other quantities were measured.
        """
        kept = self._read()
        table = {}
        for row in self.rows:
            if row not in kept:
                raise StudyError(
                    f"row {row!r} must be measured first: run"
                    f" `python -m course_utils.studies {self.name}`"
                )
            seeds = sorted(kept[row]["seeds"].items(), key=lambda item: int(item[0]))
            names = seeds[0][1]
            for seed, measured in seeds:
                if measured.keys() != names.keys():
                    raise StudyError(
                        f"row {row!r} must have {', '.join(names)} on every seed, got"
                        f" {', '.join(measured)} on seed {seed}"
                    )
            table[row] = {
                name: [measured[name] for _, measured in seeds] for name in names
            }
        return table

    def _read(self) -> dict[str, Any]:
        """What is stored of rows whose settings have not changed since."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return {
            row: kept[row]
            for row, settings in self.rows.items()
            if row in kept and kept[row]["settings"] == _plain(settings)
        }

    def _add(self, row: str, seed: int, found: Measured) -> None:
        """Store what one training gave; the file is whole at every moment.

        Other processes may store theirs: one after the other, so that none is lost.
        """
        with locked(self.path.with_suffix(".lock")):
            kept = self._read()
            new = {"settings": _plain(self.rows[row]), "seeds": {}}
            entry = kept.setdefault(row, new)
            entry["seeds"][str(seed)] = {k: float(f"{v:.6g}") for k, v in found.items()}
            ordered = {name: kept[name] for name in self.rows if name in kept}
            text = json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"
            part = self.path.with_suffix(f".{os.getpid()}.part")
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.path)


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as JSON gives them back."""
    return json.loads(json.dumps(settings))


def spread(values: Collection[float]) -> tuple[float, float]:
    """Mean and standard deviation (with N − 1) of values over seeds.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"a spread needs two values or more, got {len(values)}")
    found = torch.tensor(list(values), dtype=torch.float64)
    return float(found.mean()), float(found.std())


def told(values: Collection[float], digits: int = 3) -> str:
    """Values over seeds for a table: their median, and ± their deviation if several.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("a median needs one value or more, got none")
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ± {spread(values)[1]:.{digits}f}"
