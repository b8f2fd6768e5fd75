"""`ResilienceMiddleware`: request context, endpoints and an optional pipeline around an ASGI app."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pyresilience import (
    Cache,
    CallRejectedError,
    Fallback,
    Pipeline,
    ResilienceTimeoutError,
    Retry,
    resilience_context,
)
from pyresilience_middleware.inbound.admission import Admissions
from pyresilience_middleware.inbound.context import request_context, valid_id
from pyresilience_middleware.inbound.endpoints import Endpoints
from pyresilience_middleware.inbound.exchange import Exchanges, ServerErrorResponse
from pyresilience_middleware.inbound.health import Health, Readiness
from pyresilience_middleware.inbound.reply import Reply
from pyresilience_middleware.inbound.responses import problem_for
from pyresilience_middleware.inbound.suspension import can_suspend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from pyresilience import MetricsCollector, ResilienceRegistry
    from pyresilience_middleware.inbound.endpoints import Access
    from pyresilience_middleware.inbound.types import ASGIApp, Receive, Scope, Send

    Guard = Callable[[ASGIApp, Scope, Receive, Send, bytes | None], Awaitable[None]]

STATE_KEY = "resilience_context"
logger = logging.getLogger("pyresilience")


class ResilienceMiddleware:
    """Sets `resilience_context` for each request, serves `/metrics` and `/health`, and guards the app.

    ```python
    app.add_middleware(
        ResilienceMiddleware,
        pipeline=Pipeline(RateLimiterConfig(max_calls=100), TimeoutConfig(seconds=10), name="inbound"),
        critical=["orders-db"],
    )
    ```

    Every http and websocket request gets a context of its own, a dict that is also found in
    `scope["state"]["resilience_context"]` (in Starlette `request.state.resilience_context`), where handlers of
    unexpected errors still see it. Its `request_id` comes back to the client as `x-request-id`.

    The endpoints stand below the `root_path` of the app and are answered before anything else: `/metrics`
    (OpenMetrics when asked for), `/health` (503 only when a critical circuit refuses calls), `/health/live` (always
    200), `/health/ready` and `/health/startup`.

    A pipeline guards each request until the last message of its response, and each websocket until its handshake is
    answered. Its refusals and timeouts are sent as `application/problem+json`: 429, 503, 504, with `Retry-After`
    where that helps. The same holds for those of calls inside the app, when they get here. A timeout after the
    response has started cancels the app and is raised, so that the connection breaks. A response with a status of
    500 or more counts as a failure (`ServerErrorResponse`). A fallback answers with an ASGI application, such as a
    response of Starlette's. Other errors of the app are re-raised as they are.

    Args:
        app: the next ASGI application.
        registry: whose functions `/health` shows; None: all named pipelines of the process.
        pipeline: guards the app. Without retries and caches: a request can be served only once.
        context: makes the context from a scope; None: `request_context`.
        metrics: what `/metrics` counts. True: the events of all pipelines of the process, from now on; a
            `MetricsCollector`: whatever it hears; None: there is no `/metrics`.
        namespace: what the names of all metrics begin with.
        health_path, metrics_path: where the endpoints are; None as `health_path`: there is no `/health`.
        critical: names of functions without which this process is of no use. While the circuit of one refuses calls,
            `/health` and `/health/ready` answer 503.
        details: False leaves only the status in the body of `/health`.
        access: which requests may see the endpoints: those for whose scope it returns True. Others get 404.
        version, service_id: shown by `/health`.
        trust_trace: False ignores the trace ids that clients send.
        readiness: to be shared with an admin port; None makes one.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: ResilienceRegistry | None = None,
        pipeline: Pipeline | None = None,
        context: Callable[[Scope], Mapping[str, Any]] | None = None,
        metrics: bool | MetricsCollector | None = True,
        namespace: str = "pyresilience",
        health_path: str | None = "/health",
        metrics_path: str = "/metrics",
        critical: Iterable[str] = (),
        details: bool = True,
        access: Access | None = None,
        version: str | None = None,
        service_id: str | None = None,
        trust_trace: bool = True,
        readiness: Readiness | None = None,
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be an ASGI application, not {app!r}")
        if context is not None and not callable(context):
            raise TypeError(f"context must be a function of the scope or None, not {context!r}")
        if not isinstance(trust_trace, bool):
            raise TypeError(f"trust_trace must be True or False, not {trust_trace!r}")
        if context is not None and not trust_trace:
            raise ValueError("trust_trace=False belongs to the built-in context; call request_context(...) in your own")
        self.app = app
        self.pipeline = pipeline
        self.readiness = Readiness() if readiness is None else readiness
        self._guard: Guard | None = None if pipeline is None else _guarding(_checked(pipeline))
        self._make_context = context
        self._trust_trace = trust_trace
        self._endpoints = Endpoints(access)
        if metrics is not None and metrics is not False:
            self._endpoints.add_metrics(metrics_path, metrics, namespace)
        health = Health(
            registry=registry,
            critical=critical,
            details=details,
            version=version,
            service_id=service_id,
            readiness=self.readiness,
        )
        if health_path is not None:
            self._endpoints.add_health(health_path, health)

    def drain(self) -> None:
        """Answer `/health/ready` with 503 from now on. Requests are served as before."""
        self.readiness.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            answer = self._endpoints.find(scope)
            if answer is not None:
                await self._endpoints.respond(answer, scope, send)
                return
        elif kind == "lifespan":
            await self.readiness.watch(self.app, scope, receive, send)
            return
        elif kind != "websocket":
            await self.app(scope, receive, send)
            return
        make_context = self._make_context
        if make_context is None:
            context = request_context(scope, trust_trace=self._trust_trace)
            request_id = context["request_id"].encode()
        else:
            context = self._own_context(make_context, scope)
            request_id = valid_id(context.get("request_id"))
        state: dict[str, Any] = scope.setdefault("state", {})
        outer = state.get(STATE_KEY)
        state[STATE_KEY] = context
        token = resilience_context.set(context)
        reply: Reply | None = None
        app = self.app
        guard = self._guard
        try:
            if guard is None:
                reply = Reply(send, request_id)
                await app(scope, receive, reply.send)
            else:
                await guard(app, scope, receive, send, request_id)
        except (CallRejectedError, ResilienceTimeoutError) as error:
            if reply is None or reply.started:
                raise
            await problem_for(error)(scope, receive, reply.send)
        finally:
            resilience_context.reset(token)
            if outer is not None:
                state[STATE_KEY] = outer

    def _own_context(self, make_context: Callable[[Scope], Mapping[str, Any]], scope: Scope) -> dict[str, Any]:
        try:
            return dict(make_context(scope))
        except Exception:
            logger.warning("context %r failed, the built-in one is used", make_context, exc_info=True)
            return request_context(scope, trust_trace=self._trust_trace)


def _guarding(pipeline: Pipeline) -> Guard:
    """Serves requests through a pipeline: in one task where its layers allow that."""
    return Admissions(pipeline).serve if can_suspend(pipeline) else Exchanges(pipeline).serve


def _checked(pipeline: Pipeline) -> Pipeline:
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"pipeline must be a Pipeline, not {pipeline!r}")
    for layer in pipeline.layers:
        if isinstance(layer, (Retry, Cache)):
            raise TypeError(f"pipeline must not contain {layer!r}: a request can be served only once, by the app")
        if isinstance(layer, Fallback) and issubclass(ServerErrorResponse, tuple(layer.config.fallback_on)):
            raise TypeError(
                f"pipeline contains {layer!r}, which would also answer after the app has sent an error response; name "
                "what it answers for, such as fallback_on=(CallRejectedError, ResilienceTimeoutError)"
            )
    return pipeline
