"""The kernels that nbval starts are silent and single-threaded, as when outputs are stored."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from engine.refresh import KERNEL_ENV


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """A kernel starts while its first cell is set up, and takes the environment from here."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KERNEL_ENV.items():
            patch.setitem(os.environ, name, value)
        yield
