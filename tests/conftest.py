"""How tests share a machine: one thread a worker, the longest files first."""

import os

import pytest
import torch
import yaml
from browsing import browser  # noqa: F401, a fixture
from engine.pairs import ROOT

torch.set_num_threads(1)  # two workers whose threads wait for each other are far slower
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the notebooks' kernels


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks in the order of the book, then the site, then the rest.

    A long file that begins last would leave the other worker without work, and a model
    that several chapters need is trained where the reader meets it.
    """
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [one["file"] for part in toc["parts"] for one in part["chapters"]]
    place = {ROOT / f"{file}.ipynb": number for number, file in enumerate(files)}

    def turn(item: pytest.Item) -> int:
        site = (ROOT / "tests" / "site") in item.path.parents
        return place.get(item.path, len(place) + (0 if site else 1))

    items.sort(key=turn)
