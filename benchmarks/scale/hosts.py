"""Cost per request of the HTTP transport over the number of hosts that it keeps state for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

from benchmarks.model import library
from benchmarks.scale.curve import Curve, minima

COUNTS = (1, 10, 100, 1_000, 10_000)
REQUESTS = 10_000
REPEATS = 3
BARE, KEPT, DEFAULT = "without a guard", "a bound above the number of hosts", "the default bound of 1,000 hosts"


def network() -> Any:
    httpx2 = library("httpx2")

    async def answer(request: Any) -> Any:
        return httpx2.Response(200, content=b"ok")

    return httpx2.MockTransport(answer)


def transports() -> dict[str, Any]:
    from pyresilience_middleware import ResilienceTransport

    return {
        BARE: network(),
        KEPT: ResilienceTransport(network(), max_hosts=COUNTS[-1]),
        DEFAULT: ResilienceTransport(network()),
    }


def repeat(runner: asyncio.Runner, transport: Any, requests: list[Any]) -> Callable[[], float]:
    return lambda: float(runner.run(per_request(transport, requests)))


async def per_request(transport: Any, requests: list[Any]) -> float:
    """Microseconds; the hosts take turns."""
    turns = list(islice(cycle(requests), REQUESTS))
    started = time.perf_counter()
    for request in turns:
        response = await transport.handle_async_request(request)
        await response.aread()
    return (time.perf_counter() - started) / REQUESTS * 1e6


def measure() -> Curve:
    httpx2 = library("httpx2")
    title = "Cost per request over the number of hosts, no network"
    curve = Curve("hosts", title, "hosts", "µs", [KEPT, DEFAULT])
    with asyncio.Runner() as runner:
        for count in COUNTS:
            requests = [httpx2.Request("GET", f"http://host-{number}.example/") for number in range(count)]
            repeats = {name: repeat(runner, transport, requests) for name, transport in transports().items()}
            for make_pipelines in repeats.values():
                make_pipelines()
            for name, figure in minima(repeats, REPEATS).items():
                curve.add(name, count, figure)
    return curve


def says(curve: Curve) -> str:
    return (
        f"As long as all hosts fit into the bounded map, a request to one of {COUNTS[-1]:,} hosts costs "
        f"{curve.growth(KEPT):.2f} times what it costs with a single host (without a guard "
        f"{curve.growth(BARE):.2f} times). With the default bound, ten times as many hosts in strict turn is the worst "
        f"case: every request makes a pipeline and drops the oldest, at {curve.last(DEFAULT):.0f} µs instead of "
        f"{curve.last(KEPT):.0f}."
    )
