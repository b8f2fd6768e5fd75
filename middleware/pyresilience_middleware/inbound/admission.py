"""One request through a pipeline, in one task: the pipeline is suspended where it has admitted the request."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio

from pyresilience import CallRejectedError, Pipeline, ResilienceTimeoutError
from pyresilience_middleware.inbound.exchange import ServerErrorResponse
from pyresilience_middleware.inbound.reply import Reply, WatchedReply
from pyresilience_middleware.inbound.responses import problem_for
from pyresilience_middleware.inbound.suspension import ADMITTED, Deadline, is_limit, suspendable, until_admitted

if TYPE_CHECKING:
    from contextvars import Context

    from pyresilience_middleware.inbound.types import ASGIApp, Receive, Scope, Send


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
        self._limited = any(is_limit(layer) for layer in pipeline.layers)
        self._admit = suspendable(pipeline)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, request_id: bytes | None) -> None:
        """Let the pipeline admit the request, and serve it.

        Raises:
            ResilienceTimeoutError: a deadline of the pipeline has passed in the middle of a response.
            BaseException: whatever the app raised.
        """
        deadline = Deadline() if self._limited else None
        suspended = self._admit(deadline)
        try:
            waits_for = suspended.send(None)
            waits = waits_for is not ADMITTED
            if waits:
                await until_admitted(suspended, waits_for)
        except BaseException as error:
            if deadline is not None:
                deadline.call = None
            if not isinstance(error, (CallRejectedError, ResilienceTimeoutError)):
                raise
            await problem_for(error, self._pipeline)(scope, receive, Reply(send, request_id).send)
            return
        reply = AdmittedReply(send, request_id)
        reply.suspended = suspended
        reply.context = copy_context()
        reply.deadline = deadline
        try:
            if deadline is None:
                await app(scope, receive, reply.send)
            else:
                cancelling = deadline.cancelling(waited=waits)
                try:
                    with cancelling:
                        await app(scope, receive, reply.send)
                finally:
                    deadline.lift()
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
        suspended: the coroutine of the pipeline; None once it has ended.
        context: the variables that it was admitted with, and that its listeners are to see at its end.
        deadline: what the app has to keep to, as long as the response is not complete.
    """

    __slots__ = ("context", "deadline", "suspended")

    suspended: Any
    context: Context
    deadline: Deadline | None

    def on_complete(self) -> None:
        deadline = self.deadline
        if deadline is None and self.status < 500:
            self.settle(None)
        elif self.suspended is not None:
            self.settle(self.failure())  # never in a variable here: its traceback leads to this frame
            if deadline is not None:
                deadline.lift()

    def failure(self) -> Exception | None:
        """Why the request has failed although the app has raised nothing. Announces a timeout."""
        deadline = self.deadline
        if deadline is not None and deadline.call is not None:
            late = self.status < 500 and deadline.clock() >= deadline.expires
            if late or deadline.scope.cancel_called:
                return deadline.limit.expired(deadline.call)
        return ServerErrorResponse(self.status) if self.status >= 500 else None

    def settle(self, error: BaseException | None) -> None:
        """Resume the pipeline for its end, in `error` if given, which is not raised. Later calls change nothing."""
        suspended = self.suspended
        if suspended is None:
            return
        self.suspended = None
        if self.deadline is not None:
            self.deadline.call = None
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
