from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from pyresilience import EventType, Pipeline, ResilienceEvent, RetryConfig, resilience_context
from pyresilience.contrib.otel import OpenTelemetryListener


class Traces:
    def __init__(self, sampler=ALWAYS_ON):
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(sampler))
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    @property
    def spans(self):
        return self._exporter.get_finished_spans()


@pytest.fixture
def traces():
    return Traces()


def failing(error, kind=EventType.FAILURE, **fields):
    return ResilienceEvent(kind, "f", 1, error, **fields)


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


async def test_each_event_of_a_call_becomes_a_child_of_the_current_span(traces):
    steps = [ConnectionError("refused"), "ok"]

    async def call_api():
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    retry = RetryConfig(max_attempts=3, delay=2.0, jitter=False)
    pipeline = Pipeline(retry, listeners=[OpenTelemetryListener(traces.tracer)])
    token = resilience_context.set({"trace_id": "abc-123", "user": None, 7: (1, 2)})
    try:
        with traces.tracer.start_as_current_span("request") as request:
            await pipeline.call(call_api)
    finally:
        resilience_context.reset(token)
    retrying, success, _ = traces.spans
    parent = request.get_span_context()
    for span in (retrying, success):
        assert span.parent.span_id == parent.span_id and span.context.trace_id == parent.trace_id
    context = {"resilience.context.trace_id": "abc-123", "resilience.context.7": "(1, 2)"}
    assert retrying.name == "resilience.retry" and dict(retrying.attributes) == {
        "resilience.event_type": "retry",
        "resilience.function_name": "call_api",
        "resilience.attempt": 1,
        "resilience.detail": "retrying in 2.00s",
        "error.type": "ConnectionError",
        **context,
    }
    assert retrying.end_time == retrying.start_time
    assert success.name == "resilience.success" and dict(success.attributes) == {
        "resilience.event_type": "success",
        "resilience.function_name": "call_api",
        "resilience.attempt": 2,
        **context,
    }
    assert (success.end_time - success.start_time) / 1e9 == pytest.approx(2.0, abs=0.001)


def test_only_the_span_of_a_success_is_dated_back(traces, time):
    listener = OpenTelemetryListener(traces.tracer)
    listener(ResilienceEvent(EventType.SUCCESS, "f", 1, duration=1.5))
    listener(ResilienceEvent(EventType.SLOW_CALL, "f", 1, duration=1.5))
    now = 1_700_000_000 * 10**9
    assert [(span.start_time, span.end_time) for span in traces.spans] == [(now - 1_500_000_000, now), (now, now)]


def test_without_a_current_span_each_event_is_a_trace_of_its_own(traces):
    listener = OpenTelemetryListener(traces.tracer)
    listener(ResilienceEvent(EventType.RETRY, "f", 1))
    listener(ResilienceEvent(EventType.SUCCESS, "f", 2))
    assert [span.parent for span in traces.spans] == [None, None]
    assert len({span.context.trace_id for span in traces.spans}) == 2


def test_an_exception_is_recorded_with_its_stack_trace(traces):
    OpenTelemetryListener(traces.tracer)(failing(raised(TimeoutError("too slow"))))
    (span,) = traces.spans
    (recorded,) = span.events
    assert recorded.name == "exception" and recorded.timestamp == span.end_time
    assert recorded.attributes["exception.type"] == "TimeoutError"
    assert recorded.attributes["exception.message"] == "too slow"
    assert recorded.attributes["exception.stacktrace"].startswith("Traceback")
    assert "in raised" in recorded.attributes["exception.stacktrace"]
    assert span.status.status_code is trace.StatusCode.ERROR and span.status.description == "too slow"


def test_only_a_call_that_ended_in_failure_has_the_status_error(traces):
    for kind in EventType:
        OpenTelemetryListener(traces.tracer)(failing(ValueError(), kind))
    wrong = [span.name for span in traces.spans if not span.status.is_ok]
    assert wrong == ["resilience.failure"]
    assert len(traces.spans) == len(EventType)


def test_error_types_are_qualified(traces):
    class Refused(Exception):
        pass

    OpenTelemetryListener(traces.tracer)(failing(Refused()))
    assert traces.spans[0].attributes["error.type"] == f"{__name__}.{Refused.__qualname__}"


def test_an_unsampled_trace_gets_nothing():
    silent = Traces(ALWAYS_OFF)
    loud = Traces()
    for mode in ("span", "span_event"):
        with silent.tracer.start_as_current_span("request"):
            OpenTelemetryListener(loud.tracer, mode=mode)(failing(ValueError("x")))
    assert loud.spans == () == silent.spans


def test_a_sampler_that_declines_gets_no_further_work():
    traces = Traces(ALWAYS_OFF)
    OpenTelemetryListener(traces.tracer)(failing(ValueError("x")))
    assert traces.spans == ()


