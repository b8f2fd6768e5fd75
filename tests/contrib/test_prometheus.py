from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import weakref

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pyresilience import (
    AsyncRateLimiter,
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    EventType,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    ResilienceEvent,
    RetryConfig,
)
from pyresilience.contrib.prometheus import PrometheusListener, ResilienceCollector
from pyresilience.events._names import OTHER, label_text


@pytest.fixture
def registry():
    return CollectorRegistry()


def scrape(registry):
    """What a Prometheus server would see: samples by name and labels."""
    samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            samples[(sample.name, *sorted(sample.labels.items()))] = sample.value
    return samples


def events_total(samples, namespace="pyresilience"):
    return {
        (labels["function_name"], labels["event_type"]): value
        for (name, *pairs), value in samples.items()
        if name == f"{namespace}_events_total" and (labels := dict(pairs))
    }


def success(name="f", duration=None):
    return ResilienceEvent(EventType.SUCCESS, name, 1, duration=duration)


# ---------------------------------------------------------------------- the listener


async def test_the_documented_metrics_are_exported(registry):
    steps = [ConnectionError("refused"), "ok"]

    async def call_api():
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    prom = PrometheusListener(namespace="myapp", registry=registry)
    retry = RetryConfig(max_attempts=3, delay=2.0, jitter=False)
    await Pipeline(retry, listeners=[prom]).call(call_api)
    samples = scrape(registry)
    assert events_total(samples, "myapp") == {("call_api", "retry"): 1, ("call_api", "success"): 1}
    duration = ("function_name", "call_api")
    assert samples["myapp_call_duration_seconds_count", duration] == 1
    assert samples["myapp_call_duration_seconds_sum", duration] == pytest.approx(2.0, abs=0.001)
    assert samples["myapp_call_duration_seconds_bucket", duration, ("le", "2.5")] == 1
    assert samples["myapp_call_duration_seconds_bucket", duration, ("le", "1.0")] == 0


def test_only_calls_with_a_duration_are_in_the_histogram(registry):
    listener = PrometheusListener(registry=registry)
    listener(ResilienceEvent(EventType.RETRY, "f", 1))
    assert not [key for key in scrape(registry) if "duration_seconds_count" in key[0]]
    listener(success(duration=0.2))
    assert scrape(registry)["pyresilience_call_duration_seconds_count", ("function_name", "f")] == 1


def test_buckets_can_be_chosen(registry):
    PrometheusListener(registry=registry, buckets=[0.5, 7])(success(duration=0.5))
    buckets = [(dict(key[1:])["le"], value) for key, value in scrape(registry).items() if key[0].endswith("_bucket")]
    assert buckets == [("0.5", 1), ("7.0", 1), ("+Inf", 1)]


def test_listeners_of_one_namespace_share_its_metrics(registry):
    first, second = (PrometheusListener("shop", registry) for _ in range(2))
    first(success())
    second(success())
    PrometheusListener("other", registry)(success())
    assert events_total(scrape(registry), "shop") == {("f", "success"): 2}
    assert events_total(scrape(registry), "other") == {("f", "success"): 1}


def test_each_registry_has_metrics_of_its_own(registry):
    PrometheusListener(registry=registry)(success())
    other = CollectorRegistry()
    PrometheusListener(registry=other)
    assert events_total(scrape(other)) == {}


def test_a_registry_can_be_freed():
    registry = CollectorRegistry()
    PrometheusListener(registry=registry)(success())
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_the_default_registry_is_the_clients():
    from prometheus_client import REGISTRY

    PrometheusListener("pyresilience_test_default")(success())
    assert events_total(scrape(REGISTRY), "pyresilience_test_default") == {("f", "success"): 1}


def test_different_buckets_for_one_namespace_are_refused(registry):
    PrometheusListener("shop", registry, buckets=[1.0])
    PrometheusListener("shop", registry, buckets=[1.0])
    PrometheusListener("shop", registry)
    with pytest.raises(ValueError, match=r"PrometheusListener\.buckets of namespace 'shop' must be the \(1\.0,\)"):
        PrometheusListener("shop", registry, buckets=[2.0])


