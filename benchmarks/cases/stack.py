"""Six policies around one function, and three listeners on top of them."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

from benchmarks.cases import by_hand
from benchmarks.cases.by_hand import ATTEMPTS, CONCURRENT, LIMIT, SECONDS, THRESHOLD, Function
from benchmarks.meters import AsyncCalls
from benchmarks.model import BARE, Bar, Case, Kind, answer, floor, library, ours, peer, reference


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
    """One library for each policy, each about the quickest of its kind on the page.

    Retry, breaker and timeout are. The rate limiter comes second to that of hyx, which has a variant of its own.
    """
    semaphore = asyncio.Semaphore(CONCURRENT)
    limiter = library("aiolimiter").AsyncLimiter(LIMIT, 1)

    async def limited(value: int) -> Any:
        async with limiter, semaphore, asyncio.timeout(SECONDS):
            return await fn(value)

    guard = library("circuitbreaker").circuit(failure_threshold=THRESHOLD)(limited)
    return by_hand.fallback(library("hyx.retry").retry(on=Exception, attempts=ATTEMPTS, backoff=1.0)(guard))


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("benchmarks.null")
    logger.handlers = [logging.NullHandler()]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


def cached_children() -> tuple[Any, Any]:
    """A counter and a histogram of the Prometheus client, found once."""
    prometheus = library("prometheus_client")
    registry = prometheus.CollectorRegistry()
    events = prometheus.Counter("events", "Events.", ("event_type", "function_name"), registry=registry)
    durations = prometheus.Histogram("duration_seconds", "Durations.", ("function_name",), registry=registry)
    return events.labels("success", "answer"), durations.labels("answer")


def heard_by_hand() -> Function:
    """The six wrappers, and what three listeners do: a line of JSON, a count, and two cached children."""
    counter, histogram = cached_children()
    counts = {"success": 0}
    dumps = library("orjson").dumps
    logger = _quiet_logger()
    guard = by_hand.stacked(answer)

    async def call(*args: Any, **kwargs: Any) -> Any:
        started = monotonic()
        result = await guard(*args, **kwargs)
        duration = monotonic() - started
        logger.info(dumps({"event_type": "success", "function_name": "answer", "attempt": 1}).decode())
        counts["success"] += 1
        counter.inc()
        histogram.observe(duration)
        return result

    return call


def libraries_alone() -> Function:
    """The six wrappers, and what three listeners ask of `logging` and the Prometheus client, without listeners.

    A record of a constant text, for which no caller is looked for, and two children: nobody who makes records with
    `logging` and counts with that client adds less.
    """
    counter, histogram = cached_children()
    logger = _quiet_logger()
    line = '{"event_type":"success","function_name":"answer","attempt":1}'
    guard = by_hand.stacked(answer)

    async def call(*args: Any, **kwargs: Any) -> Any:
        started = monotonic()
        result = await guard(*args, **kwargs)
        duration = monotonic() - started
        logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, line, (), None, "call"))
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
        floor(lambda: by_hand.stacked(answer)),
        BARE,
        ours("pyresilience", guarded),
        peer("hyx", with_hyx),
        peer("hyx.retry, circuitbreaker, aiolimiter, asyncio", with_single_libraries),
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
        reference("the six wrappers", lambda: by_hand.stacked(answer), documented=False),
        reference("the six wrappers, a record and two children, no listener", libraries_alone, documented=False),
    ),
    (Bar(5, Kind.PLUS, UNHEARD),),
)