def test_a_sampled_remote_parent_gets_children(traces):
    """A context from `traceparent` does not record here, but the trace does."""
    remote = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    with trace.use_span(trace.NonRecordingSpan(remote)):
        OpenTelemetryListener(traces.tracer)(ResilienceEvent(EventType.RETRY, "f", 1))
    assert traces.spans[0].parent.span_id == 0xDEF


def test_mode_span_event_adds_to_the_current_span(traces):
    listener = OpenTelemetryListener(mode="span_event")
    with traces.tracer.start_as_current_span("request"):
        listener(failing(ValueError("bad"), EventType.RETRY, detail="retrying in 1.00s"))
        listener(ResilienceEvent(EventType.SUCCESS, "f", 2, duration=0.5))
    (span,) = traces.spans
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        (
            "resilience.retry",
            {
                "resilience.event_type": "retry",
                "resilience.function_name": "f",
                "resilience.attempt": 1,
                "resilience.detail": "retrying in 1.00s",
                "error.type": "ValueError",
                "exception.message": "bad",
            },
        ),
        (
            "resilience.success",
            {
                "resilience.event_type": "success",
                "resilience.function_name": "f",
                "resilience.attempt": 2,
                "resilience.duration": 0.5,
            },
        ),
    ]


def test_mode_span_event_needs_a_current_span(traces):
    OpenTelemetryListener(traces.tracer, mode="span_event")(failing(ValueError("bad")))
    assert traces.spans == ()


async def test_events_restricts_what_is_heard(traces):
    listener = OpenTelemetryListener(traces.tracer, events=[EventType.FAILURE])

    async def fails():
        raise ValueError("bad")

    pipeline = Pipeline(RetryConfig(max_attempts=2), listeners=[listener])
    with pytest.raises(ValueError):
        await pipeline.call(fails)
    assert [span.name for span in traces.spans] == ["resilience.failure"]
    assert {kind for kind, (_, heard) in pipeline.dispatch.items() if listener in heard} == {EventType.FAILURE}
    assert repr(listener) == "OpenTelemetryListener(mode='span')"


def test_values_are_what_exporters_can_send(traces):
    values = {"n": 3, "r": 0.5, "b": True, "big": 2**70, "nan": float("nan"), "odd": "\udc80", "list": [1]}
    OpenTelemetryListener(traces.tracer)(ResilienceEvent(EventType.RETRY, "\udc80", context=values))
    attributes = traces.spans[0].attributes
    assert {key: attributes[f"resilience.context.{key}"] for key in values} == {
        "n": 3,
        "r": 0.5,
        "b": True,
        "big": str(2**70),
        "nan": "nan",
        "odd": "\\udc80",
        "list": "[1]",
    }
    assert attributes["resilience.function_name"] == "\\udc80"


@pytest.mark.parametrize("mode", ["span", "span_event"])
def test_secrets_of_urls_stay_out_of_traces(traces, mode):
    url = "https://user:p4ss@host/?token=s3cret"
    cause = raised(ConnectionError(url))
    error = ValueError(url)
    error.__cause__ = cause
    with traces.tracer.start_as_current_span("request"):
        OpenTelemetryListener(traces.tracer, mode=mode)(failing(error, detail=url, context={"url": url, url: 1}))
    text = "".join(span.to_json() for span in traces.spans)
    assert "p4ss" not in text and "s3cret" not in text
    assert "https://***@host/?***" in text


def test_a_long_stack_trace_is_bounded(traces):
    def dive(depth):
        if depth:
            dive(depth - 1)
        raise ValueError("x" * 20_000)

    try:
        dive(200)
    except ValueError as error:
        OpenTelemetryListener(traces.tracer)(failing(error))
    attributes = traces.spans[0].events[0].attributes
    assert len(attributes["exception.stacktrace"]) <= 8192 and len(attributes["exception.message"]) <= 512


def test_without_an_sdk_nothing_happens():
    """The tracer of the API alone is a no-op until somebody installs a provider."""
    OpenTelemetryListener()(failing(ValueError("x")))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "log"}, ValueError, r"OpenTelemetryListener\.mode must be 'span' or 'span_event', not 'log'"),
        ({"tracer": "x"}, TypeError, r"OpenTelemetryListener\.tracer must be an opentelemetry Tracer, not 'x'"),
        ({"events": ["retry"]}, TypeError, r"OpenTelemetryListener\.events must contain EventType members only"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        OpenTelemetryListener(**arguments)


def test_a_missing_library_is_named():
    code = "import sys; sys.modules['opentelemetry'] = None; import pyresilience.contrib.otel"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert "ImportError" in ran.stderr and "pip install opentelemetry-api opentelemetry-sdk" in ran.stderr
