"""The code of the documented API that users come from runs as it is written, and prints what it prints there.

Only hosts are other ones, and `do_work` and `send_slack_alert`, which are left to the reader there, are defined here.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import anyio
import httpx2
import pytest
import requests
from fastapi import FastAPI, Request
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from pyresilience import (
    CircuitBreakerConfig,
    CircuitOpenError,
    EventType,
    JsonEventLogger,
    MetricsCollector,
    RateLimiterConfig,
    ResilienceConfig,
    ResilienceEvent,
    ResilienceRegistry,
    RetryConfig,
    health_check,
    resilience_context,
    resilient,
)
from pyresilience.contrib.otel import OpenTelemetryListener
from pyresilience.contrib.prometheus import PrometheusListener
from pyresilience.testing import EventRecorder, VirtualTime

REFUSED = ConnectionError("Connection refused")
DOCUMENTED_TYPES = [
    "RETRY",
    "RETRY_EXHAUSTED",
    "TIMEOUT",
    "CIRCUIT_OPEN",
    "CIRCUIT_HALF_OPEN",
    "CIRCUIT_CLOSED",
    "FALLBACK_USED",
    "BULKHEAD_REJECTED",
    "RATE_LIMITED",
    "CACHE_HIT",
    "CACHE_MISS",
    "SUCCESS",
    "FAILURE",
    "SLOW_CALL",
]
DOCUMENTED_LINES = """\
{"event_type": "retry", "function_name": "my_function", "attempt": 1, "detail": "retrying in 1.00s", \
"error_type": "ConnectionError", "error_message": "Connection refused"}
{"event_type": "success", "function_name": "my_function", "attempt": 2}
""".splitlines()


@pytest.fixture(autouse=True)
def _no_context():
    token = resilience_context.set(None)
    yield
    resilience_context.reset(token)


def script(*steps: Any) -> Callable[[], Any]:
    """A `do_work` that returns or raises these, one after another."""
    remaining = iter(steps)

    def do_work() -> Any:
        step = next(remaining)
        if isinstance(step, Exception):
            raise step
        return step

    return do_work


def attempt(fn: Callable[[], Any]) -> None:
    """Call a function whose errors do not matter."""
    try:
        fn()
    except Exception:
        pass


def test_the_event_has_the_documented_fields_and_defaults():
    fields = {field.name: field.default for field in dataclasses.fields(ResilienceEvent)}
    assert fields == {
        "event_type": dataclasses.MISSING,
        "function_name": dataclasses.MISSING,
        "attempt": 0,
        "error": None,
        "detail": "",
        "context": None,
        "duration": None,
    }
    event = ResilienceEvent(event_type=EventType.RETRY, function_name="f")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.attempt = 2  # type: ignore[misc]


def test_the_documented_event_types_exist():
    for name in DOCUMENTED_TYPES:
        assert EventType[name].value == name.lower()


def test_context_is_on_every_event():
    events = EventRecorder()

    @resilient(retry=RetryConfig(max_attempts=3), listeners=[events])
    def my_function():
        return do_work()

    do_work = script(REFUSED, "done")
    with VirtualTime():
        resilience_context.set({"trace_id": "abc-123", "user_id": "u-456"})
        my_function()

    assert events.types == [EventType.RETRY, EventType.SUCCESS]
    for event in events.events:
        assert event.context == {"trace_id": "abc-123", "user_id": "u-456"}


async def test_a_web_framework_sets_the_context_in_middleware():
    events = EventRecorder()
    app = FastAPI()

    @app.middleware("http")
    async def add_resilience_context(request, call_next):
        resilience_context.set(
            {
                "trace_id": request.headers.get("x-trace-id"),
                "path": request.url.path,
            }
        )
        return await call_next(request)

    @app.get("/orders")
    async def orders(request: Request) -> str:
        return await load()

    @resilient(listeners=[events])
    async def load() -> str:
        return "orders"

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/orders", headers={"x-trace-id": "abc-123"})

    assert response.json() == "orders"
    assert [event.context for event in events.events] == [{"trace_id": "abc-123", "path": "/orders"}]


def test_a_custom_listener_prints_events(capsys):
    def my_listener(event: ResilienceEvent) -> None:
        print(f"[{event.event_type.value}] {event.function_name} attempt={event.attempt} {event.detail}")

    @resilient(
        retry=RetryConfig(max_attempts=3),
        listeners=[my_listener],
    )
    def my_function():
        return do_work()

    do_work = script(REFUSED, "done")
    with VirtualTime(random=1.0):
        assert my_function() == "done"

    assert capsys.readouterr().out.splitlines() == [
        "[retry] my_function attempt=1 retrying in 1.00s",
        "[success] my_function attempt=2 ",
    ]


def test_several_listeners_all_hear_and_one_that_raises_is_logged(caplog):
    logger, metrics = EventRecorder(), EventRecorder()

    def alerter(event: ResilienceEvent) -> None:
        raise RuntimeError("the pager is down")

    @resilient(
        retry=RetryConfig(max_attempts=3),
        listeners=[logger, alerter, metrics],
    )
    def critical_function():
        return "fine"

    assert critical_function() == "fine"
    assert logger.sequence == metrics.sequence == [("success", 1)]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.exc_info is not None


def test_json_lines_have_the_documented_keys_and_values(caplog):
    logger = JsonEventLogger()  # Uses Python's logging module

    @resilient(retry=RetryConfig(max_attempts=3), listeners=[logger])
    def my_function():
        return do_work()

    do_work = script(REFUSED, "done")
    with caplog.at_level(logging.INFO, logger="pyresilience"), VirtualTime(random=1.0):
        my_function()

    printed = [list(json.loads(record.getMessage()).items()) for record in caplog.records]
    assert printed == [list(json.loads(line).items()) for line in DOCUMENTED_LINES]


def test_json_lines_go_to_the_logger_and_level_that_are_asked_for(caplog):
    my_logger = logging.getLogger("resilience")
    json_logger = JsonEventLogger(logger=my_logger, level=logging.WARNING)

    @resilient(listeners=[json_logger])
    def my_function():
        return "fine"

    my_function()

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("resilience", logging.WARNING)
    assert json.loads(record.getMessage())["event_type"] == "success"


def run_documented_calls(metrics: MetricsCollector) -> None:
    """120 calls succeed, 25 of them at the second attempt, and 5 fail with what is not retried."""
    refusal = CircuitOpenError("a circuit further in is open")
    steps = ["done"] * 95 + [REFUSED, "done"] * 25 + [refusal] * 5

    @resilient(retry=RetryConfig(max_attempts=3), listeners=[metrics])
    def my_function():
        return do_work()

    do_work = script(*steps)
    with VirtualTime():
        for _ in range(125):
            attempt(my_function)


@pytest.fixture
def counted():
    """A collector that has heard the documented calls, made outside the event loop: they are sync, and wait."""
    collector = MetricsCollector()
    run_documented_calls(collector)
    return collector


def test_the_summary_has_the_documented_numbers(counted):
    metrics = counted

    summary = metrics.summary()

    added = summary.pop("call_success_rate")  # type: ignore[misc]
    assert summary == {
        "total_events": 150,
        "event_counts": {
            "success": 120,
            "retry": 25,
            "failure": 5,
        },
        "success_rate": 0.8,
        "functions": {
            "my_function": {
                "total": 150,
                "success": 120,
                "failure": 5,
            }
        },
    }
    assert added == 120 / 125


def test_counts_and_latencies_of_one_function(counted):
    metrics = counted

    # Counts for a specific function
    counts = metrics.get_counts("my_function")
    assert counts == {"success": 120, "failure": 5, "retry": 25}

    # Latency percentiles
    latencies = metrics.get_latencies("my_function")
    assert list(latencies) == ["p50", "p95", "p99", "min", "max"]
    assert latencies["min"] == latencies["p50"] == 0
    assert latencies["max"] == pytest.approx(0.55)  # one wait, at the middle of its range

    # Reset all metrics
    metrics.reset()
    assert metrics.summary()["total_events"] == 0


async def test_a_metrics_endpoint_returns_the_summary(counted):
    metrics = counted
    app = FastAPI()

    @app.get("/metrics")
    def get_metrics():
        return metrics.summary()

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/metrics")).json()["event_counts"] == {"success": 120, "retry": 25, "failure": 5}


def test_alerts_on_a_circuit_that_opens_and_recovers():
    alerts: list[str] = []
    send_slack_alert = alerts.append

    def alert_on_circuit_open(event):
        if event.event_type == EventType.CIRCUIT_OPEN:
            send_slack_alert(f"Circuit breaker opened for {event.function_name}: {event.error}")
        elif event.event_type == EventType.CIRCUIT_CLOSED:
            send_slack_alert(f"Circuit breaker recovered for {event.function_name}")

    json_logger, metrics = JsonEventLogger(), MetricsCollector()

    @resilient(
        circuit_breaker=CircuitBreakerConfig(failure_threshold=5),
        listeners=[json_logger, metrics, alert_on_circuit_open],
    )
    def payment_service():
        return do_work()

    do_work = script(*[REFUSED] * 5, "paid", "paid")
    with VirtualTime() as time:
        for _ in range(5):
            attempt(payment_service)
        time.sleep(30)
        payment_service()
        payment_service()

    assert alerts == [
        "Circuit breaker opened for payment_service: Connection refused",
        "Circuit breaker recovered for payment_service",
    ]
    assert metrics.get_counts("payment_service")["circuit_open"] == 1


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"answer": 42}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def api() -> Iterator[str]:
    """A server on loopback, in place of the documented host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


