"""Cost of handing a permit from one call to the next, over the number of calls that wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from benchmarks.model import library
from benchmarks.scale.curve import Curve, minima

COUNTS = (1, 10, 100, 1_000, 10_000)
HAND_OVERS = 10_000
MOST_REPEATS = 50
HOLDER = -1
OURS, SEMAPHORE, LIMITER = "pyresilience, max_wait", "asyncio.Semaphore", "anyio.CapacityLimiter"
Work = Callable[[int], Awaitable[None]]


def guarded(work: Work) -> Any:
    from pyresilience import BulkheadConfig, resilient

    return resilient(bulkhead=BulkheadConfig(max_concurrent=1, max_wait=60, max_queue=COUNTS[-1]))(work)


def with_semaphore(work: Work) -> Work:
    semaphore = asyncio.Semaphore(1)

    async def call(number: int) -> None:
        async with semaphore:
            await work(number)

    return call


def with_limiter(work: Work) -> Work:
    limiter = library("anyio").CapacityLimiter(1)

    async def call(number: int) -> None:
        async with limiter:
            await work(number)

    return call


GUARDS: dict[str, Callable[[Work], Any]] = {OURS: guarded, SEMAPHORE: with_semaphore, LIMITER: with_limiter}


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that counts how often its task is resumed."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.resumed = 0

    def send(self, value: Any, /) -> Any:
        self.resumed += 1
        return self.coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self.resumed += 1
        return self.coroutine.throw(*error)

    def close(self) -> None:
        self.coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.coroutine.__await__()


async def queue_up(guard: Callable[[Work], Any], count: int) -> tuple[float, float]:
    """Let calls wait behind one that holds the only permit; then it goes to one after the other.

    Returns:
        Microseconds per hand-over, and how often a waiting task was resumed for each of them.

    Raises:
        RuntimeError: they did not come in the order in which they had asked.
    """
    order: list[int] = []
    entered, leave = asyncio.Event(), asyncio.Event()

    async def work(number: int) -> None:
        order.append(number)
        if number == HOLDER:
            entered.set()
            await leave.wait()

    call = guard(work)
    holder = asyncio.create_task(call(HOLDER))
    await entered.wait()
    waiters = [Counted(call(number)) for number in range(count)]
    tasks = [asyncio.create_task(waiter) for waiter in waiters]
    for _ in range(3):
        await asyncio.sleep(0)
    started_with = sum(waiter.resumed for waiter in waiters)
    started = time.perf_counter()
    leave.set()
    await tasks[-1]
    spent = time.perf_counter() - started
    await asyncio.gather(holder, *tasks)
    if order != [HOLDER, *range(count)]:
        raise RuntimeError("permits did not go to those who had waited longest")
    return spent / count * 1e6, (sum(waiter.resumed for waiter in waiters) - started_with) / count


def repeat(runner: asyncio.Runner, guard: Callable[[Work], Any], count: int) -> Callable[[], float]:
    return lambda: float(runner.run(queue_up(guard, count))[0])


def measure() -> Curve:
    curve = Curve("waiters", "Cost of a hand-over over the calls that wait", "calls that wait", "µs", [OURS])
    with asyncio.Runner() as runner:
        for count in COUNTS:
            repeats = {name: repeat(runner, guard, count) for name, guard in GUARDS.items()}
            for name, figure in minima(repeats, min(MOST_REPEATS, max(3, HAND_OVERS // count))).items():
                curve.add(name, count, figure)
            wake_ups = runner.run(queue_up(guarded, count))[1]
            curve.facts["wake-ups"] = max(wake_ups, curve.facts.get("wake-ups", 0.0))
    return curve


def says(curve: Curve) -> str:
    return (
        f"One permit, handed on: {curve.first(OURS):.1f} µs with one call waiting, {curve.last(OURS):.1f} µs with "
        f"{COUNTS[-1]:,} ({curve.last(SEMAPHORE):.1f} µs for asyncio.Semaphore), the switch of tasks included. Every "
        "run checked that permits go out in the order in which they were asked for. One more run of ours for each "
        f"number of waiting calls counted how often their tasks were resumed: at most {curve.facts['wake-ups']:g} "
        "times for a permit."
    )
