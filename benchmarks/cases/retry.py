"""Retry: a call that succeeds, and a storm in which every call fails once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from benchmarks.cases import by_hand
from benchmarks.meters import AsyncCalls, Storm, SyncCalls
from benchmarks.model import (
    BARE,
    BARE_SYNC,
    BEST_PEER,
    Bar,
    Case,
    Variant,
    answer,
    answer_sync,
    floor,
    library,
    ours,
    peer,
)

ATTEMPTS = by_hand.ATTEMPTS
STORM_TASKS = 10_000
STORM_DELAY = 0.05


def guarded(fn: Callable[..., Any], delay: float = 1.0) -> Any:
    from pyresilience import RetryConfig, resilient

    return resilient(retry=RetryConfig(max_attempts=ATTEMPTS, delay=delay, jitter=False, backoff_factor=1.0))(fn)


def with_hyx(fn: Callable[..., Any], delay: float = 1.0) -> Any:
    return library("hyx.retry").retry(on=Exception, attempts=ATTEMPTS, backoff=delay)(fn)


def with_tenacity(fn: Callable[..., Any], delay: float = 1.0) -> Any:
    tenacity = library("tenacity")
    stop, wait = tenacity.stop_after_attempt(ATTEMPTS), tenacity.wait_fixed(delay)
    return tenacity.retry(stop=stop, wait=wait, reraise=True)(fn)


def with_stamina(fn: Callable[..., Any], delay: float = 1.0) -> Any:
    stamina = library("stamina")
    library("stamina.instrumentation").set_on_retry_hooks([])  # as nobody listens to the others either
    return stamina.retry(on=Exception, attempts=ATTEMPTS, wait_initial=delay, wait_jitter=0, wait_exp_base=1)(fn)


def with_backoff(fn: Callable[..., Any], delay: float = 1.0) -> Any:
    backoff = library("backoff")
    return backoff.on_exception(
        backoff.constant, Exception, max_tries=ATTEMPTS, interval=delay, jitter=None, logger=None
    )(fn)


def with_redress(fn: Callable[..., Any], delay: float = 1.0) -> Any:
    def constant(_context: Any) -> float:
        return delay

    return library("redress").retry(max_attempts=ATTEMPTS, strategy=constant)(fn)


PEERS = {
    "hyx": with_hyx,
    "tenacity": with_tenacity,
    "stamina": with_stamina,
    "backoff": with_backoff,
    "redress": with_redress,
}


def peers(fn: Callable[..., Any], without: Collection[str] = (), *, delay: float = 1.0) -> list[Variant]:
    return [
        peer(name, functools.partial(decorate, fn, delay)) for name, decorate in PEERS.items() if name not in without
    ]


async def fails_once(attempts: list[int]) -> int:
    """The argument is the task's own memory."""
    attempts.append(1)
    if len(attempts) == 1:
        raise ConnectionError
    return 1


RETRY_ASYNC = Case(
    "retry_async",
    "Retry, async",
    "a loop with try and except",
    AsyncCalls(),
    (
        floor(lambda: by_hand.retry(answer)),
        BARE,
        ours("pyresilience", lambda: guarded(answer)),
        *peers(answer),
    ),
    (Bar(3), Bar(1, against=BEST_PEER)),
)

RETRY_SYNC = Case(
    "retry_sync",
    "Retry, sync",
    "a loop with try and except",
    SyncCalls(),
    (
        floor(lambda: by_hand.retry_sync(answer_sync)),
        BARE_SYNC,
        ours("pyresilience", lambda: guarded(answer_sync)),
        *peers(answer_sync, {"hyx"}),
    ),
    (Bar(8), Bar(1, against=BEST_PEER)),
)

STORM = Case(
    "retry_storm",
    f"Retry storm: {STORM_TASKS:,} tasks, each fails once",
    "the loop, with asyncio.sleep",
    Storm(STORM_TASKS),
    (
        floor(lambda: by_hand.retry(fails_once, STORM_DELAY)),
        ours("pyresilience", lambda: guarded(fails_once, STORM_DELAY)),
        *peers(fails_once, delay=STORM_DELAY),
    ),
    (Bar(1.4),),
)
