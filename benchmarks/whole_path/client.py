"""Load from one of the clients: so many tasks, each asks for the same document again and again."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.model import library
from benchmarks.whole_path.processes import LOAD, pin
from benchmarks.whole_path.turn import Turn, summarize

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one library.

    Attributes:
        guard: what goes around its transport.
        bare: the client without that.
        most: connections with which the guard can still be seen beside the pool, in which each request looks at all.
    """

    library: str
    guard: Callable[[Any], Any]
    bare: str
    most: int


def unguarded(transport: Any) -> Any:
    return transport


def guarded(transport: Any) -> Any:
    from pyresilience_middleware import ResilienceTransport

    return ResilienceTransport(transport)


def guarded_httpx(transport: Any) -> Any:
    from pyresilience_middleware.outbound.httpx import ResilienceTransport

    return ResilienceTransport(transport)


def with_httpx_retries(transport: Any) -> Any:
    httpx_retries = library("httpx_retries")
    return httpx_retries.RetryTransport(transport, retry=httpx_retries.Retry(total=ATTEMPTS - 1))


CLIENTS = {
    "httpx2": Client("httpx2", unguarded, "httpx2", most=512),
    "httpx2, pyresilience": Client("httpx2", guarded, "httpx2", most=512),
    "httpx": Client("httpx", unguarded, "httpx", most=8),
    "httpx, pyresilience": Client("httpx", guarded_httpx, "httpx", most=8),
    "httpx, httpx-retries": Client("httpx", with_httpx_retries, "httpx", most=8),
}


async def load(client: Client, url: str, connections: int, seconds: float) -> Turn:
    """Raises RuntimeError if anything is answered with something else than 200."""
    http = library(client.library)
    limits = http.Limits(max_connections=connections, max_keepalive_connections=connections)
    transport = client.guard(http.AsyncHTTPTransport(limits=limits))
    latencies: list[float] = []
    async with http.AsyncClient(transport=transport, timeout=60) as session:

        async def ask() -> None:
            started = time.perf_counter()
            response = await session.get(url)
            latencies.append(time.perf_counter() - started)
            if response.status_code != 200:
                raise RuntimeError(f"status {response.status_code}")

        async def ask_until(end: float) -> None:
            await ask()
            while time.perf_counter() < end:
                await ask()

        await asyncio.gather(*(ask() for _ in range(connections)))
        latencies.clear()
        started, processor = time.perf_counter(), time.process_time()
        await asyncio.gather(*(ask_until(started + seconds) for _ in range(connections)))
        return summarize(latencies, time.perf_counter() - started, time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    pin(LOAD)
    url = f"http://127.0.0.1:{options.port}/orders"
    print(json.dumps(asdict(asyncio.run(load(CLIENTS[options.client], url, options.connections, options.seconds)))))


if __name__ == "__main__":
    main()
