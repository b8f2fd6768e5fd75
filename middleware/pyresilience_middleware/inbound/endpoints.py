"""`/metrics` and `/health`: inside the middleware, or as applications of their own."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyresilience import MetricsCollector
from pyresilience.gauges import check_namespace
from pyresilience.pipeline._adapt import is_coroutine_callable
from pyresilience_middleware.inbound.context import headers_of
from pyresilience_middleware.inbound.exposition import (
    OPENMETRICS,
    TEXT,
    render,
    shared_collector,
    wants_openmetrics,
)
from pyresilience_middleware.inbound.health import FAIL, PASS, Health, Readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyresilience import ResilienceRegistry
    from pyresilience_middleware.inbound.types import ASGIApp, Receive, Scope, Send

    Access = Callable[[Scope], bool]

HEALTH = "application/health+json"
METHODS = b"GET, HEAD"
logger = logging.getLogger("pyresilience")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint has to say."""

    status: int
    media_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, scope: Scope, send: Send) -> None:
        headers = [
            (b"content-type", self.media_type.encode("ascii")),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = b"" if scope.get("method") == "HEAD" else self.body
        await send({"type": "http.response.body", "body": body, "more_body": False})


NOT_FOUND = Answer(404, "text/plain; charset=utf-8", b"Not Found")
NOT_ALLOWED = Answer(405, "text/plain; charset=utf-8", b"Method Not Allowed", ((b"allow", METHODS),))


class Endpoints:
    """Answers by path, below the `root_path` of the app."""

    def __init__(self, access: Access | None = None) -> None:
        if access is not None and (not callable(access) or is_coroutine_callable(access)):
            raise TypeError(f"access must be a plain function of the scope, not {access!r}")
        self._access = access
        self._answers: dict[str, Callable[[Scope], Answer]] = {}

    def add_metrics(self, path: str, metrics: bool | MetricsCollector, namespace: str) -> None:
        _check_path("metrics_path", path)
        check_namespace("namespace", namespace)
        if isinstance(metrics, bool):
            collector = shared_collector()
        elif isinstance(metrics, MetricsCollector):
            collector = metrics
        else:
            raise TypeError(f"metrics must be True, a MetricsCollector or None, not {metrics!r}")

        def answer(scope: Scope) -> Answer:
            accepted = [value for name, value in headers_of(scope) if name.lower() == b"accept"]
            openmetrics = wants_openmetrics(b",".join(accepted).decode("latin-1"))
            body = render(collector, namespace, openmetrics=openmetrics)
            return Answer(200, OPENMETRICS if openmetrics else TEXT, body, ((b"vary", b"accept"),))

        self._add("metrics_path", path, answer)

    def add_health(self, path: str, health: Health) -> None:
        _check_path("health_path", path)

        def whole(_scope: Scope) -> Answer:
            report = health.report()
            return _health(report["status"] != FAIL, report)

        self._add("health_path", path, whole)
        self._add("health_path", f"{path}/live", lambda _: _health(True))
        self._add("health_path", f"{path}/ready", lambda _: _health(health.ready()))
        self._add("health_path", f"{path}/startup", lambda _: _health(health.readiness.started))

    def _add(self, field: str, path: str, answer: Callable[[Scope], Answer]) -> None:
        if path in self._answers:
            raise ValueError(f"{field}: {path!r} is the path of another endpoint already")
        self._answers[path] = answer

    def find(self, scope: Scope) -> Callable[[Scope], Answer] | None:
        """What answers an http request, if its path is one of ours."""
        return self._answers.get(route_path(scope) if scope.get("root_path") else scope.get("path", ""))

    async def respond(self, answer: Callable[[Scope], Answer], scope: Scope, send: Send) -> None:
        """Send what was found, to those who may see it."""
        if not self._granted(scope):
            reply = NOT_FOUND
        elif scope.get("method") not in ("GET", "HEAD"):
            reply = NOT_ALLOWED
        else:
            reply = answer(scope)
        await reply.send(scope, send)

    def _granted(self, scope: Scope) -> bool:
        if self._access is None:
            return True
        try:
            return self._access(scope) is True
        except Exception:
            logger.warning("access %r failed, the request is refused", self._access, exc_info=True)
            return False


def route_path(scope: Scope) -> str:
    """The decoded path below `root_path`; the whole path where `root_path` is not a prefix of it."""
    path: str = scope.get("path", "")
    root: str = (scope.get("root_path") or "").rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


def create_metrics_app(
    *,
    metrics: bool | MetricsCollector = True,
    namespace: str = "pyresilience",
    path: str = "/metrics",
    access: Access | None = None,
) -> ASGIApp:
    """`/metrics` as an ASGI application, for an admin port. The arguments are those of `ResilienceMiddleware`."""
    endpoints = Endpoints(access)
    endpoints.add_metrics(path, metrics, namespace)
    return _application(endpoints)


def create_health_app(
    *,
    registry: ResilienceRegistry | None = None,
    critical: Iterable[str] = (),
    details: bool = True,
    version: str | None = None,
    service_id: str | None = None,
    readiness: Readiness | None = None,
    path: str = "/health",
    access: Access | None = None,
) -> ASGIApp:
    """`/health` and what is below it as an ASGI application, for an admin port.

    The arguments are those of `ResilienceMiddleware`; give both the same `readiness`.
    """
    endpoints = Endpoints(access)
    health = Health(
        registry=registry,
        critical=critical,
        details=details,
        version=version,
        service_id=service_id,
        readiness=Readiness() if readiness is None else readiness,
    )
    endpoints.add_health(path, health)
    return _application(endpoints)


def _application(endpoints: Endpoints) -> ASGIApp:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            answer = endpoints.find(scope)
            if answer is None:
                await NOT_FOUND.send(scope, send)
            else:
                await endpoints.respond(answer, scope, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif kind == "lifespan":
            await _lifespan(receive, send)
        else:
            raise RuntimeError(f"this application does not serve scopes of type {kind!r}")

    return application


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _health(good: bool, report: dict[str, Any] | None = None) -> Answer:
    body = {"status": PASS if good else FAIL} if report is None else report
    return Answer(200 if good else 503, HEALTH, json.dumps(body).encode("ascii"))


def _check_path(field: str, path: str) -> None:
    if not isinstance(path, str):
        raise TypeError(f"{field} must be a str, not {path!r}")
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"{field} must begin with a slash and not end with one, not {path!r}")
