"""The async side: anyio on asyncio and trio.

anyio is imported where a call first needs it: a program that guards functions at import time does not wait for it, and
one of plain asyncio that only retries never loads it.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop, current_task  # without an exception where no loop runs
from math import inf
from sys import modules
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience._promises import declares
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._deadlines import queue_for
from pyresilience.runtime._threads import Job, JobState, PoolExhausted, shared_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio
    from anyio.abc import AsyncBackend

    from pyresilience.pipeline._call import Call, Layer, LayerFunction
    from pyresilience.runtime._protocol import Limit, Waiter

R = TypeVar("R")

TOTAL_TOLERANCE = 1_000_000
"""A total timeout entered at most this many nanoseconds after its call may share the queue of constant durations."""


class AnyioWaiter:
    """A task that waits in its own event loop."""

    __slots__ = ("event", "home")

    def __init__(self) -> None:
        import anyio

        self.event = anyio.Event()
        self.home: Any = anyio.lowlevel.current_token().native_token

    def wake(self) -> None:
        home = self.home
        if not isinstance(home, asyncio.AbstractEventLoop):
            home.run_sync_soon(self.event.set)
        elif _get_running_loop() is home:
            self.event.set()
        else:
            home.call_soon_threadsafe(self.event.set)

    def rearm(self) -> None:
        """Make a waiter that was woken ready to wait again; only its own task may do so."""
        import anyio

        self.event = anyio.Event()


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The loop of the running asyncio task; None on trio, also when its guest mode runs on an asyncio loop."""
    loop = _get_running_loop()
    return None if loop is None or current_task(loop) is None else loop


def _on_asyncio() -> bool:
    """Whether the running task is one of asyncio, without asking for its loop where trio was never imported."""
    return "trio" not in modules or asyncio_loop() is not None


_backends: dict[bool, tuple[type[AsyncBackend], type[anyio.CancelScope]]] = {}
"""Of asyncio (True) and trio, what anyio itself would look up each time: its backend and the class of its scopes."""


def _backend(on_asyncio: bool) -> tuple[type[AsyncBackend], type[anyio.CancelScope]]:
    found = _backends.get(on_asyncio)
    if found is None:
        import anyio

        token = anyio.lowlevel.current_token()
        found = token.backend_class, type(anyio.CancelScope())
        if isinstance(token.native_token, asyncio.AbstractEventLoop) is on_asyncio:  # or else outside any task
            _backends[on_asyncio] = found
    return found


def backend_here() -> tuple[type[AsyncBackend], type[anyio.CancelScope]]:
    """The backend of anyio in this task, and the class of its scopes."""
    return _backend(_on_asyncio())


def _is_late(call: Call[Any], limit: Limit) -> bool:
    """Whether a total timeout was entered so long after its call that its deadline would not come in order."""
    return call.deadline - sources.now() < limit.nanoseconds - TOTAL_TOLERANCE


async def bounded(limit: Limit, call: Call[Any], call_next: Callable[[Call[Any]], Awaitable[R]]) -> R:
    """Run the rest of the pipeline with a deadline."""
    loop = _get_running_loop()
    if loop is None or ("trio" in modules and current_task(loop) is None):  # as in `_on_asyncio`
        return await _bounded_alone(None, limit, call, call_next)
    if call.deadline is not inf and limit.total and _is_late(call, limit):
        return await _bounded_alone(loop, limit, call, call_next)
    try:
        queue = limit.queues[loop]
    except KeyError:
        queue = queue_for(limit, loop)
    time = queue.time
    make = queue.scope
    waiting = queue.open
    outer = call.scope
    scope = make()
    scope.__enter__()  # by hand, as `with` would: that calls both ends through C, a twentieth of a timeout
    try:
        scope.outer = outer
        try:
            call.scope = scope
            waiting[scope] = scope.expires = expires = time() + limit.seconds
            if not queue.armed:
                queue.arm(expires)
            result = await call_next(call)
        finally:
            call.scope = outer
            try:
                del waiting[scope]
            except KeyError:  # it has expired
                pass
        in_time = time() < expires
    except BaseException as error:
        if not scope.__exit__(error.__class__, error, error.__traceback__):
            raise
    else:
        scope.__exit__(None, None, None)
        if in_time:
            return result
    raise limit.expired(call)


