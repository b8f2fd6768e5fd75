"""Tools for tests: virtual time on asyncio, trio and threads, chosen randomness, and recorded events.

```python
def test_third_attempt_succeeds() -> None:
    with VirtualTime() as time:
        started = time.seconds
        assert flaky() == "ok"  # retries after 1 s and 2 s, in no real time
        assert time.seconds - started == 3
```
"""

from __future__ import annotations

import heapq
import itertools
import threading
from contextlib import contextmanager
from math import ceil, inf, nextafter
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import anyio

from pyresilience.runtime import _sources as sources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from pyresilience.events._events import EventType, ResilienceEvent

P = ParamSpec("P")
T = TypeVar("T")

POLL_SECONDS = 0.0005
PATIENCE = 4000
"""How often an event loop that waits for nothing in particular polls before that is taken for a deadlock."""


class DeadlockError(RuntimeError):
    """Everything waits, and nothing is left that could wake it."""


class _Sleeper:
    """A thread parked in virtual time."""

    __slots__ = ("deadlock", "gate", "lock", "woken")

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self.gate = threading.Lock()
        self.gate.acquire()
        self.woken = False
        self.deadlock = False


class VirtualTime:
    """A clock that jumps to the next timer as soon as nothing can run before it.

    As a context manager it replaces the clock, the randomness and the waiting of threads in all of pyresilience.
    The threads that take part are the one that entered, those started with `spawn`, and our worker threads; each
    may wait with `sleep`. `run` runs async code on an event loop that lives in the same time.

    Args:
        start: the first reading in seconds; not 0, so that code which mistakes 0 for "never" is found out.
        random: what stands in for random numbers, in [0, 1); a number or a function that gives one.
        wall: seconds since the epoch at the start.
    """

    def __init__(
        self, start: float = 1000.0, *, random: float | Callable[[], float] = 0.5, wall: float = 1_700_000_000.0
    ) -> None:
        self._mutex = threading.Lock()
        self._start = self._nanoseconds = int(start * sources.NANOSECONDS)
        self._wall = wall
        self._random = random
        self._running = 0
        self._host: int | None = None
        self._sequence = itertools.count()
        self._activity = 0
        self._impatience = 0
        self._over = False
        self._timers: list[tuple[int, int, _Sleeper]] = []
        self._parked: dict[int, _Sleeper] = {}
        self._previous: list[sources.Sources] = []

    def __enter__(self) -> VirtualTime:
        self._previous.append(sources.install(self))
        self._over = False
        self._running += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running -= 1
        sources.install(self._previous.pop())
        self._end()

    # ------------------------------------------------------------------ what tests use

    @property
    def seconds(self) -> float:
        """The time now."""
        return self._nanoseconds / sources.NANOSECONDS

    def sleep(self, seconds: float) -> None:
        """Block this thread for so long, in virtual time."""
        lock = threading.Lock()
        lock.acquire()
        self.park(lock, seconds)

    def jump(self, seconds: float) -> None:
        """Move the clock at once, as when a machine was suspended; timers that are due fire when somebody waits."""
        with self._mutex:
            self._nanoseconds += int(seconds * sources.NANOSECONDS)

    def spawn(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> VirtualThread[T]:
        """Run `fn` in a thread that takes part in this time."""
        return VirtualThread(self, lambda: fn(*args, **kwargs))

    def run(self, fn: Callable[..., Awaitable[T]], /, *args: Any, backend: str = "asyncio") -> T:
        """Run an async function in a new event loop of `backend`, `asyncio` or `trio`.

        Raises:
            DeadlockError: it waits for something that never comes.
        """
        with self.hosting():
            return anyio.run(fn, *args, backend=backend, backend_options=self.backend_options(backend))

    def backend_options(self, backend: str) -> dict[str, Any]:
        """What `anyio.run` and anyio's pytest plugin need to run `backend` in this time; see `hosting`."""
        if backend == "asyncio":
            from pyresilience._testing_asyncio import asyncio_options

            return asyncio_options(self)
        try:
            from pyresilience._testing_trio import trio_options
        except ModuleNotFoundError as missing:
            raise ImportError("virtual time on trio needs trio: pip install trio") from missing

        return trio_options(self)

    @contextmanager
    def hosting(self) -> Generator[VirtualTime]:
        """While this thread runs an event loop made with `backend_options`: the loop moves the time on."""
        previous = sources.install(self)
        host, self._host = self._host, threading.get_ident()
        self._over = False
        entered, self._running = self._running, 0
        try:
            yield self
        finally:
            self._running, self._host = entered, host
            sources.install(previous)
            if not entered:
                self._end()

    # ------------------------------------------------------------------ what pyresilience uses (`Sources`)

    def now(self) -> int:
        return self._nanoseconds

    def wall(self) -> float:
        return self._wall + (self._nanoseconds - self._start) / sources.NANOSECONDS

    def random(self) -> float:
        return self._random() if callable(self._random) else self._random

    def park(self, lock: threading.Lock, seconds: float | None) -> bool:
        sleeper = _Sleeper(lock)
        hosting = self._host == threading.get_ident()
        with self._mutex:
            if lock.acquire(blocking=False):
                return True
            if self._over:
                return False
            self._parked[id(lock)] = sleeper
            if seconds is not None and seconds != inf:
                when = self._nanoseconds + max(0, ceil(seconds * sources.NANOSECONDS))
                heapq.heappush(self._timers, (when, next(self._sequence), sleeper))
            if hosting:
                self._host = None  # the loop stands still for as long as its thread is parked
            else:
                self._running -= 1
            self._advance()
        sleeper.gate.acquire()
        if hosting:
            with self._mutex:
                self._host = threading.get_ident()
                self._running -= 1
        if sleeper.deadlock:
            raise DeadlockError("every thread waits, and nothing is left that could wake one")
        return sleeper.woken

    def unpark(self, lock: threading.Lock) -> None:
        with self._mutex:
            self._activity += 1
            sleeper = self._parked.pop(id(lock), None)
            if sleeper is None:
                lock.release()
            else:
                sleeper.woken = True
                self._release(sleeper)

    def work_started(self) -> None:
        with self._mutex:
            self._running += 1

    def work_ended(self) -> None:
        with self._mutex:
            self._activity += 1
            self._running -= 1
            self._advance()

    # ------------------------------------------------------------------ moving on

    @property
    def activity(self) -> int:
        """Changes whenever a thread did something that an event loop may have to look at."""
        return self._activity

    def idle(self, deadline: float, activity: int) -> bool:
        """An event loop has nothing to do before `deadline` (seconds). True: time moved on, or something happened.

        `activity` is what it was before the loop looked for something to do.
        """
        with self._mutex:
            if self._activity != activity:
                return True
            if self._running:
                return False
            due = inf if deadline == inf else max(_reaching(deadline), self._nanoseconds + 1)
            self._forget_woken()
            if self._timers and self._timers[0][0] <= due:
                self._fire_next()
            elif due != inf:
                self._nanoseconds = int(due)
            else:
                self._impatience += 1
                if self._impatience > PATIENCE:
                    raise DeadlockError("every task waits, and nothing is left that could wake one")
                return False
            self._impatience = 0
            return True

    def _advance(self) -> None:
        """Without an event loop, the last thread to wait moves the time on."""
        if self._running or self._host is not None:
            return
        self._forget_woken()
        if self._timers:
            self._fire_next()
            return
        for sleeper in list(self._parked.values()):
            sleeper.deadlock = True
            self._release(sleeper)
        self._parked.clear()

    def _end(self) -> None:
        """Nobody lives in this time any more: let functions that were abandoned in it run to their end."""
        with self._mutex:
            self._over = True
            for sleeper in self._parked.values():
                self._release(sleeper)
            self._parked.clear()
            self._timers.clear()

    def _forget_woken(self) -> None:
        while self._timers and self._parked.get(id(self._timers[0][2].lock)) is not self._timers[0][2]:
            heapq.heappop(self._timers)

    def _fire_next(self) -> None:
        when, _, sleeper = heapq.heappop(self._timers)
        self._nanoseconds = max(self._nanoseconds, when)
        del self._parked[id(sleeper.lock)]
        self._release(sleeper)

    def _release(self, sleeper: _Sleeper) -> None:
        self._running += 1
        sleeper.gate.release()


def _reaching(deadline: float) -> int:
    """The nanosecond at which an event loop finds `deadline` passed; far away, floats are coarser than that."""
    due = ceil(deadline * sources.NANOSECONDS)
    if due / sources.NANOSECONDS + 1e-9 <= deadline:
        due = ceil(nextafter(deadline, inf) * sources.NANOSECONDS)
    return due


class VirtualThread(Generic[T]):
    """A thread started by `VirtualTime.spawn`."""

    _value: T

    def __init__(self, time: VirtualTime, fn: Callable[[], T]) -> None:
        self._time = time
        self._fn = fn
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()
        time.work_started()
        threading.Thread(target=self._main, name="virtual-thread", daemon=True).start()

    def _main(self) -> None:
        try:
            self._value = self._fn()
        except BaseException as error:
            self._error = error
        finally:
            self._time.unpark(self._done)
            self._time.work_ended()

    def join(self) -> T:
        """Wait for the end, in virtual time; the function's value, or its error raised."""
        self._time.park(self._done, None)
        self._time.unpark(self._done)
        if self._error is not None:
            raise self._error
        return self._value


class EventRecorder:
    """A listener that keeps what it hears, in order."""

    def __init__(self) -> None:
        self.events: list[ResilienceEvent] = []

    def __call__(self, event: ResilienceEvent) -> None:
        self.events.append(event)

    @property
    def types(self) -> list[EventType]:
        """The kinds of event, in order."""
        return [event.event_type for event in self.events]

    @property
    def sequence(self) -> list[tuple[str, int]]:
        """Kind and attempt of each event, such as `("retry", 1)`."""
        return [(event.event_type.value, event.attempt) for event in self.events]

    def of(self, kind: EventType) -> list[ResilienceEvent]:
        """The events of one kind."""
        return [event for event in self.events if event.event_type is kind]

    def clear(self) -> None:
        self.events.clear()
