"""Load on a server: so many connections that are kept, on each one request after the other."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import cast

from benchmarks.model import library
from benchmarks.whole_path.processes import LOAD, pin
from benchmarks.whole_path.turn import summarize

REQUEST = b"GET /orders HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\nuser-agent: benchmark\r\n\r\n"
END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
WARM_UP = 0.2


class WrongResponseError(Exception):
    """The server answered with something else than 200 and a length, or went away."""


def complete(received: bytes) -> bool:
    """Whether there is a whole response.

    Raises:
        WrongResponseError: not one with status 200 and a length.
    """
    head, end, body = received.partition(END_OF_HEAD)
    if not end:
        return False
    length = LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise WrongResponseError(head.decode("latin-1").splitlines()[0])
    return len(body) >= int(length[1])


class Connection(asyncio.Protocol):
    """Asks again as soon as it is answered. `latencies` is shared; `failed` ends the turn."""

    def __init__(self, latencies: list[float], failed: asyncio.Future[None]) -> None:
        self.latencies = latencies
        self.failed = failed
        self.received = b""
        self.asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.ask()

    def ask(self) -> None:
        self.received = b""
        self.asked = time.perf_counter()
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.received += data
        try:
            if not complete(self.received):
                return
        except WrongResponseError as error:
            self.fail(error)
        else:
            self.latencies.append(time.perf_counter() - self.asked)
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or WrongResponseError("the server closed a connection"))

    def fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


async def load(port: int, connections: int, seconds: float) -> dict[str, float]:
    """A turn, whose CPU time is left to the server; `all` counts the requests of the time to warm up as well.

    Raises:
        WrongResponseError: something was answered with something else than 200.
        OSError: the server is not there.
    """
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    latencies: list[float] = []
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(latencies, failed), "127.0.0.1", port)
    await asyncio.wait([failed], timeout=WARM_UP)
    before = len(latencies)
    started = time.perf_counter()
    await asyncio.wait([failed], timeout=seconds)
    spent = time.perf_counter() - started
    if failed.done():
        failed.result()
    failed.cancel()
    turn = summarize(latencies[before:], spent, 0.0)
    return {**asdict(turn), "all": len(latencies)}


def quickest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The load should cost less than what it is put on."""
    try:
        found: Callable[[], asyncio.AbstractEventLoop] = library("uvloop").new_event_loop
    except ImportError:
        return None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    pin(LOAD)
    with asyncio.Runner(loop_factory=quickest_loop()) as runner:
        print(json.dumps(runner.run(load(options.port, options.connections, options.seconds))))


if __name__ == "__main__":
    main()
