"""``python -m course_utils.studies NAME``: run what is missing of a study."""

from __future__ import annotations

import argparse

import torch

from course_utils.studies.captions import STUDY as CAPTIONS
from course_utils.studies.coded_vae import STUDY as CODED_VAE
from course_utils.studies.digit_code import STUDY as DIGIT_CODE
from course_utils.studies.dimensions import STUDY as DIMENSIONS
from course_utils.studies.gpt import STUDY as GPT
from course_utils.studies.store import Study
from course_utils.studies.translation import STUDY as TRANSLATION
from course_utils.studies.vaes import STUDY as VAES

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (CAPTIONS, CODED_VAE, DIGIT_CODE, DIMENSIONS, GPT, TRANSLATION, VAES)
}


def main() -> None:
    """Read the command line and run the study."""
    parser = argparse.ArgumentParser("course_utils.studies", description=__doc__)
    parser.add_argument("name", choices=sorted(STUDIES))
    parser.add_argument("--seeds", type=int, default=5, help="0 … SEEDS − 1")
    parser.add_argument("--rows", nargs="*", default=[], help="all if none is named")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if min(given.seeds, given.threads) < 1:
        parser.error("--seeds and --threads must be at least 1")
    study = STUDIES[given.name]
    if unknown := set(given.rows) - set(study.rows):
        known = ", ".join(map(repr, study.rows))
        parser.error(f"--rows must be of {known}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(given.threads)
    study.run(range(given.seeds), given.rows)


if __name__ == "__main__":
    main()
