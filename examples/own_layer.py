"""How do I write a layer of my own, one that works for async and for sync functions?

uv run python examples/own_layer.py
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain, repeat
from typing import TypeVar

import anyio

from pyresilience import Call, CallNext, CallRejectedError, Pipeline, RetryConfig

R = TypeVar("R")


async def stopwatch(call: Call[R], call_next: CallNext[R]) -> R:
    """A plain async function is a layer. This one stands inside the retry, so it sees each attempt."""
    started = time.perf_counter()
    try:
        return await call_next(call)
    finally:
        print(f"    {call.name} attempt {call.attempt} took about {time.perf_counter() - started:.1f}s")


class Quota:
    """An object is a layer too; it keeps what the calls share: here, how many calls each tenant has left."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.used: Counter[str] = Counter()

    async def __call__(self, call: Call[R], call_next: CallNext[R]) -> R:
        tenant = str(call.args[0])
        if self.used[tenant] >= self.calls:
            raise CallRejectedError(f"{tenant} has used its {self.calls} calls", layer="quota", name=tenant)
        self.used[tenant] += 1
        return await call_next(call)


pipeline = Pipeline(Quota(calls=2), RetryConfig(max_attempts=2, delay=0.05), stopwatch)
fails: Iterator[bool] = chain([True], repeat(False))


@pipeline
async def search(tenant: str) -> str:
    await anyio.sleep(0.1)
    if next(fails):
        raise ConnectionError("connection reset")
    return f"results for {tenant}"


@pipeline
def export(tenant: str) -> str:
    time.sleep(0.2)
    return f"report for {tenant}"


async def main() -> None:
    print("async, with a retry:")
    print("  ", await search("acme"))


if __name__ == "__main__":
    anyio.run(main)
    print("sync, the same layers:")
    print("  ", export("acme"))
    try:
        export("acme")
    except CallRejectedError as error:
        print("refused:", error)
