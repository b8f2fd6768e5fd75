"""Load from one of the clients: so many tasks, each asks for the same document again and again."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.model import library
from benchmarks.whole_path import asking, guards
from benchmarks.whole_path.processes import LOAD, pin

if TYPE_CHECKING:
    from benchmarks.whole_path.guards import Get
    from benchmarks.whole_path.turn import Turn


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one library.

    Attributes:
        bare: the client without a guard.
        transport: what goes around its transport.
        get: what goes around its method `get`; is given the library as well, for its exceptions.
    """

    library: str
    bare: str
    transport: Callable[[Any], Any] = guards.unguarded_transport
    get: Callable[[Get, Any], Get] = guards.unguarded


CLIENTS = {
    "httpx2": Client("httpx2", "httpx2"),
    "httpx2, pyresilience": Client("httpx2", "httpx2", transport=guards.guarded),
    "httpx2, hyx: retry, breaker": Client("httpx2", "httpx2", get=guards.with_hyx),
    "httpx2, backoff, circuitbreaker": Client("httpx2", "httpx2", get=guards.with_single_libraries),
    "httpx2, stamina: retry": Client("httpx2", "httpx2", get=guards.with_stamina),
    "httpx": Client("httpx", "httpx"),
    "httpx, pyresilience": Client("httpx", "httpx", transport=guards.guarded_httpx),
    "httpx, httpx-retries": Client("httpx", "httpx", transport=guards.with_httpx_retries),
}

WAYS = {"httpx2": asking.without_pause, "httpx": asking.in_rounds}
"""How the clients of a library are kept busy."""


async def load(client: Client, url: str, connections: int, seconds: float) -> Turn:
    """A turn. Anything that is answered with something else than 200 ends it with an error."""
    http = library(client.library)
    limits = http.Limits(max_connections=connections, max_keepalive_connections=connections)
    transport = client.transport(http.AsyncHTTPTransport(limits=limits))
    latencies: list[float] = []
    async with http.AsyncClient(transport=transport, timeout=60) as session:
        get = client.get(session.get, http)

        async def ask() -> None:
            started = time.perf_counter()
            response = await get(url)
            latencies.append(time.perf_counter() - started)
            if response.status_code != 200:
                raise RuntimeError(f"status {response.status_code}")

        return await WAYS[client.library](ask, latencies, connections, seconds)


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
