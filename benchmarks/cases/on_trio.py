"""The same on trio, against what its own primitives cost."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import bulkhead, retry, timeout
from benchmarks.cases.by_hand import ATTEMPTS, CONCURRENT, SECONDS, Function
from benchmarks.meters import TrioCalls, TrioStorm
from benchmarks.model import BARE, Bar, Case, answer, floor, library, ours, peer, reference

TO_REACH = (Bar(1.5),)


def fail_after(fn: Function) -> Function:
    trio = library("trio")

    async def call(*args: Any, **kwargs: Any) -> Any:
        with trio.fail_after(SECONDS):
            return await fn(*args, **kwargs)

    return call


def holding(permits: Any, fn: Function) -> Function:
    async def call(*args: Any, **kwargs: Any) -> Any:
        async with permits:
            return await fn(*args, **kwargs)

    return call


def sleeping_retry(fn: Function) -> Function:
    trio = library("trio")

    async def call(*args: Any, **kwargs: Any) -> Any:
        attempt = 1
        while True:
            try:
                return await fn(*args, **kwargs)
            except Exception:
                if attempt >= ATTEMPTS:
                    raise
                await trio.sleep(retry.STORM_DELAY)
                attempt += 1

    return call


TIMEOUT = Case(
    "trio_timeout",
    "Timeout, trio",
    "trio.fail_after",
    TrioCalls(),
    (
        floor(lambda: fail_after(answer)),
        BARE,
        ours("pyresilience", timeout.guarded, documented=False),
        peer("anyio.fail_after", timeout.with_anyio),
    ),
    TO_REACH,
)

BULKHEAD = Case(
    "trio_bulkhead",
    "Bulkhead, trio, a permit is free",
    "trio.Semaphore",
    TrioCalls(),
    (
        floor(lambda: holding(library("trio").Semaphore(CONCURRENT), answer)),
        BARE,
        ours("pyresilience", lambda: bulkhead.guarded(0), documented=False),
        ours("pyresilience, max_wait", lambda: bulkhead.guarded(1), documented=False),
        reference(
            "trio.CapacityLimiter",
            lambda: holding(library("trio").CapacityLimiter(CONCURRENT), answer),
            documented=False,
        ),
    ),
    TO_REACH,
)

STORM = Case(
    "trio_storm",
    f"Retry storm on trio: {retry.STORM_TASKS:,} tasks, each fails once",
    "the loop, with trio.sleep",
    TrioStorm(retry.STORM_TASKS),
    (
        floor(lambda: sleeping_retry(retry.fails_once)),
        ours("pyresilience", lambda: retry.guarded(retry.fails_once, retry.STORM_DELAY), documented=False),
    ),
    TO_REACH,
)
