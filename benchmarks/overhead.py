"""What a guarded call costs: each policy alone and all together, async and sync, against a bare call.

Run with `uv run python benchmarks/overhead.py`. Shows the minimum over interleaved repeats, in microseconds per call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from typing import TYPE_CHECKING, Any

from pyresilience import (
    BulkheadConfig,
    CacheConfig,
    CircuitBreakerConfig,
    FallbackConfig,
    Pipeline,
    RateLimiterConfig,
    RetryConfig,
    TimeoutConfig,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyresilience.pipeline._pipeline import Member

ALL: tuple[Member, ...] = (
    FallbackConfig("x"),
    RetryConfig(),
    CircuitBreakerConfig(),
    RateLimiterConfig(max_calls=10**9),
    BulkheadConfig(),
)
VARIANTS: dict[str, tuple[Member, ...]] = {
    "empty pipeline": (),
    "retry": (RetryConfig(),),
    "circuit breaker, consecutive": (CircuitBreakerConfig(),),
    "circuit breaker, window of 100": (CircuitBreakerConfig(sliding_window_size=100),),
    "bulkhead": (BulkheadConfig(),),
    "bulkhead, max_wait": (BulkheadConfig(max_wait=1),),
    "rate limiter": (RateLimiterConfig(max_calls=10**9),),
    "fallback": (FallbackConfig("x"),),
    "cache hit": (CacheConfig(),),
    "timeout": (TimeoutConfig(30),),
    "all but timeout": ALL,
    "all": (*ALL, TimeoutConfig(30)),
}


async def bare_async(x: int) -> int:
    return x


def bare_sync(x: int) -> int:
    return x


async def time_async(fn: Callable[[int], Awaitable[int]], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        await fn(1)
    return time.perf_counter() - started


def time_sync(fn: Callable[[int], int], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        fn(1)
    return time.perf_counter() - started


def minima(functions: dict[str, Any], run: Callable[[Any, int], float], calls: int, repeats: int) -> dict[str, float]:
    """Microseconds per call; the repeats of all functions are interleaved."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, fn in functions.items():
            count = calls // 20 if name == "timeout" and run is time_sync else calls
            count = count // 20 if name == "all" and run is time_sync else count
            gc.disable()
            best[name] = min(best[name], run(fn, count) / count * 1e6)
            gc.enable()
    return best


def measure(calls: int, repeats: int) -> dict[str, dict[str, float]]:
    """Colour, then variant, to microseconds."""
    asynchronous: dict[str, Any] = {"bare call": bare_async}
    synchronous: dict[str, Any] = {"bare call": bare_sync}
    for name, members in VARIANTS.items():
        asynchronous[name] = Pipeline(*members)(bare_async)
        synchronous[name] = Pipeline(*members)(bare_sync)
    with asyncio.Runner() as runner:
        results = {"async": minima(asynchronous, lambda fn, n: runner.run(time_async(fn, n)), calls, repeats)}
    results["sync"] = minima(synchronous, time_sync, calls, repeats)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000, help="calls per repeat")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    results = measure(options.calls, options.repeats)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'':32}{'async µs':>10}{'x bare':>8}{'sync µs':>12}{'x bare':>8}")
    for name in results["async"]:
        figures = [(results[colour][name], results[colour][name] / results[colour]["bare call"]) for colour in results]
        print(f"{name:32}{figures[0][0]:10.2f}{figures[0][1]:8.1f}{figures[1][0]:12.2f}{figures[1][1]:8.1f}")
    print("\nA sync function with a timeout runs in a worker thread: the hand-over is most of its cost.")


if __name__ == "__main__":
    main()
