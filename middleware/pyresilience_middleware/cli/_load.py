"""A bounded load over HTTP, at the same pace for every endpoint, whatever they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import httpx2

from pyresilience.runtime import _sources as sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE = 2.0
"""Seconds after which the client gives up on a request."""
MAX_IN_FLIGHT = 40
"""Requests to one endpoint that are under way at one time, at most."""
ANSWERED_BY = "x-answered-by"
"""The response header in which the app says who answered: `upstream` or `fallback`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended.

    Attributes:
        endpoint: `bare` or `guarded`.
        answered: the status was 200, within the client's patience.
        by_fallback: what answered was not the upstream.
        seconds: from the moment it was due until the end, good or bad.
    """

    endpoint: str
    phase: str
    answered: bool
    by_fallback: bool
    seconds: float


class Load:
    """Sends numbered requests to several endpoints side by side.

    The pace is fixed in advance: an endpoint that is slow to answer gets no fewer requests for it. Its latencies are
    measured from the moment a request was due, so that waiting for a place in flight counts.
    """

    def __init__(self, endpoints: Mapping[str, str], *, per_second: float, on_reply: Callable[[Reply], None]) -> None:
        self._endpoints = endpoints
        self._interval = int(sources.NANOSECONDS / per_second)
        self._on_reply = on_reply

    async def run(self, client: httpx2.AsyncClient, phase: str, requests: int) -> None:
        """Send `requests` requests to each endpoint and wait until all of them have ended."""
        async with anyio.create_task_group() as group:
            for endpoint in self._endpoints:
                group.start_soon(self._pace, client, endpoint, phase, requests)

    async def _pace(self, client: httpx2.AsyncClient, endpoint: str, phase: str, requests: int) -> None:
        began = sources.now()
        places = anyio.Semaphore(MAX_IN_FLIGHT)
        async with anyio.create_task_group() as group:
            for number in range(requests):
                due = began + number * self._interval
                await anyio.sleep(max(0.0, sources.seconds_until(due)))
                await places.acquire()
                group.start_soon(self._request, client, endpoint, phase, number, due, places)

    async def _request(
        self, client: httpx2.AsyncClient, endpoint: str, phase: str, number: int, due: int, places: anyio.Semaphore
    ) -> None:
        answered = by_fallback = False
        try:
            with anyio.move_on_after(PATIENCE):
                response = await client.get(self._endpoints[endpoint], params={"number": number})
                answered = response.status_code == 200
                by_fallback = answered and response.headers.get(ANSWERED_BY) == "fallback"
        except httpx2.HTTPError:
            pass
        finally:
            places.release()
        self._on_reply(Reply(endpoint, phase, answered, by_fallback, -sources.seconds_until(due)))
