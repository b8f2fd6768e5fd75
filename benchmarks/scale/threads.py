"""Throughput of several threads that share one guard, as a multiple of that of one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.cases import circuit_breaker, rate_limiter
from benchmarks.model import answer_sync
from benchmarks.scale.curve import Curve

COUNTS = (1, 2, 4, 8)
CALLS = 20_000
REPEATS = 9
"""Of which the middle one counts: the best one would be that in which the threads happened not to meet."""
BARE, BREAKER, LIMITER, BULKHEAD = "without a guard", "circuit breaker", "rate limiter", "bulkhead"


def with_bulkhead() -> Any:
    from pyresilience import BulkheadConfig, resilient

    return resilient(bulkhead=BulkheadConfig(max_concurrent=2 * COUNTS[-1]))(answer_sync)


def calls_per_second(fn: Callable[[int], Any], threads: int) -> float:
    """All threads together; they begin at the same moment."""
    begin = threading.Barrier(threads + 1)

    def work() -> None:
        begin.wait()
        for _ in range(CALLS):
            fn(1)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return threads * CALLS / (time.perf_counter() - started)


def measure() -> Curve:
    subjects: dict[str, Callable[[int], Any]] = {
        BARE: answer_sync,
        BREAKER: circuit_breaker.guarded(answer_sync),
        LIMITER: rate_limiter.guarded(answer_sync),
        BULKHEAD: with_bulkhead(),
    }
    title = "Throughput of threads that share one guard, one thread = 1"
    curve = Curve("threads", title, "threads", "x", [BREAKER, LIMITER, BULKHEAD])
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(REPEATS):
        for name, fn in subjects.items():
            for count in COUNTS:
                rates.setdefault((name, count), []).append(calls_per_second(fn, count))
    for name, count in rates:
        curve.add(name, count, median(rates[name, count]) / median(rates[name, 1]))
    return curve


def says(curve: Curve) -> str:
    two = {name: dict(points)[2] for name, points in curve.series.items()}
    return (
        f"Two threads that call a function which does nothing through the same circuit breaker make "
        f"{two[BREAKER]:.2f} times the calls of one (without a guard {two[BARE]:.2f}): its healthy path takes no lock. "
        f"Rate limiter ({two[LIMITER]:.2f}) and bulkhead ({two[BULKHEAD]:.2f}) have to take one. Where the interpreter "
        "has its own lock and threads do nothing but call, each can wait for the other (a convoy)."
    )
