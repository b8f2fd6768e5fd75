"""The metrics text, read back by the official parsers."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pyresilience import (
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    EventType,
    MetricsCollector,
    Pipeline,
    RateLimiterConfig,
    ResilienceEvent,
)
from pyresilience_middleware import ResilienceMiddleware, create_metrics_app
from pyresilience_middleware.inbound import exposition
from tests.inbound.conversation import get, hello

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_2 = (
    b"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    b"text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    b"application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    b"text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def samples(text, parse):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def rendered(collector, namespace="shop"):
    """All samples by name and labels, after a look at both formats."""
    plain = exposition.render(collector, namespace, openmetrics=False).decode()
    fancy = exposition.render(collector, namespace, openmetrics=True).decode()
    assert fancy.endswith("\n# EOF\n") and not plain.endswith("# EOF\n")
    values = samples(plain, parse_text)
    assert samples(fancy, parse_openmetrics) == values
    return values


async def test_events_and_durations_have_the_documented_names():
    collector = MetricsCollector()
    collector(ResilienceEvent(EventType.RETRY, "charge", 1))
    collector(ResilienceEvent(EventType.SUCCESS, "charge", 2, duration=0.25))
    collector(ResilienceEvent(EventType.SUCCESS, "charge", 1, duration=4))
    values = rendered(collector, "myapp")
    assert values["myapp_events_total", ("event_type", "retry"), ("function_name", "charge")] == 1
    assert values["myapp_events_total", ("event_type", "success"), ("function_name", "charge")] == 2
    assert values["myapp_call_duration_seconds_count", ("function_name", "charge")] == 2
    assert values["myapp_call_duration_seconds_sum", ("function_name", "charge")] == 4.25
    assert values["myapp_call_duration_seconds_bucket", ("function_name", "charge"), ("le", "+Inf")] == 2
    assert values["myapp_call_duration_seconds_bucket", ("function_name", "charge"), ("le", "1.0")] == 1


async def test_types_help_and_units_are_what_linters_want():
    plain = exposition.render(MetricsCollector(), "a", openmetrics=False).decode()
    fancy = exposition.render(MetricsCollector(), "a", openmetrics=True).decode()
    assert "# TYPE a_events_total counter" in plain and "# TYPE a_events counter" in fancy
    assert "# UNIT a_call_duration_seconds seconds" in fancy and "# UNIT" not in plain
    for text, parse in ((plain, parse_text), (fancy, parse_openmetrics)):
        families = list(parse(text))
        assert {family.name: family.type for family in families} == {
            "a_events": "counter",
            "a_call_duration_seconds": "histogram",
            "a_circuit_breaker_state": "gauge",
            "a_in_flight": "gauge",
            "a_bulkhead_limit": "gauge",
            "a_bulkhead_in_use": "gauge",
            "a_rate_limiter_available": "gauge",
        }
        assert all(family.documentation for family in families)


async def test_gauges_show_the_named_pipelines_of_the_process():
    busy = Pipeline(BulkheadConfig(max_concurrent=3), RateLimiterConfig(max_calls=2), name="busy")
    also = Pipeline(BulkheadConfig(max_concurrent=2), RateLimiterConfig(max_calls=1), name="busy")
    ill = Pipeline(CircuitBreakerConfig(), name="ill")
    unnamed = Pipeline(BulkheadConfig())
    ill.find(CircuitBreaker).force_open()
    async with anyio.create_task_group() as tasks:
        for pipeline in (busy, busy, also, unnamed):
            tasks.start_soon(pipeline.call, anyio.sleep, 0.1)
        await anyio.sleep(0.05)
        values = rendered(MetricsCollector())
    assert values["shop_in_flight", ("function_name", "busy")] == 3
    assert values["shop_bulkhead_limit", ("function_name", "busy")] == 5
    assert values["shop_bulkhead_in_use", ("function_name", "busy")] == 3
    assert values["shop_rate_limiter_available", ("function_name", "busy")] == 0
    assert values["shop_circuit_breaker_state", ("function_name", "ill")] == 2
    assert ("shop_circuit_breaker_state", ("function_name", "busy")) not in values
    assert ("shop_bulkhead_limit", ("function_name", "ill")) not in values


@settings(max_examples=60, deadline=None, database=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=())).map(lambda text: text + '\ud800\r\n\\"\x00\u2028'), max_size=4
    )
)
def test_any_name_gives_a_valid_exposition(names):
    collector = MetricsCollector()
    for name in names:
        collector(ResilienceEvent(EventType.SUCCESS, name, 1, duration=0.1))
    shown = [value for key, value in rendered(collector).items() if key[0] == "shop_events_total"]
    assert sum(shown) == len(names)


async def test_names_that_look_alike_once_they_are_printable_are_one_series():
    collector = MetricsCollector()
    for name in ("a\x07", "a\\x07"):
        collector(ResilienceEvent(EventType.SUCCESS, name, 1, duration=0.1))
    values = rendered(collector)
    assert sum(value for key, value in values.items() if key[0] == "shop_events_total") == 2


async def test_the_number_of_series_is_bounded(monkeypatch):
    monkeypatch.setattr(exposition, "MAX_FUNCTIONS", 3)
    collector = MetricsCollector()
    for number in range(10):
        collector(ResilienceEvent(EventType.SUCCESS, f"f{number}", 1, duration=0.1))
    alive = [Pipeline(BulkheadConfig(1), name=f"p{number}") for number in range(10)]
    values = rendered(collector)
    assert values["shop_events_total", ("event_type", "success"), ("function_name", "__other__")] == 7
    assert values["shop_call_duration_seconds_count", ("function_name", "__other__")] == 7
    assert len([key for key in values if key[0] == "shop_bulkhead_limit"]) <= 4
    assert sum(value for key, value in values.items() if key[0] == "shop_bulkhead_limit") >= len(alive)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (b"", TEXT),
        (b"*/*", TEXT),
        (b"text/html", TEXT),
        (b"text/plain", TEXT),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (b"application/openmetrics-text", OPENMETRICS),
        (b"Application/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        (b"application/openmetrics-text;version=2.0.0", TEXT),
        (b"application/openmetrics-text;q=0", TEXT),
        (b"application/openmetrics-text;q=0.4,text/plain;q=0.5", TEXT),
        (b"application/openmetrics-text;q=nonsense", TEXT),
        (b"application/openmetrics-text;q=nan", TEXT),
        (b";;;,,=;q=\xff" * 100, TEXT),
    ],
)
async def test_the_format_is_negotiated(accept, media_type):
    reply = await get(create_metrics_app(metrics=MetricsCollector()), "/metrics", [(b"Accept", accept)])
    assert (reply.headers["content-type"], reply.headers["vary"]) == (media_type, "accept")
    assert reply.body.endswith(b"# EOF\n") is (media_type == OPENMETRICS)


async def test_all_pipelines_are_counted_once_however_many_middlewares_there_are():
    first = ResilienceMiddleware(hello)
    work = Pipeline(name="counted once")(anyio.sleep)
    await work(0)
    second = ResilienceMiddleware(hello)
    await work(0)
    for app in (first, second, create_metrics_app()):
        values = samples((await get(app, "/metrics")).body.decode(), parse_text)
        labels = ("event_type", "success"), ("function_name", "counted once")
        assert values["pyresilience_events_total", *labels] == 2


async def test_a_collector_of_the_users_own_shows_what_it_hears():
    mine = MetricsCollector()
    app = ResilienceMiddleware(hello, metrics=mine)
    await Pipeline(name="heard", listeners=[mine]).call(anyio.sleep, 0)
    await Pipeline(name="not heard").call(anyio.sleep, 0)
    text = (await get(app, "/metrics")).body.decode()
    assert 'function_name="heard"' in text and 'event_type="success",function_name="not heard"' not in text


async def test_a_large_exposition_is_sent_as_one_message():
    collector = MetricsCollector()
    for number in range(500):
        collector(ResilienceEvent(EventType.SUCCESS, f"f{number}", 1, duration=0.1))
    reply = await get(create_metrics_app(metrics=collector), "/metrics")
    assert len(reply.messages) == 2 and reply.headers["content-length"] == str(len(reply.body))
