"""Six policies around one function, and three listeners on top of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic, monotonic_ns
from typing import Any

from benchmarks.meters import AsyncCalls
from benchmarks.model import Bar, Case, Kind, answer, floor, library, ours, peer, reference

Function = Callable[[int], Awaitable[int]]
ATTEMPTS = 3
THRESHOLD = 5
RECOVERY = 30.0
LIMIT = 10**9
CONCURRENT = 10
SECONDS = 30.0


class RefusedError(Exception):
    """One of the wrappers did not let the call through."""


def with_timeout(fn: Function) -> Function:
    async def call(*args: Any, **kwargs: Any) -> int:
        async with asyncio.timeout(SECONDS):
            return await fn(*args, **kwargs)

    return call


def with_bulkhead(fn: Function) -> Function:
    running = 0

    async def call(*args: Any, **kwargs: Any) -> int:
        nonlocal running
        if running >= CONCURRENT:
            raise RefusedError
        running += 1
        try:
            return await fn(*args, **kwargs)
        finally:
            running -= 1

    return call


def with_rate_limit(fn: Function) -> Function:
    emission = 1
    burst = 10**9
    arrival = 0

    async def call(*args: Any, **kwargs: Any) -> int:
        nonlocal arrival
        now = monotonic_ns()
        due = (arrival if arrival > now else now) + emission
        if due - now > burst:
            raise RefusedError
        arrival = due
        return await fn(*args, **kwargs)

    return call


def with_breaker(fn: Function) -> Function:
    failures = 0
    opened_until = 0.0

    async def call(*args: Any, **kwargs: Any) -> int:
        nonlocal failures, opened_until
        if failures >= THRESHOLD and monotonic() < opened_until:
            raise RefusedError
        try:
            result = await fn(*args, **kwargs)
        except RefusedError:
            raise
        except Exception:
            failures += 1
            if failures >= THRESHOLD:
                opened_until = monotonic() + RECOVERY
            raise
        failures = 0
        return result

    return call


def with_retry(fn: Function) -> Function:
    async def call(*args: Any, **kwargs: Any) -> int:
        attempt = 1
        while True:
            try:
                return await fn(*args, **kwargs)
            except Exception:
                if attempt >= ATTEMPTS:
                    raise
                await asyncio.sleep(1)
                attempt += 1

    return call


def with_fallback(fn: Function) -> Function:
    async def call(*args: Any, **kwargs: Any) -> int:
        try:
            return await fn(*args, **kwargs)
        except Exception:
            return 0

    return call


WRAPPERS = (with_timeout, with_bulkhead, with_rate_limit, with_breaker, with_retry, with_fallback)


def by_hand(fn: Function = answer) -> Function:
    for wrap in WRAPPERS:
        fn = wrap(fn)
    return fn


def guarded(fn: Function = answer, **more: Any) -> Any:
    from pyresilience import (
        BulkheadConfig,
        CircuitBreakerConfig,
        FallbackConfig,
        RateLimiterConfig,
        RetryConfig,
        TimeoutConfig,
        resilient,
    )

    return resilient(
        fallback=FallbackConfig(handler=0),
        retry=RetryConfig(max_attempts=ATTEMPTS),
        circuit_breaker=CircuitBreakerConfig(failure_threshold=THRESHOLD),
        rate_limiter=RateLimiterConfig(max_calls=LIMIT),
        bulkhead=BulkheadConfig(max_concurrent=CONCURRENT),
        timeout=TimeoutConfig(seconds=SECONDS),
        **more,
    )(fn)


async def _zero(*args: Any, **kwargs: Any) -> int:
    return 0


def with_hyx(fn: Function = answer) -> Any:
    guard: Any = library("hyx.timeout").timeout(SECONDS)(fn)
    guard = library("hyx.bulkhead").bulkhead(max_concurrency=CONCURRENT, max_capacity=CONCURRENT)(guard)
    guard = library("hyx.ratelimit").tokenbucket(max_executions=LIMIT, per_time_secs=1)(guard)
    guard = library("hyx.circuitbreaker").consecutive_breaker(failure_threshold=THRESHOLD)(guard)
    guard = library("hyx.retry").retry(on=Exception, attempts=ATTEMPTS, backoff=1.0)(guard)
    return library("hyx.fallback").fallback(_zero, on=Exception)(guard)


def with_single_libraries(fn: Function = answer) -> Any:
    """Of each kind the quickest that we know: stamina, circuitbreaker, aiolimiter, asyncio for the rest."""
    semaphore = asyncio.Semaphore(CONCURRENT)
    limiter = library("aiolimiter").AsyncLimiter(LIMIT, 1)

    async def limited(value: int) -> int:
        async with limiter, semaphore, asyncio.timeout(SECONDS):
            return await fn(value)

    guard = library("circuitbreaker").circuit(failure_threshold=THRESHOLD)(limited)
    return with_fallback(library("stamina").retry(on=Exception, attempts=ATTEMPTS)(guard))


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("benchmarks.null")
    logger.handlers = [logging.NullHandler()]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


def heard_by_hand() -> Function:
    """The six wrappers, and what three listeners do: a line of JSON, a count, and two cached children."""
    prometheus = library("prometheus_client")
    registry = prometheus.CollectorRegistry()
    events = prometheus.Counter("events", "Events.", ("event_type", "function_name"), registry=registry)
    durations = prometheus.Histogram("duration_seconds", "Durations.", ("function_name",), registry=registry)
    counter, histogram = events.labels("success", "answer"), durations.labels("answer")
    counts = {"success": 0}
    dumps = library("orjson").dumps
    logger = _quiet_logger()
    guard = by_hand()

    async def call(value: int) -> int:
        started = monotonic()
        result = await guard(value)
        duration = monotonic() - started
        logger.info(dumps({"event_type": "success", "function_name": "answer", "attempt": 1}).decode())
        counts["success"] += 1
        counter.inc()
        histogram.observe(duration)
        return result

    return call


def heard() -> Any:
    from pyresilience import JsonEventLogger, MetricsCollector
    from pyresilience.contrib.prometheus import PrometheusListener

    return guarded(
        listeners=[
            JsonEventLogger(logger=_quiet_logger()),
            MetricsCollector(),
            PrometheusListener(namespace="benchmark"),
        ]
    )


SIX = Case(
    "six_policies",
    "Six policies, async",
    "six stacked wrappers, asyncio.timeout",
    AsyncCalls(),
    (
        floor(by_hand),
        ours("pyresilience", guarded),
        peer("hyx", with_hyx),
        peer("stamina, circuitbreaker, aiolimiter, asyncio", with_single_libraries),
    ),
    (Bar(1.25),),
)

UNHEARD = "pyresilience without listeners"

LISTENERS = Case(
    "three_listeners",
    "Six policies and three listeners, async",
    "the six wrappers, orjson, a count, cached children",
    AsyncCalls(),
    (
        floor(heard_by_hand),
        ours("pyresilience", heard),
        reference(UNHEARD, guarded),
    ),
    (Bar(5, Kind.PLUS, UNHEARD),),
)
