from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

import httpx
import httpx2
import pytest

from pyresilience.testing import EventRecorder
from pyresilience_middleware.outbound.httpx import ResilienceTransport

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loading the certificates of the system takes longer than a test


@pytest.fixture(params=[httpx2, httpx], ids=["httpx2", "httpx"])
def library(request):
    """One transport class, two client libraries."""
    return request.param


@pytest.fixture
def events():
    return EventRecorder()


@pytest.fixture
def client_of(library, events):
    """Opens a client whose transport has the given policies, with `.resilience` for the transport."""

    @asynccontextmanager
    async def open_client(*, max_connections=None, client=None, **policies):
        limits = library.Limits(max_connections=max_connections)
        transport = ResilienceTransport(
            library.AsyncHTTPTransport(verify=NO_TLS, limits=limits), listeners=[events], **policies
        )
        async with library.AsyncClient(transport=transport, timeout=5, **client or {}) as opened:
            opened.resilience = transport
            yield opened

    return open_client
