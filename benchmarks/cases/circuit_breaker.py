"""Circuit breaker: a call through a closed circuit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from benchmarks.meters import AsyncCalls, SyncCalls
from benchmarks.model import Bar, Case, answer, answer_sync, floor, library, ours, peer

THRESHOLD = 5
RECOVERY = 30.0
WINDOW = 100
RATE = 0.5


class OpenError(Exception):
    """The circuit is open."""


def counting() -> Callable[[int], Awaitable[int]]:
    failures = 0
    opened_until = 0.0

    async def call(value: int) -> int:
        nonlocal failures, opened_until
        if failures >= THRESHOLD and monotonic() < opened_until:
            raise OpenError
        try:
            result = await answer(value)
        except Exception:
            failures += 1
            if failures >= THRESHOLD:
                opened_until = monotonic() + RECOVERY
            raise
        failures = 0
        return result

    return call


def windowed() -> Callable[[int], Awaitable[int]]:
    outcomes: deque[bool] = deque(maxlen=WINDOW)
    opened_until = 0.0

    async def call(value: int) -> int:
        nonlocal opened_until
        if opened_until and monotonic() < opened_until:
            raise OpenError
        try:
            result = await answer(value)
        except Exception:
            outcomes.append(False)
            if len(outcomes) == WINDOW and outcomes.count(False) >= RATE * WINDOW:
                opened_until = monotonic() + RECOVERY
                outcomes.clear()
            raise
        outcomes.append(True)
        return result

    return call


def locked() -> Callable[[int], int]:
    failures = 0
    opened_until = 0.0
    lock = threading.Lock()

    def call(value: int) -> int:
        nonlocal failures, opened_until
        with lock:
            if failures >= THRESHOLD and monotonic() < opened_until:
                raise OpenError
        try:
            result = answer_sync(value)
        except Exception:
            with lock:
                failures += 1
                if failures >= THRESHOLD:
                    opened_until = monotonic() + RECOVERY
            raise
        with lock:
            failures = 0
        return result

    return call


def guarded(fn: Callable[..., Any], window: int = 0) -> Any:
    from pyresilience import CircuitBreakerConfig, resilient

    return resilient(circuit_breaker=CircuitBreakerConfig(sliding_window_size=window))(fn)


def with_purgatory() -> Any:
    return library("purgatory").AsyncCircuitBreakerFactory(default_threshold=THRESHOLD)("peer")(answer)


def with_purgatory_sync() -> Any:
    return library("purgatory").SyncCircuitBreakerFactory(default_threshold=THRESHOLD)("peer")(answer_sync)


def with_circuitbreaker(fn: Callable[..., Any]) -> Any:
    return library("circuitbreaker").circuit(failure_threshold=THRESHOLD)(fn)


def with_interlock(fn: Callable[..., Any]) -> Any:
    interlock = library("interlock")
    return interlock.CircuitBreaker(name="peer", config=interlock.Config(window_size=WINDOW))(fn)


def with_aiobreaker() -> Any:
    return library("aiobreaker").CircuitBreaker(fail_max=THRESHOLD)(answer)


def with_pybreaker() -> Any:
    return library("pybreaker").CircuitBreaker(fail_max=THRESHOLD)(answer_sync)


def with_hyx() -> Any:
    return library("hyx.circuitbreaker").consecutive_breaker(failure_threshold=THRESHOLD)(answer)


def with_redress() -> Any:
    redress = library("redress")
    policy = redress.AsyncPolicy(circuit_breaker=redress.CircuitBreaker(failure_threshold=THRESHOLD))

    def call(value: int) -> Any:
        return policy.call(lambda: answer(value))

    return call


def with_redress_sync() -> Any:
    redress = library("redress")
    policy = redress.Policy(circuit_breaker=redress.CircuitBreaker(failure_threshold=THRESHOLD))

    def call(value: int) -> Any:
        return policy.call(lambda: answer_sync(value))

    return call


CONSECUTIVE = Case(
    "breaker_async_consecutive",
    "Circuit breaker, async, consecutive failures",
    "a counter",
    AsyncCalls(),
    (
        floor(counting),
        ours("pyresilience", lambda: guarded(answer)),
        peer("purgatory", with_purgatory),
        peer("circuitbreaker", lambda: with_circuitbreaker(answer)),
        peer("aiobreaker", with_aiobreaker),
        peer("hyx", with_hyx),
    ),
    (Bar(3),),
)

WINDOWED = Case(
    "breaker_async_window",
    f"Circuit breaker, async, window of {WINDOW}",
    "a deque",
    AsyncCalls(),
    (
        floor(windowed),
        ours("pyresilience", lambda: guarded(answer, WINDOW)),
        peer("interlock-cb", lambda: with_interlock(answer)),
        peer("redress (failures in 60 s)", with_redress),
    ),
    (Bar(6),),
)

SYNC = Case(
    "breaker_sync",
    "Circuit breaker, sync, thread-safe",
    "a counter under a lock",
    SyncCalls(),
    (
        floor(locked),
        ours("pyresilience", lambda: guarded(answer_sync)),
        peer("circuitbreaker (no lock)", lambda: with_circuitbreaker(answer_sync)),
        peer("pybreaker", with_pybreaker),
        peer("purgatory", with_purgatory_sync),
        peer("interlock-cb (window)", lambda: with_interlock(answer_sync)),
        peer("redress (failures in 60 s)", with_redress_sync),
    ),
    (Bar(2),),
)
