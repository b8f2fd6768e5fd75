from __future__ import annotations

import pytest

from pyresilience import unsubscribe
from pyresilience_middleware.inbound import exposition


@pytest.fixture(autouse=True)
def no_shared_collector(monkeypatch):
    """Middlewares subscribe one collector to all pipelines of the process; tests elsewhere want none of that."""
    monkeypatch.setattr(exposition, "_shared", None)
    yield
    if exposition._shared is not None:
        unsubscribe(exposition._shared)
