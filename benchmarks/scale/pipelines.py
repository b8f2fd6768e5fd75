"""Cost per call when calls go round many pipelines, each with a function and state of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import cycle, islice
from typing import Any

from benchmarks.cases import by_hand, retry, stack
from benchmarks.scale.curve import Curve, minima

COUNTS = (1, 10, 100, 1_000, 10_000)
CALLS = 10_000
REPEATS = 25
DECORATORS: dict[str, Callable[[Any], Any]] = {
    "six policies": stack.guarded,
    "six policies by hand": by_hand.stacked,
    "retry": retry.guarded,
    "retry by hand": by_hand.retry,
}
OURS = ("six policies", "retry")
ALONE = "{}, one of them"
"""All of them are there, and one is called: what there is to search or to sweep would show."""


def fresh() -> Callable[[int], Awaitable[int]]:
    async def answer(value: int) -> int:
        return value

    return answer


async def per_call(functions: list[Callable[[int], Awaitable[int]]]) -> float:
    """Microseconds; the functions take turns."""
    turns = list(islice(cycle(functions), CALLS))
    started = time.perf_counter()
    for fn in turns:
        await fn(1)
    return (time.perf_counter() - started) / CALLS * 1e6


def repeat(runner: asyncio.Runner, functions: list[Callable[[int], Awaitable[int]]]) -> Callable[[], float]:
    return lambda: float(runner.run(per_call(functions)))


def measure() -> Curve:
    title = "Cost per call over the number of pipelines"
    curve = Curve("pipelines", title, "pipelines", "µs", [*OURS, *map(ALONE.format, OURS)])
    with asyncio.Runner() as runner:
        for count in COUNTS:
            functions = {name: [decorate(fresh()) for _ in range(count)] for name, decorate in DECORATORS.items()}
            repeats = {name: repeat(runner, alike) for name, alike in functions.items()}
            repeats |= {ALONE.format(name): repeat(runner, functions[name][:1]) for name in OURS}
            for name, figure in minima(repeats, REPEATS).items():
                curve.add(name, count, figure)
    return curve


def says(curve: Curve) -> str:
    return (
        f"Calls go round all pipelines in turn. From 1 to {COUNTS[-1]:,} of them a call becomes "
        f"{curve.growth('retry'):.2f} times as expensive with a retry ({curve.growth('retry by hand'):.2f} by hand) "
        f"and {curve.growth('six policies'):.2f} times with six policies ({curve.growth('six policies by hand'):.2f} "
        "by hand). A call does not search among the pipelines: one of as many, called again and again, costs "
        f"{curve.growth(ALONE.format('retry')):.2f} and {curve.growth(ALONE.format('six policies')):.2f} times."
    )
