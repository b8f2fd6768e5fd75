"""What guards cost before they are called: memory per decorated function, and the import."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.cases import by_hand, retry, stack
from benchmarks.meters import ImportTime, Memory
from benchmarks.model import Bar, Case, Kind, floor, library, ours, peer, reference

FUNCTIONS = 500
Decorator = Callable[[Callable[..., Any]], Any]


def wraps(fn: Callable[..., Awaitable[Any]]) -> Any:
    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return call


def wraps_six(fn: Callable[..., Awaitable[Any]]) -> Any:
    for wrap in by_hand.SIX:
        fn = functools.wraps(fn)(wrap(fn))
    return fn


def sharing_a_config() -> Decorator:
    from pyresilience import RetryConfig, resilient

    config = RetryConfig()
    return lambda fn: resilient(retry=config)(fn)


def with_cache() -> Decorator:
    from pyresilience import CacheConfig

    return lambda fn: stack.guarded(fn, cache=CacheConfig())


def _itself(decorate: Decorator) -> Decorator:
    return decorate


def importable(module: str) -> str:
    """The module must be there, or the variant is reported as not installed and not as broken."""
    library(module)
    return f"import {module}"


GUARDED = """
from pyresilience import RetryConfig, resilient

@resilient(retry=RetryConfig())
{function}(): ...
"""


MEMORY_RETRY = Case(
    "memory_retry",
    "Memory per decorated function, retry",
    "functools.wraps",
    Memory(FUNCTIONS),
    (
        floor(lambda: wraps),
        ours("pyresilience", lambda: retry.guarded),
        ours("pyresilience, one config for all", sharing_a_config),
        *(peer(name, functools.partial(_itself, decorate)) for name, decorate in retry.PEERS.items()),
    ),
    (Bar(900, Kind.VALUE),),
)

MEMORY_ALL = Case(
    "memory_all",
    "Memory per decorated function, six policies",
    "functools.wraps around six wrappers",
    Memory(FUNCTIONS),
    (
        floor(lambda: wraps_six),
        ours("pyresilience", lambda: stack.guarded),
        ours("pyresilience, and a cache", with_cache),
        peer("hyx", lambda: stack.with_hyx),
    ),
    (Bar(2200, Kind.VALUE),),
)

IMPORT = Case(
    "import_time",
    "Import, asyncio included",
    "import asyncio",
    ImportTime(),
    (
        floor(str),
        ours("pyresilience", lambda: importable("pyresilience")),
        ours("pyresilience, one sync function guarded", lambda: GUARDED.format(function="def work")),
        ours("pyresilience, one async function guarded", lambda: GUARDED.format(function="async def work")),
        reference("anyio alone", lambda: importable("anyio"), documented=False),
        peer("pybreaker", lambda: importable("pybreaker")),
        peer("tenacity", lambda: importable("tenacity")),
        peer("stamina", lambda: importable("stamina")),
        peer("interlock-cb", lambda: importable("interlock")),
        peer("redress", lambda: importable("redress")),
        peer("hyx.retry", lambda: importable("hyx.retry")),
    ),
    (Bar(10, Kind.PLUS),),
)
