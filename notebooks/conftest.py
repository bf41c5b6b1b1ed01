"""The kernels that nbval starts are silent and use one thread, as in a refresh."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from engine.refresh import KERNEL_ENV


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """A kernel starts while its first cell is set up, and takes this environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KERNEL_ENV.items():
            patch.setitem(os.environ, name, value)
        yield
