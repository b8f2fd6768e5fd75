"""Virtual time everywhere: async tests on asyncio and trio, and `lab` tests on asyncio, trio and blocking."""

from __future__ import annotations

import pytest

from pyresilience.testing import VirtualTime
from tests.lab import Lab


@pytest.fixture
def time():
    """Virtual time for tests that drive threads themselves, or none at all."""
    with VirtualTime() as virtual:
        yield virtual


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Async tests run on both backends, in virtual time."""
    virtual = VirtualTime()
    with virtual.hosting():
        yield request.param, virtual.backend_options(request.param)


@pytest.fixture(params=["asyncio", "trio", "blocking"])
def lab(request):
    """One of the three runtimes; see `tests.lab`."""
    return Lab(request.param)
