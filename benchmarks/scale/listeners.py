"""Cost per call over the number of listeners that are told of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.model import answer
from benchmarks.scale.curve import Curve, minima

COUNTS = (1, 2, 5, 10, 20, 50)
CALLS = 5_000
REPEATS = 11
CALL, SHARE = "per call", "per listener"


def listener() -> Callable[[Any], None]:
    def hear(event: Any) -> None:
        pass

    return hear


def guarded(listeners: int) -> Any:
    from pyresilience import RetryConfig, resilient

    return resilient(retry=RetryConfig(), listeners=[listener() for _ in range(listeners)])(answer)


async def per_call(fn: Callable[[int], Awaitable[int]]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        await fn(1)
    return (time.perf_counter() - started) / CALLS * 1e6


def measure() -> Curve:
    curve = Curve("listeners", "Cost per call over the number of listeners", "listeners", "µs", [CALL, SHARE])
    with asyncio.Runner() as runner:
        functions = {str(count): guarded(count) for count in (0, *COUNTS)}
        repeats = {name: (lambda fn=fn: float(runner.run(per_call(fn)))) for name, fn in functions.items()}
        figures = minima(repeats, REPEATS)
    curve.facts["none"] = figures["0"]
    for count in COUNTS:
        curve.add(CALL, count, figures[str(count)])
        curve.add(SHARE, count, (figures[str(count)] - figures["0"]) / count)
    return curve


def says(curve: Curve) -> str:
    return (
        f"A call with a retry and nobody listening costs {curve.facts['none']:.2f} µs. The first listener, which does "
        f"nothing, adds {curve.first(SHARE):.2f} µs: the event is made for it. Of {COUNTS[-1]} listeners each adds "
        f"{curve.last(SHARE):.2f} µs: the event is made once."
    )
