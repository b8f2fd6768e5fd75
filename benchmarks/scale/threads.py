"""Throughput of several threads that share one guard, as a multiple of that of one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.cases import circuit_breaker, rate_limiter
from benchmarks.model import answer_sync
from benchmarks.scale.curve import Curve

COUNTS = (1, 2, 4, 8)
SECONDS = 0.08
"""What one thread alone runs for: many times the interval at which the interpreter switches threads (5 ms)."""
TRIAL = 2_000
REPEATS = 31
"""Of which the middle one counts: the best one would be that in which the threads happened not to meet.

Each compares with the thread alone of the same repeat, for the speed of a machine may change in between.
"""
CROWDED_REPEATS = 5
"""As many have more than two threads, which take seconds to get past each other."""
BARE, BREAKER, LIMITER, BULKHEAD = "without a guard", "circuit breaker", "rate limiter", "bulkhead"
NESTED = "ten plain functions around it"
"""About as much to interpret as a guarded call, with nothing that threads could share."""


def nested(fn: Callable[[int], Any], depth: int = 10) -> Callable[[int], Any]:
    def call(value: int) -> Any:
        return fn(value)

    return nested(call, depth - 1) if depth else fn


def with_bulkhead() -> Any:
    from pyresilience import BulkheadConfig, resilient

    return resilient(bulkhead=BulkheadConfig(max_concurrent=2 * COUNTS[-1]))(answer_sync)


def calls_per_second(fn: Callable[[int], Any], threads: int, calls: int) -> float:
    """All threads together, each with so many calls, from the first call of any to the last one of all."""
    begin = threading.Barrier(threads)
    spans: list[tuple[float, float]] = []

    def work() -> None:
        begin.wait()
        started = time.perf_counter()
        for _ in range(calls):
            fn(1)
        spans.append((started, time.perf_counter()))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(spans) < threads:
        raise RuntimeError("a thread failed")
    return threads * calls / (max(ended for _, ended in spans) - min(started for started, _ in spans))


def calls_for(fn: Callable[[int], Any]) -> int:
    """How many calls keep one thread busy for about `SECONDS`."""
    return round(max(calls_per_second(fn, 1, TRIAL) for _ in range(5)) * SECONDS)


def measure() -> Curve:
    subjects: dict[str, Callable[[int], Any]] = {
        BARE: answer_sync,
        NESTED: nested(answer_sync),
        BREAKER: circuit_breaker.guarded(answer_sync),
        LIMITER: rate_limiter.guarded(answer_sync),
        BULKHEAD: with_bulkhead(),
    }
    calls = {name: calls_for(fn) for name, fn in subjects.items()}
    rates: dict[tuple[str, int], list[float]] = {}
    for turn in range(REPEATS):
        counts = COUNTS if turn < CROWDED_REPEATS else COUNTS[:2]
        for name, fn in subjects.items():
            for count in counts:
                rates.setdefault((name, count), []).append(calls_per_second(fn, count, calls[name]))
    return drawn(rates)


def drawn(rates: Mapping[tuple[str, int], Sequence[float]]) -> Curve:
    """The curve of some rates; its facts say how far those of one and of two threads were apart."""
    title = "Throughput of threads that share one guard, one thread = 1"
    curve = Curve("threads", title, "threads", "x", [BREAKER, LIMITER, BULKHEAD])
    for (name, count), found in rates.items():
        alone = rates[name, 1]
        shares = [rate / single for rate, single in zip(found, alone, strict=False)]  # a crowd has fewer repeats
        curve.add(name, count, median(shares))
        if count == 1:
            shares = [single / median(alone) for single in alone]
        if count <= 2:
            curve.facts[f"{name}, {count}, least"] = min(shares)
            curve.facts[f"{name}, {count}, most"] = max(shares)
    return curve


def says(curve: Curve) -> str:
    two = "; ".join(f"{name} {compared(curve, name)}" for name in curve.series)
    return (
        "Threads call a function which does nothing through one guard that they share, each so often that it would "
        f"take {SECONDS * 1000:.0f} ms alone. What two make together, as a multiple of the one of the same repeat, the "
        f"middle of {REPEATS} repeats and all of them: {two}. With the interpreter's own lock, 1 is the most to "
        "expect. The healthy path of the circuit breaker takes no lock of ours; rate limiter and bulkhead take one."
    )


def compared(curve: Curve, name: str) -> str:
    """What two threads make, and whether the repeats with one thread were as far apart."""
    two = dict(curve.series[name])[2]
    (low, high), (least, most) = (
        (curve.facts[f"{name}, {count}, least"], curve.facts[f"{name}, {count}, most"]) for count in (1, 2)
    )
    shown = f"{two:.2f} ({least:.2f} to {most:.2f})"
    return f"{shown}, no worse than one thread, whose repeats go from {low:.2f} to {high:.2f}" if two >= low else shown
