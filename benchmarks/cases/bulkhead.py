"""Bulkhead: a call that finds a free permit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.cases import by_hand
from benchmarks.meters import AsyncCalls
from benchmarks.model import BARE, Bar, Case, answer, floor, library, ours, peer

LIMIT = by_hand.CONCURRENT


def guarded(max_wait: float) -> Any:
    from pyresilience import BulkheadConfig, resilient

    return resilient(bulkhead=BulkheadConfig(max_concurrent=LIMIT, max_wait=max_wait))(answer)


def with_hyx() -> Any:
    return library("hyx.bulkhead").bulkhead(max_concurrency=LIMIT, max_capacity=2 * LIMIT)(answer)


def with_capacity_limiter() -> Callable[[int], Awaitable[int]]:
    limiter = library("anyio").CapacityLimiter(LIMIT)

    async def call(value: int) -> int:
        async with limiter:
            return await answer(value)

    return call


def with_interlock() -> Any:
    interlock = library("interlock")
    return interlock.Pipeline(interlock.BulkheadStrategy(LIMIT))(answer)


BULKHEAD = Case(
    "bulkhead_async",
    "Bulkhead, async, a permit is free",
    "asyncio.Semaphore",
    AsyncCalls(),
    (
        floor(lambda: by_hand.semaphore(answer)),
        BARE,
        ours("pyresilience", lambda: guarded(0)),
        ours("pyresilience, max_wait", lambda: guarded(1)),
        peer("hyx", with_hyx),
        peer("anyio.CapacityLimiter", with_capacity_limiter),
        peer("interlock-cb", with_interlock),
    ),
    (Bar(1.3),),
)
