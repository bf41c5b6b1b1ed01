"""``python -m course_utils.studies NAME``: run what is missing of a study."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import torch

from course_utils.studies.store import Study

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("[a-z]*.py")
    if path.stem != "store"
)


def main() -> None:
    """Read the command line and run the study."""
    parser = argparse.ArgumentParser("course_utils.studies", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seeds", type=int, default=5, help="0 … SEEDS − 1")
    parser.add_argument("--rows", nargs="*", default=[], help="all if none is named")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if min(given.seeds, given.threads) < 1:
        parser.error("--seeds and --threads must be at least 1")
    study: Study = import_module(f"course_utils.studies.{given.name}").STUDY
    if unknown := set(given.rows) - set(study.rows):
        known = ", ".join(map(repr, study.rows))
        parser.error(f"--rows must be of {known}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(given.threads)
    study.run(range(given.seeds), given.rows)


if __name__ == "__main__":
    main()
