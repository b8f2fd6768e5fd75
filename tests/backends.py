"""Real time, for tests that talk to a server outside their own event loop."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def real_backend(request):
    return request.param