async def _bounded_alone(
    loop: asyncio.AbstractEventLoop | None,
    limit: Limit,
    call: Call[Any],
    call_next: Callable[[Call[Any]], Awaitable[R]],
) -> R:
    """With a timer of its own: on trio, and where the duration differs from call to call."""
    backend, scope_class = _backend(loop is not None)
    left = sources.seconds_until(call.deadline) if limit.total else limit.seconds
    if left > 0:
        expires = backend.current_time() + left
        outer = call.scope
        with scope_class(deadline=expires) as scope:
            call.scope = _Linked(scope, outer)
            try:
                result = await call_next(call)
            finally:
                call.scope = outer
            if backend.current_time() < expires:
                return result
    raise limit.expired(call)


def direct(func: LayerFunction, layer: Layer) -> LayerFunction:
    """For the async root: a layer that does no more than ask for a deadline is left out on the way to it."""
    return bounded if declares(layer, "only_bounds") and getattr(layer, "only_bounds") else func  # noqa: B009


class AnyioRuntime:
    """Suspends the task. Deadlines are anyio scopes."""

    def waiter(self) -> Waiter:
        return AnyioWaiter()

    async def wait(self, waiter: Waiter, seconds: float, deadline: float) -> bool:
        assert isinstance(waiter, AnyioWaiter)
        event = waiter.event
        if seconds == inf:
            await event.wait()
        else:
            import anyio

            with anyio.move_on_after(seconds):
                await event.wait()
        if event.is_set():
            waiter.rearm()
            return True
        return False

    def sleep(self, seconds: float, deadline: float) -> Awaitable[None]:
        if _on_asyncio():
            return asyncio.sleep(seconds)  # what anyio does there, without three coroutines in between
        import anyio

        return anyio.sleep(seconds)

    def remaining(self, deadline: float) -> float:
        left = inf if deadline == inf else sources.seconds_until(deadline)
        on_asyncio = _on_asyncio()
        if on_asyncio and "anyio" not in modules:
            return left  # then nobody has opened a scope of it
        backend, _ = _backend(on_asyncio)
        around = backend.current_effective_deadline()
        return left if around == inf else min(left, around - backend.current_time())

    def stalls_event_loop(self) -> bool:
        return False

    bounded = staticmethod(bounded)


class _Linked:
    """Gives a scope that is not ours the two members that `Call.deadline_passed` reads."""

    __slots__ = ("outer", "scope")

    def __init__(self, scope: anyio.CancelScope, outer: Any) -> None:
        self.scope = scope
        self.outer = outer

    @property
    def cancel_called(self) -> bool:
        return self.scope.cancel_called


def invoke_async(call: Call[Any]) -> Awaitable[Any]:
    """The innermost step around an async function. A plain function: its coroutine is the function's own."""
    call.ran = call.attempt
    call.ending = None
    kwargs = call.kwargs
    fn = call.binding.fn
    return fn(*call.args, **kwargs) if kwargs else fn(*call.args)  # type: ignore[no-any-return]


async def invoke_in_thread(call: Call[Any]) -> Any:
    """The innermost step around a sync function that is awaited: one of our worker threads runs it.

    Cancellation and expiry abandon the thread; it keeps the permits of the call until the function ends.
    """
    import anyio

    pool = call.binding.pipeline.pool or shared_pool
    waiter = AnyioWaiter()
    left = call.runtime.remaining(call.deadline)
    deadline = inf if left == inf else sources.now() + left * sources.NANOSECONDS
    job = Job(call.binding.fn, call.args, call.kwargs, waiter.wake, deadline)
    earlier = call.stragglers
    try:
        await anyio.lowlevel.checkpoint_if_cancelled()  # what has begun in a thread cannot be cancelled any more
        call.stragglers = (*earlier, job.hold)  # before the hand-over: an interrupt leaves the permits to the worker
        try:
            pool.submit(job)
        except PoolExhausted as full:
            raise call.pool_exhausted(full) from None
        await waiter.event.wait()
    finally:
        try:
            pool.leave(job)
        finally:
            state = job.state
            if state is JobState.ENDED or state is JobState.CALLED_OFF:
                call.stragglers = earlier
            if state is not JobState.CALLED_OFF:
                call.ran = call.attempt
                call.ending = None
    return job.outcome()
