"""One request through a pipeline, in one task: the pipeline is suspended where it has admitted the request."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from pyresilience import (
    AsyncRateLimiter,
    Bulkhead,
    CallRejectedError,
    CircuitBreaker,
    Pipeline,
    RateLimiter,
    ResilienceTimeoutError,
    Timeout,
)
from pyresilience.policies.timeout import TotalTimeout
from pyresilience_middleware.inbound.exchange import ServerErrorResponse
from pyresilience_middleware.inbound.reply import WatchedReply
from pyresilience_middleware.inbound.responses import problem_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextvars import Context

    from pyresilience import Call, CallNext, Layer
    from pyresilience_middleware.inbound.types import ASGIApp, Receive, Scope, Send

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
        limited = limited or _is_limit(layer)
    return True


class Admissions:
    """Guards requests with a pipeline whose coroutine is driven by hand.

    It is run until every layer has admitted the request, and suspended there, inside what it guards. Then the app runs
    in the same task, beside the pipeline and not within it. The last message of the response resumes the pipeline and
    so ends the call, from whichever task it is sent; without one, the end of the app does, with its error if it
    has one. Then permits come back, verdicts are recorded and the duration ends.

    Timeouts become a scope around the app, until the response is complete. When one has passed, the app is
    cancelled, and the call ends when the app has come to its end. When the request is cancelled, so is the app.
    """

    __slots__ = ("_admit", "_limited", "_pipeline")

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._limited = any(_is_limit(layer) for layer in pipeline.layers)
        self._admit = _with_limits(pipeline) if self._limited else pipeline(request)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, request_id: bytes | None) -> None:
        """Let the pipeline admit the request, and serve it.

        Raises:
            ResilienceTimeoutError: a deadline of the pipeline has passed in the middle of a response.
            BaseException: whatever the app raised.
        """
        reply = AdmittedReply(send, request_id)
        suspended = self._admit(reply)
        try:
            waits_for = suspended.send(None)
            if waits_for is not ADMITTED:
                await until_admitted(suspended, waits_for)
        except (CallRejectedError, ResilienceTimeoutError) as error:
            await problem_for(error, self._pipeline)(scope, receive, reply.send)
            return
        reply.suspended = suspended
        reply.context = copy_context()
        try:
            if self._limited:
                with reply.cancelling():
                    await app(scope, receive, reply.send)
            else:
                await app(scope, receive, reply.send)
        except BaseException as error:
            reply.settle(error)
            if reply.started or not isinstance(error, (CallRejectedError, ResilienceTimeoutError)):
                raise
            await problem_for(error)(scope, receive, reply.send)
            return
        if not reply.complete:
            await self._conclude(reply, scope, receive)

    async def _conclude(self, reply: AdmittedReply, scope: Scope, receive: Receive) -> None:
        """The app has ended before the response was complete: by itself, by a deadline, or silently when cancelled.

        Raises:
            BaseException: the cancellation of the request, which the pipeline is told of as well.
        """
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException as cancelled:
            reply.settle(cancelled)
            raise
        error = asyncio.CancelledError() if _cancelled() else reply.failure()
        try:
            reply.settle(error)
            if not isinstance(error, ResilienceTimeoutError):
                return
            if reply.started:
                raise error
            await problem_for(error, self._pipeline)(scope, receive, reply.send)
        finally:
            del error  # its traceback leads to this frame


class AdmittedReply(WatchedReply):
    """The reply to one request, and the pipeline that waits for its end.

    Attributes:
        suspended: the coroutine of the pipeline.
        context: the variables that it was admitted with, and that its listeners are to see at its end.
        call, limit, expires: the earliest deadline of the pipeline, if there is one: of which call and which layer, and
            when, in seconds of the event loop's clock.
        scope: what cancels the app at that time.
    """

    suspended: Any = None
    context: Context
    call: Call[Any] | None = None
    limit: Timeout | TotalTimeout | None = None
    expires: float = inf
    scope: anyio.CancelScope | None = None

    def cancelling(self) -> anyio.CancelScope:
        """A scope for the app that ends at the earliest deadline, as long as the response is not complete."""
        self.scope = anyio.CancelScope(deadline=self.expires)
        return self.scope

    def on_complete(self) -> None:
        if self.limit is None and self.status < 500:
            self.settle(None)
        elif self.suspended is not None:
            self.settle(self.failure())  # never in a variable here: its traceback leads to this frame
            if self.scope is not None and not self.scope.cancel_called:
                self.scope.deadline = inf

    def failure(self) -> Exception | None:
        """Why the request has failed although the app has raised nothing. Announces a timeout."""
        limit, call = self.limit, self.call
        if limit is None or call is None:
            return ServerErrorResponse(self.status) if self.status >= 500 else None
        if self.scope is None or not self.scope.cancel_called:
            if self.status >= 500:
                return ServerErrorResponse(self.status)
            if anyio.current_time() < self.expires:
                return None
        return limit.expired(call)

    def settle(self, error: BaseException | None) -> None:
        """Resume the pipeline for its end, in `error` if given, which is not raised. Later calls change nothing."""
        suspended = self.suspended
        if suspended is None:
            return
        self.suspended = self.call = None
        try:
            if error is None:
                self.context.run(suspended.send, None)
            else:
                traceback = error.__traceback__
                try:
                    self.context.run(suspended.throw, error)
                finally:
                    error.__traceback__ = traceback  # the pipeline was told of it, and is not where it came from
                    del traceback
        except StopIteration:
            pass
        except BaseException as raised:
            if raised is not error:
                raise
        finally:
            del error  # its traceback leads to this frame


def _cancelled() -> bool:
    """Whether an asyncio task was cancelled, even if the cancellation was caught since."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # trio
        return False
    return task is not None and task.cancelling() > 0


async def request(reply: AdmittedReply) -> None:
    """What the pipeline guards."""
    await _admitted()


@coroutine
def _admitted() -> Generator[object, None, None]:
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
        limit, reply = self._limit, call.args[0]
        expires = anyio.current_time() + limit.seconds
        if expires < reply.expires:
            reply.expires = expires
            reply.limit = limit
            reply.call = call
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


def _with_limits(pipeline: Pipeline) -> Callable[[AdmittedReply], Any]:
    """`pipeline(request)`, but with a `_Limit` in place of each timeout."""
    from pyresilience.pipeline._async_root import async_root
    from pyresilience.pipeline._call import Binding
    from pyresilience.pipeline._compose import fold
    from pyresilience.runtime._anyio import invoke_async

    steps: list[Layer] = []
    waits = False
    for layer in reversed(pipeline.layers):
        if isinstance(layer, (Timeout, TotalTimeout)):
            if _is_limit(layer):
                steps.append(_Limit(layer, waits=waits))
        else:
            steps.append(layer)
            waits = waits or _may_wait(layer)
    entry = fold(tuple(reversed(steps)), invoke_async)
    return async_root(Binding(pipeline, request, pipeline.name or "request", entry))


def _is_limit(layer: Layer) -> bool:
    return isinstance(layer, (Timeout, TotalTimeout)) and layer.seconds != inf


def _may_wait(layer: Layer) -> bool:
    return isinstance(layer, (RateLimiter, AsyncRateLimiter, Bulkhead)) and layer.config.max_wait > 0
