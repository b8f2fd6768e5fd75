"""Circuit breaker: a call through a closed circuit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.cases import by_hand
from benchmarks.meters import AsyncCalls, SyncCalls
from benchmarks.model import BARE, BARE_SYNC, Bar, Case, answer, answer_sync, floor, library, ours, peer

THRESHOLD = by_hand.THRESHOLD
WINDOW = by_hand.WINDOW


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
    """Its coroutines are tornado's, whose futures asyncio can await."""
    return library("pybreaker").CircuitBreaker(fail_max=THRESHOLD)(__pybreaker_call_async=True)(answer)


def with_pybreaker_sync() -> Any:
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
        floor(lambda: by_hand.breaker(answer)),
        BARE,
        ours("pyresilience", lambda: guarded(answer)),
        peer("purgatory", with_purgatory),
        peer("circuitbreaker", lambda: with_circuitbreaker(answer)),
        peer("aiobreaker", with_aiobreaker),
        peer("hyx", with_hyx),
        peer("pybreaker (tornado)", with_pybreaker),
    ),
    (Bar(3),),
)

WINDOWED = Case(
    "breaker_async_window",
    f"Circuit breaker, async, window of {WINDOW}",
    "a deque",
    AsyncCalls(),
    (
        floor(lambda: by_hand.breaker_with_window(answer)),
        BARE,
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
        floor(lambda: by_hand.breaker_sync(answer_sync)),
        BARE_SYNC,
        ours("pyresilience", lambda: guarded(answer_sync)),
        peer("circuitbreaker (no lock)", lambda: with_circuitbreaker(answer_sync)),
        peer("pybreaker", with_pybreaker_sync),
        peer("purgatory", with_purgatory_sync),
        peer("interlock-cb (window)", lambda: with_interlock(answer_sync)),
        peer("redress (failures in 60 s)", with_redress_sync),
    ),
    (Bar(2),),
)
