"""The application under uvicorn, with one of the middlewares around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.model import library
from benchmarks.whole_path.processes import SERVER, announce, loopback, obey_parent, pin

CONCURRENT = 1000


def application() -> Any:
    responses = library("starlette.responses")

    async def orders(request: Any) -> Any:
        return responses.PlainTextResponse("ok")

    routing = library("starlette.routing")
    return library("starlette.applications").Starlette(routes=[routing.Route("/orders", orders)])


def bare(app: Any) -> None:
    pass


def with_context(app: Any) -> None:
    from pyresilience_middleware import ResilienceMiddleware

    app.add_middleware(ResilienceMiddleware, metrics=None)


def with_everything(app: Any) -> None:
    from pyresilience import BulkheadConfig, MetricsCollector, Pipeline, RateLimiterConfig, TimeoutConfig
    from pyresilience_middleware import ResilienceMiddleware

    collector = MetricsCollector()
    pipeline = Pipeline(
        RateLimiterConfig(max_calls=10**9),
        BulkheadConfig(max_concurrent=CONCURRENT),
        TimeoutConfig(10),
        name="inbound",
        listeners=[collector],
    )
    app.add_middleware(ResilienceMiddleware, pipeline=pipeline, metrics=collector)


def with_instrumentator(app: Any) -> None:
    middleware = library("prometheus_fastapi_instrumentator.middleware")
    registry = library("prometheus_client").CollectorRegistry()
    app.add_middleware(middleware.PrometheusInstrumentatorMiddleware, registry=registry)


def with_starlette_exporter(app: Any) -> None:
    app.add_middleware(library("starlette_exporter").PrometheusMiddleware)


def with_slowapi(app: Any) -> None:
    address = library("slowapi.util").get_remote_address
    app.state.limiter = library("slowapi").Limiter(key_func=address, default_limits=["1000000000/second"])
    app.add_middleware(library("slowapi.middleware").SlowAPIASGIMiddleware)


def with_opentelemetry(app: Any) -> None:
    app.add_middleware(
        library("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware,
        tracer_provider=library("opentelemetry.sdk.trace").TracerProvider(),
        meter_provider=library("opentelemetry.sdk.metrics").MeterProvider(),
    )


BARE = "no middleware"
APPLICATIONS: dict[str, Callable[[Any], None]] = {
    BARE: bare,
    "pyresilience, context": with_context,
    "pyresilience: context, metrics, guard, timeout": with_everything,
    "starlette_exporter": with_starlette_exporter,
    "prometheus-fastapi-instrumentator": with_instrumentator,
    "slowapi": with_slowapi,
    "OpenTelemetry, nothing exported": with_opentelemetry,
}


def main() -> None:
    uvicorn = library("uvicorn")
    app = application()
    APPLICATIONS[sys.argv[1]](app)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    listener = loopback()
    announce(listener)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    pin(SERVER)
    obey_parent()
    main()
