"""Time, randomness and parked threads: what tests replace, in one place.

Everything in pyresilience that asks for the time calls `now()`, and every thread that waits does so in
`park()`. Both go through the installed `Sources`, so that a virtual clock sees all of it.

Time is one process-wide monotonic clock in integer nanoseconds. The clocks of event loops are not comparable
with each other (trio's starts at a random offset), hence they serve timers only.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

NANOSECONDS = 1_000_000_000

monotonic = time.monotonic
"""What `time()` of asyncio's own event loops calls."""


class Sources(Protocol):
    """What `install` takes."""

    def now(self) -> int:
        """Monotonic time in nanoseconds, comparable between threads and event loops."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch; only to compare with dates in HTTP headers."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def park(self, lock: threading.Lock, seconds: float | None) -> bool:
        """Block this thread until `lock`, which is held, is released by `unpark`; False on time-out."""
        ...

    def unpark(self, lock: threading.Lock) -> None:
        """Release `lock`, from any thread."""
        ...

    def work_started(self) -> None:
        """A worker thread is about to be given a job; called by whoever gives it."""
        ...

    def work_ended(self) -> None:
        """A worker thread has ended its job and reported it."""
        ...


class SystemSources:
    """The real clock, the shared random generator and real blocking."""

    now = staticmethod(time.monotonic_ns)
    wall = staticmethod(time.time)

    def random(self) -> float:
        from random import random  # a tenth of what importing this package takes, and only jitter needs it

        return random()

    def park(self, lock: threading.Lock, seconds: float | None) -> bool:
        if seconds is None:
            return lock.acquire()
        return lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))

    def unpark(self, lock: threading.Lock) -> None:
        lock.release()

    def work_started(self) -> None:
        pass

    def work_ended(self) -> None:
        pass


_system = SystemSources()
current: Sources = _system
now = _system.now
random = _system.random


def install(sources: Sources | None) -> Sources:
    """Use `sources` from now on in the whole process (None: the system's) and return those used before."""
    global current, now, random
    previous = current
    current = sources or _system
    now = current.now
    random = current.random
    return previous


def wall() -> float:
    return current.wall()


def seconds_until(deadline: float) -> float:
    """Seconds from now to a deadline in nanoseconds; negative when it has passed, `inf` for `inf`."""
    return (deadline - now()) / NANOSECONDS
