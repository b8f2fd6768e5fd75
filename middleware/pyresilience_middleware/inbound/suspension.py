"""A pipeline that can be suspended where it has admitted a request, and resumed for its end."""

from __future__ import annotations

from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience import AsyncRateLimiter, Bulkhead, CircuitBreaker, Pipeline, RateLimiter, Timeout
from pyresilience.pipeline._async_root import async_root
from pyresilience.pipeline._call import Binding
from pyresilience.pipeline._compose import fold
from pyresilience.policies.timeout import TotalTimeout
from pyresilience.runtime._anyio import asyncio_loop, backend_here
from pyresilience.runtime._deadlines import DeadlineQueue, queue_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from pyresilience import Call, CallNext, Layer

R = TypeVar("R")

ADMITTED = object()
"""What a pipeline yields once every layer has let the request through. No event loop ever sees it."""

_KNOWN = (RateLimiter, AsyncRateLimiter, Bulkhead, CircuitBreaker, Timeout, TotalTimeout)


def can_suspend(pipeline: Pipeline) -> bool:
    """Whether every layer may be suspended while the app runs: it opens no scope, and never waits on its way out.

    All are told of the same end; a circuit breaker inside a timeout would have to see cancellation where the others
    see the timeout.
    """
    limited = False
    for layer in pipeline.layers:
        if type(layer) not in _KNOWN or (limited and isinstance(layer, CircuitBreaker)):
            return False
        limited = limited or is_limit(layer)
    return True


class Deadline:
    """The earliest deadline of a request.

    Attributes:
        call, limit: of which call and which layer it is; the call, which leads back here, is let go at its end.
        expires: when it is, in seconds of `clock`.
        clock: the time of the event loop.
        scope: what cancels the app at that time.
    """

    __slots__ = ("_loop", "_queue", "call", "clock", "expires", "limit", "scope")

    limit: Timeout | TotalTimeout
    clock: Callable[[], float]
    scope: Any  # a scope of anyio

    def __init__(self) -> None:
        self._loop = asyncio_loop()
        self._queue: DeadlineQueue | None = None
        self.call: Call[Any] | None = None
        self.expires = inf

    def keep(self, limit: Timeout | TotalTimeout, call: Call[Any]) -> None:
        """A layer sets a limit from now on; the earliest counts."""
        loop = self._loop
        if loop is None:
            queue = None
            clock = backend_here()[0].current_time
        else:
            queue = limit.queues.get(loop) or queue_for(limit, loop)
            clock = queue.time
        expires = clock() + limit.seconds
        if expires < self.expires:
            self._queue = queue
            self.clock = clock
            self.expires = expires
            self.limit = limit
            self.call = call

    def cancelling(self, *, waited: bool) -> Any:
        """The scope for the app. It has a timer of its own if the request `waited`: then it is not the last in line."""
        queue = self._queue
        if queue is None or waited:
            self._queue = None
            self.scope = backend_here()[1](deadline=self.expires)
        else:
            scope = self.scope = queue.scope()
            queue.open[scope] = scope.expires = self.expires
            if not queue.armed:
                queue.arm(self.expires)
        return self.scope

    def lift(self) -> None:
        """It is kept: nothing is cancelled any more."""
        queue = self._queue
        if queue is not None:
            queue.open.pop(self.scope, None)
            self.scope.expires = inf
        elif not self.scope.cancel_called:
            self.scope.deadline = inf


@coroutine
def request(call: Call[Any]) -> Generator[object, None, None]:
    """What the pipeline guards, and its innermost step."""
    call.ran = call.attempt
    call.ending = None
    yield ADMITTED


@coroutine
def until_admitted(suspended: Any, waits_for: Any) -> Generator[Any, Any, None]:
    """Await a coroutine, which waits for something at the moment, as far as `ADMITTED`, and leave it there."""
    while waits_for is not ADMITTED:
        try:
            value = yield waits_for
        except BaseException as error:
            waits_for = suspended.throw(error)
        else:
            waits_for = suspended.send(value)


@coroutine
def _on_from_admitted(suspended: Any) -> Generator[object, None, Any]:
    """Await the rest of a coroutine that was left at `ADMITTED`."""
    try:
        yield ADMITTED
    except BaseException as error:
        return suspended.throw(error)
    try:
        suspended.send(None)
    except StopIteration as stop:
        return stop.value


class _Limit:
    """In place of a timeout: notes when the app will have to be over. The timeout itself bounds what waits inside."""

    __slots__ = ("_limit", "_waits")

    def __init__(self, limit: Timeout | TotalTimeout, *, waits: bool) -> None:
        self._limit = limit
        self._waits = waits

    def __call__(self, call: Call[R], call_next: CallNext[R]) -> Awaitable[R]:
        call.args[0].keep(self._limit, call)
        return self._bounded(call, call_next) if self._waits else call_next(call)

    async def _bounded(self, call: Call[R], call_next: CallNext[R]) -> R:
        inner: Any = call_next(call)

        async def admission(_: Call[Any]) -> Any:
            await until_admitted(inner, inner.send(None))

        try:
            await self._limit(call, admission)
        except BaseException:
            call.ran = 0  # what was admitted too late has not begun
            inner.close()
            raise
        return await _on_from_admitted(inner)  # type: ignore[no-any-return]


def suspendable(pipeline: Pipeline) -> Callable[[Deadline | None], Any]:
    """`request` guarded by the pipeline, but with a `_Limit` in place of each timeout."""
    steps: list[Layer] = []
    waits = False
    for layer in reversed(pipeline.layers):
        if isinstance(layer, (Timeout, TotalTimeout)):
            if is_limit(layer):
                steps.append(_Limit(layer, waits=waits))
        else:
            steps.append(layer)
            waits = waits or _may_wait(layer)
    entry = fold(tuple(reversed(steps)), request, total=pipeline.total)
    return async_root(Binding(pipeline, request, pipeline.name or "request", None, entry))


def is_limit(layer: Layer) -> bool:
    return isinstance(layer, (Timeout, TotalTimeout)) and layer.seconds != inf


def _may_wait(layer: Layer) -> bool:
    return isinstance(layer, (RateLimiter, AsyncRateLimiter, Bulkhead)) and layer.config.max_wait > 0
