"""Many timeouts of one duration with one timer, on asyncio.

Deadlines of a constant duration on one loop come in order, so only the oldest needs a timer. The scopes are real
anyio scopes, with all of anyio's semantics, that just have no timer of their own; the queue cancels them. All limits of
one duration share it, in whichever pipelines they are. After the last call at most one idle timer per duration and loop
remains, for at most that duration.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pyresilience.runtime import _sources as sources
from pyresilience.runtime._protocol import NO_QUEUES

if TYPE_CHECKING:
    from pyresilience.runtime._protocol import Limit


def _make_scope_class() -> Any:
    import anyio

    base: Any = type(anyio.CancelScope())

    class DeadlineScope(base):  # type: ignore[misc]  # the backend's class is only known inside a running loop
        """A scope whose deadline is watched by a `DeadlineQueue`."""

        __slots__ = ("expires", "outer")

        # As the base does. Its own stands there for `anyio.CancelScope()`, which chooses the backend; one frame less.
        __new__ = object.__new__

        @property
        def deadline(self) -> float:  # keeps anyio.current_effective_deadline() honest
            return self.expires  # type: ignore[no-any-return]

    return DeadlineScope


_scope_class: Any = None


class DeadlineQueue:
    """The open scopes of one duration on one asyncio loop, oldest first."""

    __slots__ = ("armed", "loop", "open", "scope", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        global _scope_class
        if _scope_class is None:
            _scope_class = _make_scope_class()
        self.scope: Any = _scope_class
        self.loop = loop
        own_clock = getattr(loop.time, "__func__", None) is not asyncio.BaseEventLoop.time  # patched, or another loop's
        self.time = loop.time if own_clock else sources.monotonic  # one call less, twice for each timeout
        self.open: dict[Any, float] = {}
        self.armed = False

    def arm(self, when: float) -> None:
        self.loop.call_at(when, self._expire)
        self.armed = True  # afterwards: an interrupt may leave two timers, and never none

    def _expire(self) -> None:
        now = self.time()
        expired: list[Any] = []
        upcoming: float | None = None
        for scope, when in self.open.items():
            if when > now:
                upcoming = when
                break
            expired.append(scope)
        for scope in expired:
            del self.open[scope]
            scope.cancel()
        self.armed = False
        if upcoming is not None:
            self.arm(upcoming)


MOST_DURATIONS = 256
"""Those that have queues for limits to come. Limits that have some keep them."""

_by_duration: dict[float, dict[Any, DeadlineQueue]] = {}
"""The queues of a duration, by event loop."""


def queue_for(limit: Limit, loop: asyncio.AbstractEventLoop) -> DeadlineQueue:
    """The queue of this limit's duration on this loop, for all limits of it; those of closed loops are dropped.

    Threads may make several at the same time: one that is lost still ends the scopes that it has.
    """
    for queues in (limit.queues, *_by_duration.copy().values()):
        for old in [old for old in list(queues) if old.is_closed()]:
            queues.pop(old, None)
    if limit.queues is NO_QUEUES:
        limit.queues = _queues_of(limit.seconds)
    queue: DeadlineQueue = limit.queues.setdefault(loop, DeadlineQueue(loop))
    return queue


def _queues_of(seconds: float) -> dict[Any, DeadlineQueue]:
    queues = _by_duration.get(seconds)
    if queues is None:
        if len(_by_duration) >= MOST_DURATIONS:
            _by_duration.clear()
        queues = _by_duration.setdefault(seconds, {})
    return queues
