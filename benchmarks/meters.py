"""Ways to measure: time per call, CPU time per task, bytes per function, time of an import."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.model import Runner, WrongAnswerError, library

WARM_UP = 50
MOST_CALLS = 20_000


def calls_for(seconds: float, per_call: float) -> int:
    """How many calls fill a repeat, at least ten."""
    return max(10, min(MOST_CALLS, round(seconds / max(per_call, 1e-9))))


def expect(value: Any) -> None:
    if value != 1:
        raise WrongAnswerError(f"returned {value!r}, not 1")


class AsyncCalls:
    """Microseconds per `await subject(1)`, all of a repeat in one task."""

    unit = "µs"
    heavy = False

    def prepare(self, subject: Callable[[int], Awaitable[Any]], run: Runner, seconds: float) -> Callable[[], float]:
        async def repeat(calls: int) -> float:
            started = time.perf_counter()
            for _ in range(calls):
                await subject(1)
            return (time.perf_counter() - started) / calls

        async def check() -> None:
            expect(await subject(1))

        run(check())
        run(repeat(WARM_UP))
        calls = calls_for(seconds, run(repeat(WARM_UP)))
        return lambda: float(run(repeat(calls)) * 1e6)


class TrioCalls(AsyncCalls):
    """As `AsyncCalls`, on trio."""

    def prepare(self, subject: Callable[[int], Awaitable[Any]], run: Runner, seconds: float) -> Callable[[], float]:
        return super().prepare(subject, on_trio, seconds)


def on_trio(coroutine: Any) -> Any:
    async def main() -> Any:
        return await coroutine

    return library("trio").run(main)


class SyncCalls:
    """Microseconds per `subject(1)`."""

    unit = "µs"
    heavy = False

    def prepare(self, subject: Callable[[int], Any], run: Runner, seconds: float) -> Callable[[], float]:
        def repeat(calls: int) -> float:
            started = time.perf_counter()
            for _ in range(calls):
                subject(1)
            return (time.perf_counter() - started) / calls

        expect(subject(1))
        repeat(WARM_UP)
        calls = calls_for(seconds, repeat(WARM_UP))
        return lambda: repeat(calls) * 1e6


class Storm:
    """Microseconds of CPU time per task when many tasks start at once, and each fails once and tries again.

    CPU time, as all of them wait for a moment, which is not a cost.
    """

    unit = "µs"
    heavy = True

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks

    def prepare(self, subject: Callable[[list[int]], Awaitable[Any]], run: Runner, seconds: float) -> Any:
        async def storm(tasks: int) -> float:
            started = time.process_time()
            answers = await asyncio.gather(*(subject([]) for _ in range(tasks)))
            spent = time.process_time() - started
            for value in answers:
                expect(value)
            return spent / tasks

        run(storm(WARM_UP))
        return lambda: run(storm(self.tasks)) * 1e6


class TrioStorm(Storm):
    """As `Storm`, on trio."""

    def prepare(self, subject: Callable[[list[int]], Awaitable[Any]], run: Runner, seconds: float) -> Any:
        async def task() -> None:
            expect(await subject([]))

        async def storm(tasks: int) -> float:
            started = time.process_time()
            async with library("trio").open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(task)
            return (time.process_time() - started) / tasks

        on_trio(storm(WARM_UP))
        return lambda: float(on_trio(storm(self.tasks)) * 1e6)


class Memory:
    """Bytes that are kept for each decorated function, over those of the function itself."""

    unit = "B"
    heavy = True

    def __init__(self, functions: int) -> None:
        self.functions = functions

    def prepare(
        self, subject: Callable[[Callable[..., Any]], Callable[..., Any]], run: Runner, seconds: float
    ) -> Callable[[], float]:
        async def check() -> None:
            expect(await subject(_function())(1))

        run(check())

        async def decorate() -> float:
            functions = [_function() for _ in range(self.functions)]
            kept: list[Any] = [None] * self.functions
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                for index, fn in enumerate(functions):
                    kept[index] = subject(fn)
                gc.collect()
                return (tracemalloc.get_traced_memory()[0] - before) / self.functions
            finally:
                tracemalloc.stop()

        return lambda: float(run(decorate()))


def _function() -> Callable[[int], Awaitable[int]]:
    async def decorated(value: int) -> int:
        return value

    return decorated


PROCESSES = 3
"""Of which the quickest counts: what a process takes to import differs more than what a call takes."""


class ImportTime:
    """Milliseconds of CPU time of `import asyncio` and then a program, in a fresh interpreter.

    CPU time, as the files are in memory, and what else there is to wait for is other processes. Tornado, which is there
    for pybreaker's async side, is hidden: tenacity and pybreaker import it where they find it.
    """

    unit = "ms"
    heavy = True

    def prepare(self, subject: str, run: Runner, seconds: float) -> Callable[[], float]:
        before = ("import sys, time", "sys.modules['tornado'] = None", "t = time.process_time()")
        program = "\n".join((*before, "import asyncio", subject, "print(time.process_time() - t)"))

        def process() -> float:
            done = subprocess.run(
                [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False
            )
            if done.returncode:
                raise WrongAnswerError(done.stderr.strip().splitlines()[-1])
            return float(done.stdout) * 1e3

        process()  # compiles
        return lambda: min(process() for _ in range(PROCESSES))
