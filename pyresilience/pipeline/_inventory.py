"""The pipelines of the process, weakly: for listeners of all of them, health, metrics, draining and forks.

One that has a name, listeners of its own or layers that others know is here from the start, and one with a cache since
it guards a function. Any other comes with its first call, or when somebody looks at its layers: until then there is
nothing to show, to tell or to wait for.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from pyresilience.events._bus import DispatchTable, Listener, check_listener, deliver
from pyresilience.pipeline import _in_flight as in_flight
from pyresilience.pipeline._roster import Roster
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import BlockingWaiter, event_loop_is_running

if TYPE_CHECKING:
    from pyresilience.events._events import EventType
    from pyresilience.pipeline._call import Binding
    from pyresilience.pipeline._pipeline import Pipeline
    from pyresilience.runtime._protocol import Waiter

_lock = threading.RLock()  # a signal handler may ask while it is held
_pipelines: Roster[Pipeline] = Roster()
_subscribed: tuple[Listener, ...] = ()

everybody = DispatchTable()
"""Of all pipelines without listeners of their own: who wants to hear of every pipeline."""

drains: list[Waiter] = []
"""Those who wait for calls to end; the roots look at it after each call, so it is empty but for `shutdown`."""


def enter(binding: Binding) -> weakref.ref[Pipeline]:
    """Count the pipeline of a binding in, and let the binding know what its calls need of it."""
    pipeline = binding.pipeline
    add(pipeline)
    binding.dispatch = pipeline.dispatch
    binding.owner = weakref.ref(pipeline)  # the one that the inventory has
    return binding.owner


def add(pipeline: Pipeline, own: tuple[Listener, ...] = ()) -> None:
    """Count a pipeline with listeners of its `own` in, unless it is."""
    if hasattr(pipeline, "dispatch"):
        return
    with _lock:
        _pipelines.make_room()
        dispatch = everybody
        if own:
            dispatch = DispatchTable(own)
            dispatch.listen(_subscribed)
        known = [weakref.ref(pipeline)]
        if not hasattr(pipeline, "dispatch"):  # from here on nothing is called: an interrupt finds both or none
            _pipelines.refs += known
            pipeline.dispatch = dispatch


def pipelines() -> list[Pipeline]:
    """The pipelines that are alive, by name."""
    return sorted(_pipelines, key=lambda pipeline: pipeline.name or "")


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
    return len(in_flight.pipelines())


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
    known: list[in_flight.Place] = []
    drains.append(waiter)
    try:
        while in_flight.any_calls(known):
            left = sources.seconds_until(deadline)
            if not wait or left <= 0 or not waiter.park(left):
                return not in_flight.any_calls(known)
        return True
    finally:
        drains.remove(waiter)


async def shutdown_async(timeout: float = 30.0) -> bool:
    """`shutdown` for async code: waits up to `timeout` seconds without blocking the event loop."""
    _check_timeout(timeout)
    import anyio

    from pyresilience.runtime._anyio import AnyioWaiter

    waiter = AnyioWaiter()
    known: list[in_flight.Place] = []
    drains.append(waiter)
    try:
        with anyio.move_on_after(timeout):
            while in_flight.any_calls(known):
                await waiter.event.wait()
                waiter.rearm()
        return not in_flight.any_calls(known)
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
    _pipelines.reset_after_fork()
    in_flight.reset_after_fork()
    for pipeline in pipelines():
        pipeline.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
