"""Progress bars on long work, and none under tests."""

import os


def bars_are_off() -> bool:
    """Whether the variable ``TQDM_DISABLE`` is set.

    It is the switch of tqdm itself, whose notebook bar does not read it.
    """
    return "TQDM_DISABLE" in os.environ
