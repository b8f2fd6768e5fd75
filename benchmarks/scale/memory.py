"""Memory over ten million calls that succeed, fail, miss the cache and push each other out of it."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from benchmarks.scale.curve import Curve

CALLS = 10_000_000
SAMPLES = 20
WARM_UP = 100_000
KEYS = 1000
SHARE = 10
"""One call of so many has all policies."""
FAILS = 997
"""Every so many calls, the first attempt fails."""
RSS, BLOCKS = "resident memory, MB", "blocks held by Python, thousands"
STATM = Path("/proc/self/statm")


def function() -> Any:
    calls = 0

    async def answer(value: int) -> int:
        nonlocal calls
        calls += 1
        if calls % FAILS == 0:
            raise ConnectionError
        return value

    return answer


def guarded(**more: Any) -> Any:
    from pyresilience import (
        BulkheadConfig,
        CircuitBreakerConfig,
        MetricsCollector,
        RateLimiterConfig,
        RetryConfig,
        resilient,
    )

    return resilient(
        retry=RetryConfig(delay=0, jitter=False),
        circuit_breaker=CircuitBreakerConfig(sliding_window_size=100),
        rate_limiter=RateLimiterConfig(max_calls=10**9),
        bulkhead=BulkheadConfig(max_concurrent=10, max_wait=1),
        listeners=[MetricsCollector()],
        **more,
    )(function())


def guarded_by_all() -> Any:
    """The cache holds a quarter of the keys, which come in turn: it misses and evicts every time."""
    from pyresilience import CacheConfig, TimeoutConfig

    return guarded(cache=CacheConfig(max_size=KEYS // 4), timeout=TimeoutConfig(seconds=30))


async def work(lean: Any, full: Any, calls: int) -> None:
    for number in range(calls // SHARE):
        await full(number % KEYS)
        for _ in range(SHARE - 1):
            await lean(number)


def resident() -> float:
    """Megabytes; where the system does not tell, the most there ever were."""
    import resource  # which Windows does not have

    if STATM.exists():
        return int(STATM.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(calls: int = CALLS, warm_up: int = WARM_UP) -> Curve:
    curve = Curve("memory", f"Memory over {calls:,} calls", "calls, in millions", "", [RSS, BLOCKS], logarithmic=False)
    lean, full = guarded(), guarded_by_all()
    sizes, blocks = (array("d", [0.0] * (SAMPLES + 1)) for _ in range(2))  # which do not grow themselves
    started = time.perf_counter()
    with asyncio.Runner() as runner:
        runner.run(work(lean, full, warm_up))
        for sample in range(SAMPLES + 1):
            if sample:
                runner.run(work(lean, full, calls // SAMPLES))
            gc.collect()
            sizes[sample], blocks[sample] = resident(), sys.getallocatedblocks()
    curve.facts["seconds"] = time.perf_counter() - started
    for sample in range(SAMPLES + 1):
        done = sample * (calls // SAMPLES) / 1e6
        curve.add(RSS, done, sizes[sample])
        curve.add(BLOCKS, done, blocks[sample] / 1000)
    return curve


def says(curve: Curve) -> str:
    return (
        f"{curve.series[RSS][-1][0]:g} million calls with retry, breaker, rate limiter, bulkhead and a metrics "
        f"collector, one in {SHARE} also with a timeout and a cache that misses and evicts each time; one attempt in "
        f"{FAILS} fails. "
        f"Resident memory went from {curve.first(RSS):.1f} to {curve.last(RSS):.1f} MB, the blocks that Python holds "
        f"from {curve.first(BLOCKS):.2f} to {curve.last(BLOCKS):.2f} thousand."
    )
