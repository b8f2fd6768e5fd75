"""HTTP client: one request through a transport that would retry, the network left out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from benchmarks.meters import AsyncCalls
from benchmarks.model import Case, floor, library, ours, peer

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 3


def _network() -> Any:
    import httpx

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"ok")

    return httpx.MockTransport(answer)


def requests(transport: Any) -> Callable[[int], Awaitable[int]]:
    """A function that sends one request and returns 1 if it was answered with 200."""
    import httpx

    request = httpx.Request("GET", "http://127.0.0.1:8000/orders")

    async def send(value: int) -> int:
        response = await transport.handle_async_request(request)
        await response.aread()
        return value if response.status_code == 200 else int(response.status_code)

    return send


def by_hand() -> Any:
    import httpx

    class Retrying(httpx.AsyncBaseTransport):
        def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
            self.transport = transport

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            attempt = 1
            while True:
                try:
                    response = await self.transport.handle_async_request(request)
                except httpx.TransportError:
                    if attempt >= ATTEMPTS:
                        raise
                else:
                    if response.status_code not in (429, 502, 503, 504) or attempt >= ATTEMPTS:
                        return response
                    await response.aclose()
                attempt += 1

    return requests(Retrying(_network()))


def guarded(**parts: Any) -> Any:
    from pyresilience_middleware.outbound.httpx import ResilienceTransport

    return requests(ResilienceTransport(_network(), **parts))


def with_httpx_retries() -> Any:
    httpx_retries = library("httpx_retries")
    return requests(httpx_retries.RetryTransport(_network(), retry=httpx_retries.Retry(total=ATTEMPTS - 1)))


HTTP_CLIENT = Case(
    "http_client",
    "HTTP client transport, no network",
    "a transport with a retry loop",
    AsyncCalls(),
    (
        floor(by_hand),
        ours("pyresilience, defaults", guarded, documented=False),
        ours("pyresilience, retry alone", lambda: guarded(circuit_breaker=None, retry_budget=None), documented=False),
        peer("httpx-retries", with_httpx_retries),
    ),
)
