from __future__ import annotations

import pytest

from pyresilience import unsubscribe
from pyresilience_middleware.inbound import asgi, exposition


@pytest.fixture(autouse=True)
def no_shared_collector(monkeypatch):
    """Middlewares subscribe one collector to all pipelines of the process; tests elsewhere want none of that."""
    monkeypatch.setattr(exposition, "_shared", None)
    yield
    if exposition._shared is not None:
        unsubscribe(exposition._shared)


@pytest.fixture(params=["one task", "two tasks"])
def each_way(request, monkeypatch):
    """A pipeline guards in one task where it can (`admission.py`), and any pipeline in two (`exchange.py`)."""
    if request.param == "two tasks":
        monkeypatch.setattr(asgi, "can_suspend", lambda pipeline: False)
    return request.param
