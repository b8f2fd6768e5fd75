"""Cache: a hit."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import by_hand
from benchmarks.meters import AsyncCalls
from benchmarks.model import BARE, Bar, Case, answer, floor, library, ours, peer

SIZE = by_hand.SIZE
TTL = by_hand.TTL


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
    "an OrderedDict with expiry, bounded",
    AsyncCalls(),
    (
        floor(lambda: by_hand.cache(answer)),
        BARE,
        ours("pyresilience, ttl", lambda: guarded(TTL)),
        ours("pyresilience, no expiry", lambda: guarded(0)),
        peer("async-lru", lambda: with_async_lru(None)),
        peer("async-lru, ttl", lambda: with_async_lru(TTL)),
        peer("aiocache", with_aiocache),
        peer("cashews", with_cashews),
    ),
    (Bar(1, against="async-lru"),),
)
