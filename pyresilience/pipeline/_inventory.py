"""The pipelines of the process, weakly: for listeners of all of them, health, metrics, draining and forks.

One that has a name, listeners of its own or layers that others know is here from the start. Any other comes with its
first call, or when somebody looks at its layers: until then there is nothing to show, to tell or to wait for.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from pyresilience.events._bus import DispatchTable, Listener, check_listener, deliver
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import BlockingWaiter, event_loop_is_running

if TYPE_CHECKING:
    from pyresilience.events._events import EventType
    from pyresilience.pipeline._call import Binding
    from pyresilience.pipeline._pipeline import Pipeline
    from pyresilience.runtime._protocol import Waiter

_lock = threading.RLock()  # a signal handler may ask while it is held
_pipelines: list[weakref.ref[Pipeline]] = []
_crowded = 1000
"""Length of the list from which those that are gone are looked for; less memory than a set that watches each."""
_subscribed: tuple[Listener, ...] = ()

everybody = DispatchTable()
"""Of all pipelines without listeners of their own: who wants to hear of every pipeline."""

calls: set[InFlight] = set()
"""The calls in flight of all pipelines: in one set, so that a call touches nothing of its pipeline."""

drains: list[Waiter] = []
"""Those who wait for calls to end; the roots look at it after each call, so it is empty but for `shutdown`."""


class InFlight(Protocol):
    """A call in flight, or what stands for it while only its work goes on."""

    @property
    def binding(self) -> Binding: ...


def first_call(binding: Binding) -> DispatchTable:
    """Count the pipeline of a binding in; who listens to its calls."""
    pipeline = binding.pipeline
    add(pipeline)
    binding.dispatch = pipeline.dispatch
    return pipeline.dispatch


def add(pipeline: Pipeline) -> None:
    """Count a pipeline in, unless it is."""
    global _crowded, _pipelines
    if pipeline.listed:
        return
    with _lock:
        if len(_pipelines) >= _crowded:
            seen = list(_pipelines)
            _pipelines[: len(seen)] = [known for known in seen if known() is not None]
            _crowded = max(1000, 2 * len(_pipelines))
        if pipeline.dispatch is not everybody:
            pipeline.dispatch.listen(_subscribed)
        known = [weakref.ref(pipeline)]
        if not pipeline.listed:  # nothing is called from here on: an interrupt finds it in both places or in none
            _pipelines += known
            pipeline.listed = True


def pipelines() -> list[Pipeline]:
    """The pipelines that are alive, by name."""
    with _lock:
        seen = list(_pipelines)
    alive = [pipeline for known in seen if (pipeline := known()) is not None]
    return sorted(alive, key=lambda pipeline: pipeline.name or "")


def subscribe(listener: Listener) -> None:
    """Let `listener` hear the events of every pipeline of this process, those to come included."""
    global _subscribed
    check_listener(listener)
    with _lock:
        _subscribed = (*_subscribed, listener)
        _refresh()


def unsubscribe(listener: Listener) -> None:
    """Undo one `subscribe`.

    Raises:
        ValueError: the listener is not subscribed.
    """
    global _subscribed
    with _lock:
        listeners = list(_subscribed)
        try:
            listeners.remove(listener)
        except ValueError:
            raise ValueError(f"listener {listener!r} is not subscribed") from None
        _subscribed = tuple(listeners)
        _refresh()


def _refresh() -> None:
    everybody.listen(_subscribed)
    for pipeline in pipelines():
        if pipeline.dispatch is not everybody:
            pipeline.dispatch.listen(_subscribed)


def announce(layer: object, kind: EventType, detail: str) -> None:
    """Tell the listeners of every pipeline that contains `layer` of something that happened outside any call."""
    for pipeline in pipelines():
        if layer in pipeline.layers:
            audience = pipeline.dispatch.get(kind)
            if audience:
                deliver(audience, kind, pipeline.name or str(getattr(layer, "name", "")), 0, None, detail)


def get_in_flight_count() -> int:
    """How many guarded calls of this process have begun and not yet ended."""
    return len(calls)


def in_flight() -> Counter[Pipeline]:
    """How many calls have begun and not yet ended, by pipeline; those whose work is still held included."""
    return Counter(call.binding.pipeline for call in calls.copy())


def enable_in_flight_tracking() -> None:
    """Calls in flight are always tracked; kept for code that used to ask for it."""


def call_ended() -> None:
    for waiter in tuple(drains):
        try:
            waiter.wake()
        except RuntimeError:
            pass  # the loop of that waiter is closed


def shutdown(wait: bool = True, timeout: float = 30.0) -> bool:
    """Wait until no guarded call of this process is in flight.

    Calls are not refused meanwhile: stop taking requests first.

    Args:
        wait: False only looks.
        timeout: seconds to wait at the most.

    Returns:
        True when nothing was in flight at the end.

    Raises:
        RuntimeError: called in a thread that runs an event loop, where it would stop the calls it waits for; await
            `shutdown_async` there.
    """
    _check_timeout(timeout)
    if wait and get_in_flight_count() and event_loop_is_running():
        raise RuntimeError("shutdown() would block the event loop of this thread; use `await shutdown_async()`")
    deadline = sources.now() + timeout * sources.NANOSECONDS
    waiter = BlockingWaiter()
    drains.append(waiter)
    try:
        while get_in_flight_count():
            left = sources.seconds_until(deadline)
            if not wait or left <= 0 or not waiter.park(left):
                return get_in_flight_count() == 0
        return True
    finally:
        drains.remove(waiter)


async def shutdown_async(timeout: float = 30.0) -> bool:
    """`shutdown` for async code: waits up to `timeout` seconds without blocking the event loop."""
    _check_timeout(timeout)
    import anyio

    from pyresilience.runtime._anyio import AnyioWaiter

    waiter = AnyioWaiter()
    drains.append(waiter)
    try:
        with anyio.move_on_after(timeout):
            while get_in_flight_count():
                await waiter.event.wait()
                waiter.rearm()
        return get_in_flight_count() == 0
    finally:
        drains.remove(waiter)


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0 seconds, not {timeout!r}")


def _after_fork() -> None:
    """The threads of the parent are gone, and with them whoever held a lock, a permit or a place in flight."""
    global _lock
    _lock = threading.RLock()
    drains.clear()
    calls.clear()  # one that goes on here does not mind
    for pipeline in pipelines():
        pipeline.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
