"""Cache: a hit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.meters import AsyncCalls
from benchmarks.model import Bar, Case, answer, floor, library, ours, peer

SIZE = 256
TTL = 300.0


def by_hand() -> Callable[[int], Awaitable[int]]:
    results: dict[int, int] = {}

    async def call(value: int) -> int:
        try:
            return results[value]
        except KeyError:
            result = results[value] = await answer(value)
            return result

    return call


def guarded(ttl: float) -> Any:
    from pyresilience import CacheConfig, resilient

    return resilient(cache=CacheConfig(max_size=SIZE, ttl=ttl))(answer)


def with_async_lru(ttl: float | None) -> Any:
    return library("async_lru").alru_cache(maxsize=SIZE, ttl=ttl)(answer)


def with_aiocache() -> Any:
    return library("aiocache").cached(ttl=TTL)(answer)


def with_cashews() -> Any:
    cache = library("cashews").Cache()
    cache.setup("mem://", size=SIZE)
    return cache(ttl=TTL, key="peer:{value}")(answer)


CACHE = Case(
    "cache_hit",
    "Cache hit, async",
    "a dict, unbounded",
    AsyncCalls(),
    (
        floor(by_hand),
        ours("pyresilience, ttl", lambda: guarded(TTL)),
        ours("pyresilience, no expiry", lambda: guarded(0)),
        peer("async-lru", lambda: with_async_lru(None)),
        peer("async-lru, ttl", lambda: with_async_lru(TTL)),
        peer("aiocache", with_aiocache),
        peer("cashews", with_cashews),
    ),
    (Bar(1, against="async-lru"),),
)