@pytest.mark.parametrize("metric", ["shop_events_total", "shop_call_duration_seconds"])
def test_metrics_of_somebody_else_are_not_taken_over(registry, metric):
    theirs = Gauge(metric, "theirs", registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusListener("shop", registry)
    registry.unregister(theirs)
    PrometheusListener("shop", registry)(success())
    assert events_total(scrape(registry), "shop") == {("f", "success"): 1}


def test_names_beyond_the_cap_are_counted_together_with_one_warning(registry, caplog):
    listener = PrometheusListener(registry=registry, max_functions=2)
    for name in ("a", "b", "c", "d", "a"):
        listener(success(name, duration=1.0))
    assert events_total(scrape(registry)) == {("a", "success"): 2, ("b", "success"): 1, ("__other__", "success"): 2}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "more than 2 function names" in caplog.text


def test_names_that_are_not_counted_on_their_own_take_no_memory(registry):
    listener = PrometheusListener(registry=registry, max_functions=1)
    listener(success("a"))
    for number in range(500):
        listener(success(f"{number}" + "x" * 300 * (number % 2)))
        listener(success("a" + "\udc80" * number))
    assert len(listener._metrics._series) == 2
    assert events_total(scrape(registry)) == {("a", "success"): 2, ("__other__", "success"): 999}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "bad\udc80", "x" * 300]),
            st.sampled_from([EventType.SUCCESS, EventType.RETRY]),
            st.sampled_from([None, 0.5, 3.0]),
        )
    )
)
def test_any_sequence_of_events_is_counted_as_by_hand(happened):
    registry = CollectorRegistry()
    listeners = [PrometheusListener(registry=registry, buckets=[1.0], max_functions=2) for _ in range(2)]
    counts, durations = {}, {}
    for number, (name, kind, duration) in enumerate(happened):
        listeners[number % 2](ResilienceEvent(kind, name, 1, duration=duration))
        label = label_text(name)
        if all(label != known for known, _ in counts) and len({known for known, _ in counts} - {OTHER}) >= 2:
            label = OTHER
        counts[label, kind.value] = counts.get((label, kind.value), 0) + 1
        if duration is not None:
            durations.setdefault(label, []).append(duration)
    samples = scrape(registry)
    assert events_total(samples) == counts
    seconds = {key[1][1]: value for key, value in samples.items() if key[0].endswith("_seconds_sum")}
    assert seconds == {label: sum(values) for label, values in durations.items()}
    for label, values in durations.items():
        bucket = "pyresilience_call_duration_seconds_bucket", ("function_name", label), ("le", "1.0")
        assert samples[bucket] == values.count(0.5)


def test_no_name_breaks_a_scrape(registry):
    """With a lone surrogate in a label every later scrape would raise."""
    listener = PrometheusListener(registry=registry)
    for name in ("bad\udc80", 'quote" \\ and\nline', "x" * 10_000):
        listener(success(name))
    assert set(events_total(scrape(registry))) == {
        ("bad\\udc80", "success"),
        ('quote" \\ and\nline', "success"),
        ("x" * 200, "success"),
    }


def test_counting_from_many_threads_loses_nothing(registry):
    listener = PrometheusListener(registry=registry)

    def work():
        for step in range(500):
            listener(success(f"f{step % 7}", duration=0.1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(events_total(scrape(registry)).values()) == 2000


@pytest.mark.parametrize("listener", [PrometheusListener, ResilienceCollector])
@pytest.mark.parametrize("namespace", ["", "my-app", "1st", "app:x", "ä", "my app", "a\n"])
def test_a_namespace_that_prometheus_does_not_take_is_refused(listener, namespace):
    with pytest.raises(ValueError, match=rf"{listener.__name__}\.namespace must begin with .* not ") as caught:
        listener(namespace)
    assert repr(namespace) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "field"),
    [
        ({"namespace": None}, TypeError, "namespace"),
        ({"registry": "x"}, TypeError, "registry"),
        ({"buckets": [2, 1]}, ValueError, "buckets"),
        ({"max_functions": 0}, ValueError, "max_functions"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, field):
    with pytest.raises(error, match=rf"PrometheusListener\.{field} must be"):
        PrometheusListener(**arguments)


def test_a_missing_library_is_named():
    code = "import sys; sys.modules['prometheus_client'] = None; import pyresilience.contrib.prometheus"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert "ImportError" in ran.stderr and "pip install prometheus-client" in ran.stderr


# ---------------------------------------------------------------------- the collector


def gauges(registry, function):
    return {
        name.removeprefix("pyresilience_"): value
        for (name, *labels), value in scrape(registry).items()
        if labels == [("function_name", function)]
    }


async def test_the_state_of_named_pipelines_is_shown(registry):
    registry.register(ResilienceCollector())
    pipeline = Pipeline(
        CircuitBreakerConfig(),
        RateLimiterConfig(max_calls=2, period=3600.0),
        BulkheadConfig(max_concurrent=5),
        name="state",
    )
    assert gauges(registry, "state") == {
        "circuit_breaker_state": 0,
        "in_flight": 0,
        "bulkhead_limit": 5,
        "bulkhead_in_use": 0,
        "rate_limiter_available": 1,
    }
    other = Pipeline(name="other")
    async with anyio.create_task_group() as tasks:
        for guard in (pipeline, other, pipeline):
            tasks.start_soon(guard.call, anyio.sleep, 5)
        await anyio.sleep(1)
        busy = gauges(registry, "state")
        assert gauges(registry, "other") == {"in_flight": 1}
    assert busy == {
        "circuit_breaker_state": 0,
        "in_flight": 2,
        "bulkhead_limit": 5,
        "bulkhead_in_use": 2,
        "rate_limiter_available": 0,
    }
    assert gauges(registry, "state")["in_flight"] == 0


def test_the_state_of_a_circuit_is_a_number_that_the_help_text_explains(registry, time):
    registry.register(ResilienceCollector())
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=10.0))
    pipeline = Pipeline(breaker, name="circuit")
    seen = [gauges(registry, "circuit")["circuit_breaker_state"]]
    breaker.record_failure()
    seen.append(gauges(registry, "circuit")["circuit_breaker_state"])
    time.sleep(10)
    assert breaker.allow_request()
    seen.append(gauges(registry, "circuit")["circuit_breaker_state"])
    assert seen == [0, 2, 1]
    assert "0 closed, 1 half-open, 2 open" in generate_latest(registry).decode()
    del pipeline


