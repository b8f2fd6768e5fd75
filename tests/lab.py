"""One scenario, three runtimes.

A test decorated with `every_runtime` is written once, async, against a `Lab`. On asyncio and trio its functions are
`async def` and its calls tasks; on the blocking runtime its functions are plain, its calls are made by real threads,
and awaiting never suspends. All three live in virtual time.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from pyresilience import Pipeline
from pyresilience.runtime._blocking import drive
from pyresilience.testing import EventRecorder, VirtualTime


@dataclass
class After:
    """A step of a scripted function that takes `seconds` and then does what `step` says."""

    seconds: float
    step: Any = "ok"


class Lab:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.blocking = kind == "blocking"
        self.time = VirtualTime()
        self.events = EventRecorder()
        self._began = self.time.seconds

    def run(self, scenario: Callable[[], Any]) -> None:
        if self.blocking:
            with self.time:
                drive(scenario())
        else:
            self.time.run(scenario, backend=self.kind)

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return round(self.time.seconds - self._began, 9)

    async def sleep(self, seconds: float) -> None:
        if self.blocking:
            self.time.sleep(seconds)
        else:
            await anyio.sleep(seconds)

    def pipeline(self, *members: Any, name: str | None = None) -> Pipeline:
        """A pipeline whose events are recorded."""
        return Pipeline(*members, name=name, listeners=[self.events])

    def function(self, *script: Any, name: str = "function") -> Any:
        """A function of this runtime's colour that does one step of the script at each call, the last one for ever.

        A step is a value to return, an exception to raise, or `After(seconds, step)`. `.calls` counts, `.times` has
        the moments of the calls, `.ended` counts those that came to their end.
        """
        steps = list(script)

        def begin() -> Any:
            step = steps[min(fn.calls, len(steps) - 1)]
            fn.calls += 1
            fn.times.append(self.now)
            return step

        def end(step: Any) -> Any:
            fn.ended += 1
            if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
                raise step
            return step

        def plain(*args: Any, **kwargs: Any) -> Any:
            step = begin()
            if isinstance(step, After):
                self.time.sleep(step.seconds)
                step = step.step
            return end(step)

        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            step = begin()
            if isinstance(step, After):
                await anyio.sleep(step.seconds)
                step = step.step
            return end(step)

        fn: Any = plain if self.blocking else asynchronous
        fn.__name__ = name
        fn.calls, fn.times, fn.ended = 0, [], 0
        return fn

    async def call(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function of this runtime's colour, guarded or not."""
        result = fn(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def outcome(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """What a call comes to: its value, or the exception it raised."""
        try:
            return await self.call(fn, *args, **kwargs)
        except Exception as error:
            return error

    async def together(self, *calls: Callable[[], Any], apart: float = 0.0) -> list[Any]:
        """Make calls at the same time (or `apart` seconds after each other), each in a task or thread of its own;
        their values or exceptions, in order. A call is an async function without arguments."""
        results: list[Any] = [None] * len(calls)

        async def one(index: int) -> None:
            if apart:
                await self.sleep(apart * index)
            try:
                results[index] = await calls[index]()
            except Exception as error:
                results[index] = error

        if self.blocking:
            for thread in [self.time.spawn(drive, one(index)) for index in range(len(calls))]:
                thread.join()
        else:
            async with anyio.create_task_group() as group:
                for index in range(len(calls)):
                    group.start_soon(one, index)
        return results


def every_runtime(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run an async test that takes `lab` on all three runtimes."""

    @functools.wraps(test)
    def run(lab: Lab, **fixtures: Any) -> None:
        lab.run(lambda: test(lab, **fixtures))

    del run.__wrapped__  # pytest would find the coroutine function
    signature = inspect.signature(test)
    run.__signature__ = signature
    return run