def test_each_event_becomes_a_span():
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):  # it can be set only once for a process
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    otel = OpenTelemetryListener()

    @resilient(retry=RetryConfig(max_attempts=3), listeners=[otel])
    def call_api():
        return requests.get(url, timeout=10).json()

    resilience_context.set({"user_id": "u-456"})
    with api() as url:
        assert call_api() == {"answer": 42}

    (span,) = exporter.get_finished_spans()
    assert span.attributes == {
        "resilience.event_type": "success",
        "resilience.function_name": "call_api",
        "resilience.attempt": 1,
        "resilience.context.user_id": "u-456",
    }


def test_prometheus_exports_the_documented_metrics():
    prom = PrometheusListener(namespace="myapp")

    @resilient(retry=RetryConfig(max_attempts=3), listeners=[prom])
    def call_api():
        if next(outages, None):
            raise REFUSED
        return requests.get(url, timeout=10).json()

    outages = iter([True])
    with api() as url, VirtualTime():
        assert call_api() == {"answer": 42}

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"function_name": "call_api", **labels})

    assert value("myapp_events_total", event_type="retry") == 1
    assert value("myapp_events_total", event_type="success") == 1
    assert value("myapp_call_duration_seconds_count") == 1, "only successful calls are observed"


async def test_the_health_check_is_the_documented_dict():
    registry = ResilienceRegistry()
    registry.register("payment-api", ResilienceConfig(circuit_breaker=CircuitBreakerConfig()))
    registry.register(
        "inventory-service",
        ResilienceConfig(circuit_breaker=CircuitBreakerConfig(failure_threshold=1), rate_limiter=RateLimiterConfig()),
    )

    @registry.decorator("payment-api")
    async def pay() -> None:
        await anyio.sleep(1)

    @registry.decorator("inventory-service")
    async def stock() -> None:
        raise REFUSED

    with pytest.raises(ConnectionError):
        await stock()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(pay)
        await anyio.sleep(0.5)

        status = health_check(registry)

        assert status == {
            "payment-api": {
                "circuit_breaker": "closed",
                "in_flight": 3,
                "rate_limiter_available": True,
            },
            "inventory-service": {
                "circuit_breaker": "open",
                "in_flight": 0,
                "rate_limiter_available": True,
            },
        }
