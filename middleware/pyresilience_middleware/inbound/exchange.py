"""One request through any pipeline, in two tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio

from pyresilience import CallRejectedError, ResilienceTimeoutError
from pyresilience_middleware.inbound.reply import WatchedReply
from pyresilience_middleware.inbound.responses import problem_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyresilience import Pipeline
    from pyresilience_middleware.inbound.types import ASGIApp, Receive, Scope, Send


class ServerErrorResponse(Exception):
    """The app answered with a status of 500 or more: the failure that the layers around it see.

    It never leaves the middleware, because the response has been sent; listeners get it as the error of events.

    Attributes:
        status: the status of the response.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the application answered with status {status}")
        self.status = status


class Exchanges:
    """Guards requests with any pipeline: each is an `Exchange`."""

    __slots__ = ("_guarded", "_pipeline")

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._guarded: Callable[[Exchange], Awaitable[Any]] = pipeline(Exchange.request)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, request_id: bytes | None) -> None:
        """Let the pipeline admit the request, and serve it. Raises what `Exchange` raises."""
        exchange = Exchange(self._guarded, app, ExchangedReply(send, request_id))
        await exchange.run(scope, receive)
        await exchange.conclude(scope, receive, self._pipeline)


class ExchangedReply(WatchedReply):
    """The reply to one request, which tells its exchange when it is complete."""

    __slots__ = ("exchange",)

    def __init__(self, send: Send, request_id: bytes | None) -> None:
        super().__init__(send, request_id)
        self.exchange: Exchange | None = None

    def on_complete(self) -> None:
        if self.exchange is not None:
            self.exchange.complete()


class Exchange:
    """One request through a pipeline, up to the last message of its response.

    The app runs in the task of the request, as it would without us. The pipeline runs beside it in a task of its
    own: what it guards is the wait for the response to be complete. So permits come back, verdicts are recorded and
    durations end with the last message, whatever the app does after that, and every layer can be used as it is.

    The deadlines of the pipeline hold for the app too, and `anyio.current_effective_deadline()` shows them, until
    the response is complete. When the pipeline gives up, the app is cancelled, and no layer goes on before the app
    has come to its end. When the request is cancelled, so is the pipeline, which is neutral.
    """

    __slots__ = (
        "_admitted",
        "_answer",
        "_app",
        "_app_error",
        "_app_ran",
        "_guarded",
        "_over",
        "_refusal",
        "_reply",
        "_scope",
        "_settled",
        "_unwound",
    )

    def __init__(self, guarded: Callable[[Exchange], Awaitable[Any]], app: ASGIApp, reply: ExchangedReply) -> None:
        self._guarded = guarded
        self._app = app
        self._reply = reply
        self._admitted = anyio.Event()  # the app may run, or never will
        self._over = anyio.Event()  # the response is complete, or the app has ended by itself
        self._unwound = anyio.Event()  # as `_over`, or the app has been cancelled and has come to its end
        self._settled = anyio.Event()  # the pipeline has ended
        self._scope = anyio.CancelScope()
        self._app_ran = False
        self._app_error: Exception | None = None
        self._answer: Any = None
        self._refusal: Exception | None = None

    async def run(self, scope: Scope, receive: Receive) -> None:
        """Let the pipeline admit the request, and serve it.

        Raises:
            BaseException: what the app raised that is not an `Exception`; other errors of it are kept.
        """
        fatal: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._guard)
            try:
                await self._admitted.wait()
                if self._app_ran:
                    await self._serve(scope, receive)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:
                fatal = error
                tasks.cancel_scope.cancel()
            finally:
                self._unwound.set()
        if fatal is not None:
            raise fatal

    async def request(self) -> None:
        """What the pipeline guards: wait until the response is complete or the app has ended without one."""
        if self._app_ran:
            raise RuntimeError("a layer called the application twice; a request can be served only once")
        self._app_ran = True
        self._scope.deadline = anyio.current_effective_deadline()
        self._admitted.set()
        try:
            await self._over.wait()
        finally:
            if not self._over.is_set():
                self._scope.cancel()
                with anyio.CancelScope(shield=True):
                    await self._unwound.wait()
            if self._app_error is not None and not self._reply.complete:
                raise self._app_error
        if self._reply.status >= 500:
            raise ServerErrorResponse(self._reply.status)

    async def conclude(self, scope: Scope, receive: Receive, pipeline: Pipeline) -> None:
        """The app and the pipeline have ended: answer if nobody did, and raise what is left to be raised.

        Raises:
            ResilienceTimeoutError: a deadline of the pipeline has passed in the middle of a response.
            Exception: whatever the app raised.
        """
        refusal, reply = self._refusal, self._reply
        error = refusal
        if (
            refusal is None
            or isinstance(refusal, ServerErrorResponse)
            or (isinstance(refusal, ResilienceTimeoutError) and reply.complete)
        ):
            error = self._app_error
        try:
            if refusal is None and self._answer is not None and not reply.started:
                await _application(self._answer)(scope, receive, reply.send)
            elif isinstance(error, (CallRejectedError, ResilienceTimeoutError)) and not reply.started:
                own = error is not self._app_error
                await problem_for(error, pipeline if own else None)(scope, receive, reply.send)
            elif error is not None:
                raise error
        finally:
            self._app_error = self._refusal = reply.exchange = None  # all of them lead back to this object
            del error, refusal

    async def _serve(self, scope: Scope, receive: Receive) -> None:
        """Run the app; an error of it is kept for the pipeline to judge. Then wait for the pipeline."""
        self._reply.exchange = self
        try:
            with self._scope:
                await self._app(scope, receive, self._reply.send)
        except Exception as error:
            self._app_error = error
        if not self._scope.cancelled_caught:  # else the pipeline is being cancelled too: by itself or by its deadline
            self._over.set()
        self._unwound.set()
        with anyio.CancelScope(shield=True):
            await self._settled.wait()

    async def _guard(self) -> None:
        try:
            self._answer = await self._guarded(self)
        except Exception as error:
            self._refusal = error
        finally:
            self._settled.set()
            self._admitted.set()

    def complete(self) -> None:
        """The last message of the response has been sent."""
        self._scope.deadline = math.inf
        self._over.set()
        self._unwound.set()


def _application(answer: Any) -> ASGIApp:
    if callable(answer):
        application: Any = answer
        return application  # type: ignore[no-any-return]
    raise TypeError(f"a fallback of requests must answer with an ASGI application, not {answer!r}")