def test_pipelines_show_only_the_layers_they_have(registry):
    registry.register(ResilienceCollector())
    unnamed, named = Pipeline(CircuitBreakerConfig()), Pipeline(name="bare")
    assert gauges(registry, "bare") == {"in_flight": 0}
    assert "None" not in generate_latest(registry).decode()
    del unnamed, named


def test_pipelines_of_one_name_count_as_one(registry):
    registry.register(ResilienceCollector())
    shared = Bulkhead(BulkheadConfig(max_concurrent=3))
    worst = CircuitBreaker()
    worst.force_open()
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=3600.0))
    limiter.acquire()
    group = [
        Pipeline(worst, shared, limiter, name="twins"),
        Pipeline(CircuitBreakerConfig(), shared, BulkheadConfig(max_concurrent=4), name="twins"),
        Pipeline(AsyncRateLimiter(), name="twins"),
    ]
    shown = gauges(registry, "twins")
    assert shown["circuit_breaker_state"] == 2
    assert shown["bulkhead_limit"] == 7
    assert shown["rate_limiter_available"] == 0
    del group


def test_reading_takes_no_token_and_no_probe(registry, time):
    registry.register(ResilienceCollector())
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=3600.0))
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=1.0, half_open_max_calls=1))
    breaker.record_failure()
    time.sleep(1)
    pipeline = Pipeline(breaker, limiter, name="untouched")
    for _ in range(3):
        scrape(registry)
    assert limiter.acquire() and breaker.allow_request()
    del pipeline


def test_pipelines_that_are_gone_are_not_shown(registry):
    registry.register(ResilienceCollector())
    pipeline = Pipeline(name="gone")
    assert gauges(registry, "gone")
    del pipeline
    gc.collect()
    assert not gauges(registry, "gone")


def test_names_of_pipelines_are_bounded_and_can_be_encoded(registry):
    registry.register(ResilienceCollector(max_functions=1))
    group = [Pipeline(BulkheadConfig(max_concurrent=2), name=f"\x00bounded{number}\udc80") for number in range(3)]
    assert gauges(registry, "\x00bounded0\\udc80")["bulkhead_limit"] == 2
    assert gauges(registry, "__other__")["bulkhead_limit"] >= 4
    assert not gauges(registry, "\x00bounded1\\udc80")
    del group


def test_a_registry_notices_that_a_collector_is_registered_twice(registry):
    registry.register(ResilienceCollector())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(ResilienceCollector())
    registry.register(ResilienceCollector("other"))


def test_a_collector_and_a_listener_can_stand_side_by_side(registry):
    PrometheusListener(registry=registry)(success(duration=1.0))
    registry.register(ResilienceCollector())
    Counter("theirs", "A counter of the application.", registry=registry).inc()
    pipeline = Pipeline(name="side")
    samples = scrape(registry)
    assert events_total(samples) == {("f", "success"): 1}
    assert samples["pyresilience_in_flight", ("function_name", "side")] == 0
    assert samples["theirs_total",] == 1
    assert repr(PrometheusListener(registry=registry)) == "PrometheusListener('pyresilience')"
    assert repr(ResilienceCollector("x")) == "ResilienceCollector('x')"
    del pipeline
