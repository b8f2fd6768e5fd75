"""ASGI middleware: one request, in process, around an application that answers with two messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from math import inf
from typing import Any

from benchmarks.meters import AsyncCalls
from benchmarks.model import Bar, Case, Kind, Variant, floor, library, ours, peer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY: Message = {"type": "http.response.body", "body": b"ok"}


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    # Fresh messages, as frameworks make them: middleware may change their headers.
    await send({**START, "headers": [(b"content-length", b"2")]})
    await send(dict(BODY))


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def requests(app: App, framework: Any = None) -> Callable[[int], Awaitable[int]]:
    """A function that sends one request and returns 1 if it was answered with 200.

    `framework` stands in the scope as its application: some middleware looks up routes and settings in it.
    """
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    template = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/orders",
        "raw_path": b"/orders",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"example.org"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "app": framework,
    }

    async def request(value: int) -> int:
        await app(template.copy(), receive, send)
        status = statuses.pop()
        return value if status == 200 else status

    return request


class Nothing:
    """The least that a middleware can do."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def framework() -> Any:
    """A Starlette application whose routes know the path that is asked for."""

    async def orders(request: Any) -> Any:
        raise NotImplementedError  # only looked up, never called

    routing = library("starlette.routing")
    return library("starlette.applications").Starlette(routes=[routing.Route("/orders", orders)])


def with_context() -> Any:
    from pyresilience_middleware import ResilienceMiddleware

    return requests(ResilienceMiddleware(application, metrics=None))


def with_everything(*, timeout: bool) -> Any:
    from pyresilience import BulkheadConfig, MetricsCollector, Pipeline, RateLimiterConfig, TimeoutConfig
    from pyresilience_middleware import ResilienceMiddleware

    collector = MetricsCollector()
    pipeline = Pipeline(
        RateLimiterConfig(max_calls=10**9),
        BulkheadConfig(max_concurrent=100),
        TimeoutConfig(10 if timeout else inf),  # one without a limit lets calls through untouched
        name="inbound",
        listeners=[collector],
    )
    return requests(ResilienceMiddleware(application, pipeline=pipeline, metrics=collector))


def with_everything_and_spans() -> Any:
    library("opentelemetry.trace")
    return with_everything(timeout=False)


def with_instrumentator() -> Any:
    middleware = library("prometheus_fastapi_instrumentator.middleware")
    registry = library("prometheus_client").CollectorRegistry()
    return requests(middleware.PrometheusInstrumentatorMiddleware(application, registry=registry), framework())


def with_starlette_exporter() -> Any:
    return requests(library("starlette_exporter").PrometheusMiddleware(application), framework())


def with_slowapi() -> Any:
    slowapi = library("slowapi")
    app = framework()
    address = library("slowapi.util").get_remote_address
    app.state.limiter = slowapi.Limiter(key_func=address, default_limits=["1000000000/second"])
    return requests(library("slowapi.middleware").SlowAPIASGIMiddleware(application), app)


def with_opentelemetry() -> Any:
    tracers = library("opentelemetry.sdk.trace").TracerProvider()
    meters = library("opentelemetry.sdk.metrics").MeterProvider()
    middleware = library("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware
    return requests(middleware(application, tracer_provider=tracers, meter_provider=meters))


PEERS: tuple[Variant, ...] = (
    peer("prometheus-fastapi-instrumentator", with_instrumentator),
    peer("slowapi", with_slowapi),
)

CONTEXT = Case(
    "asgi_context",
    "ASGI request, context",
    "a middleware that only passes on",
    AsyncCalls(),
    (
        floor(lambda: requests(Nothing(application))),
        ours("pyresilience", with_context, documented=False),
    ),
    (Bar(3, Kind.PLUS),),
)

EVERYTHING = Case(
    "asgi_everything",
    "ASGI request: context, metrics, guard",
    "a middleware that only passes on",
    AsyncCalls(),
    (
        floor(lambda: requests(Nothing(application))),
        ours("pyresilience, limiter and bulkhead", lambda: with_everything(timeout=False), documented=False),
        ours("pyresilience, and a timeout", lambda: with_everything(timeout=True), documented=False),
        *PEERS,
    ),
    (Bar(8, Kind.PLUS),),
)

# A case of its own: these peers import OpenTelemetry, and where it is loaded we ask it for the span of each request.
WITH_OPENTELEMETRY = Case(
    "asgi_opentelemetry",
    "ASGI request, OpenTelemetry loaded: context, metrics, guard",
    "a middleware that only passes on",
    AsyncCalls(),
    (
        floor(lambda: requests(Nothing(application))),
        ours("pyresilience, limiter and bulkhead", with_everything_and_spans, documented=False),
        peer("starlette_exporter", with_starlette_exporter),
        peer("OpenTelemetry, nothing exported", with_opentelemetry),
    ),
)
