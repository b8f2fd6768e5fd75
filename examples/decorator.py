"""How do I make a function resilient, be it `async def` or `def`?

uv run python examples/decorator.py
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import anyio

from pyresilience import FallbackConfig, ResilienceEvent, RetryConfig, TimeoutConfig, resilient


def show(event: ResilienceEvent) -> None:
    print(f"    {event.function_name} #{event.attempt}: {event.event_type} {event.detail}".rstrip())


def outages(number: int) -> Iterator[bool]:
    """True for so many calls, then False for ever."""
    return chain(repeat(True, number), repeat(False))


download_fails, lookup_fails = outages(2), outages(1)


@resilient(retry=RetryConfig(max_attempts=3, delay=0.05), timeout=TimeoutConfig(seconds=1), listeners=[show])
async def download(path: str) -> bytes:
    """An async function stays async; at its timeout it is cancelled."""
    if next(download_fails):
        raise ConnectionError("connection reset")
    return b"a few bytes"


@resilient(retry=RetryConfig(max_attempts=2, delay=0.05), listeners=[show])
def lookup(name: str) -> str:
    """A plain function stays plain, and runs in the thread of its caller."""
    if next(lookup_fails):
        raise TimeoutError("no answer from the name server")
    return "192.0.2.7"


@resilient(
    timeout=TimeoutConfig(seconds=0.2),
    fallback=FallbackConfig(handler="an estimate", fallback_on=(TimeoutError,)),
    listeners=[show],
)
async def price(item: str) -> str:
    """What takes too long is answered by something that is good enough."""
    await anyio.sleep(60)
    return "the exact price"


async def main() -> None:
    print("async, two failures:")
    print("  ", await download("/orders"))
    print("async, too slow:")
    print("  ", await price("tea"))


if __name__ == "__main__":
    print("sync, one failure:")
    print("  ", lookup("example.com"))
    anyio.run(main)
