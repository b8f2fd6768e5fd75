"""Rate limiter: a call below the limit. Of each peer, its quickest algorithm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.cases import by_hand
from benchmarks.meters import AsyncCalls, SyncCalls
from benchmarks.model import BARE, BARE_SYNC, Bar, Case, answer, answer_sync, floor, library, ours, peer

LIMIT = by_hand.LIMIT
PERIOD = by_hand.PERIOD


class LimitedError(Exception):
    """Too many calls."""


def guarded(fn: Callable[..., Any]) -> Any:
    from pyresilience import RateLimiterConfig, resilient

    return resilient(rate_limiter=RateLimiterConfig(max_calls=LIMIT, period=PERIOD))(fn)


def with_hyx() -> Any:
    return library("hyx.ratelimit").tokenbucket(max_executions=LIMIT, per_time_secs=PERIOD)(answer)


def with_aiolimiter() -> Callable[[int], Awaitable[int]]:
    limiter = library("aiolimiter").AsyncLimiter(LIMIT, PERIOD)

    async def call(value: int) -> int:
        async with limiter:
            return await answer(value)

    return call


def with_limits() -> Callable[[int], Awaitable[int]]:
    limits = library("limits")
    storage = library("limits.aio.storage").MemoryStorage()
    limiter = library("limits.aio.strategies").FixedWindowRateLimiter(storage)
    item = limits.RateLimitItemPerSecond(LIMIT)

    async def call(value: int) -> int:
        if not await limiter.hit(item, "peer"):
            raise LimitedError
        return await answer(value)

    return call


def with_limits_sync() -> Callable[[int], int]:
    limits = library("limits")
    limiter = library("limits.strategies").FixedWindowRateLimiter(library("limits.storage").MemoryStorage())
    item = limits.RateLimitItemPerSecond(LIMIT)

    def call(value: int) -> int:
        if not limiter.hit(item, "peer"):
            raise LimitedError
        return answer_sync(value)

    return call


def with_throttled(module: str, fn: Callable[..., Any]) -> Any:
    throttled = library(module)
    return throttled.Throttled(key="peer", using="fixed_window", quota=f"{LIMIT}/s")(fn)


def _pyrate() -> Any:
    pyrate = library("pyrate_limiter")
    bucket = pyrate.StateBucket([pyrate.Rate(LIMIT, pyrate.Duration.SECOND)], algorithm=pyrate.TokenBucket())
    return pyrate.Limiter(bucket)


def with_pyrate() -> Callable[[int], Awaitable[int]]:
    limiter = _pyrate()

    async def call(value: int) -> int:
        if not await limiter.try_acquire_async("peer", blocking=False):
            raise LimitedError
        return await answer(value)

    return call


def with_pyrate_sync() -> Callable[[int], int]:
    limiter = _pyrate()

    def call(value: int) -> int:
        if not limiter.try_acquire("peer", blocking=False):
            raise LimitedError
        return answer_sync(value)

    return call


ASYNC = Case(
    "rate_limiter_async",
    "Rate limiter, async",
    "GCRA in three floats",
    AsyncCalls(),
    (
        floor(lambda: by_hand.rate_limit(answer)),
        BARE,
        ours("pyresilience", lambda: guarded(answer)),
        peer("hyx", with_hyx),
        peer("aiolimiter", with_aiolimiter),
        peer("limits", with_limits),
        peer("throttled-py", lambda: with_throttled("throttled.asyncio", answer)),
        peer("pyrate-limiter", with_pyrate),
    ),
    (Bar(3),),
)

SYNC = Case(
    "rate_limiter_sync",
    "Rate limiter, sync",
    "GCRA under a lock",
    SyncCalls(),
    (
        floor(lambda: by_hand.rate_limit_sync(answer_sync)),
        BARE_SYNC,
        ours("pyresilience", lambda: guarded(answer_sync)),
        peer("limits", with_limits_sync),
        peer("throttled-py", lambda: with_throttled("throttled", answer_sync)),
        peer("pyrate-limiter", with_pyrate_sync),
    ),
    (Bar(3),),
)
