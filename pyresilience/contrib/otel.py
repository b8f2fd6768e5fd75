"""Events as OpenTelemetry spans, or as events of the current span."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable
from typing import Literal, TypeAlias

from pyresilience import __version__
from pyresilience.events._events import EventType, ResilienceEvent
from pyresilience.events._json_log import object_text, safe_text
from pyresilience.runtime import _sources as sources

try:
    from opentelemetry import trace
except ImportError as error:
    raise ImportError(
        "pyresilience.contrib.otel needs OpenTelemetry: pip install opentelemetry-api opentelemetry-sdk"
    ) from error

__all__ = ["OpenTelemetryListener"]

Mode: TypeAlias = Literal["span", "span_event"]
Value: TypeAlias = "str | bool | int | float"

_MODES = ("span", "span_event")
_FRAMES = 16
_STACKTRACE_LENGTH = 8192
_INT64 = range(-(2**63), 2**63)


class OpenTelemetryListener:
    """A listener that puts events into traces.

    Each event becomes a span of zero length named `resilience.<event type>`, a child of the current span; the one of
    a successful call spans the call. Its attributes are `resilience.event_type`, `resilience.function_name`,
    `resilience.attempt`, `resilience.detail` when there is one, `resilience.context.*` from `resilience_context`, and
    `error.type` when there is an error, which is also recorded as the span's exception. The span of a `FAILURE` has
    the status error. Nothing is done where the current trace is not sampled.

    In mode `span_event` the same becomes an event of the current span, at a fraction of the cost; without a current
    span that records it is lost.

    Texts are cut at 512 characters, and URLs in them lose user name, password, query and fragment.

    Args:
        tracer: makes the spans; by default one named `pyresilience` of the global tracer provider.
        mode: `span` or `span_event`.
        events: the types that are wanted; all by default.

    Raises:
        ValueError: `mode` is neither of the two.
        TypeError: `tracer` is no tracer, or `events` holds something else than `EventType` members.
    """

    event_types: frozenset[EventType] | None

    def __init__(
        self, tracer: trace.Tracer | None = None, *, mode: Mode = "span", events: Iterable[EventType] | None = None
    ) -> None:
        if tracer is not None and not isinstance(tracer, trace.Tracer):
            raise TypeError(f"OpenTelemetryListener.tracer must be an opentelemetry Tracer, not {tracer!r}")
        if mode not in _MODES:
            raise ValueError(f"OpenTelemetryListener.mode must be 'span' or 'span_event', not {mode!r}")
        self.event_types = None if events is None else _checked(events)
        self._tracer = tracer or trace.get_tracer("pyresilience", __version__)
        self._mode = mode

    def __repr__(self) -> str:
        return f"OpenTelemetryListener(mode={self._mode!r})"

    def __call__(self, event: ResilienceEvent, /) -> None:
        current = trace.get_current_span()
        if self._mode == "span_event":
            if current.is_recording():
                _add_event(current, event)
            return
        parent = current.get_span_context()
        # A remote parent that was sampled does not record here, and no span at all has no valid context.
        if current.is_recording() or parent.trace_flags.sampled or not parent.is_valid:
            self._make_span(event)

    def _make_span(self, event: ResilienceEvent) -> None:
        end = start = int(sources.wall() * sources.NANOSECONDS)
        if event.event_type is EventType.SUCCESS and event.duration is not None:
            start -= int(event.duration * sources.NANOSECONDS)
        name = f"resilience.{event.event_type.value}"
        span = self._tracer.start_span(name, attributes=_attributes(event), start_time=start)
        if span.is_recording() and event.error is not None:
            span.add_event("exception", _exception(event.error), end)
            if event.event_type is EventType.FAILURE:
                span.set_status(trace.Status(trace.StatusCode.ERROR, object_text(event.error)))
        span.end(end)


def _checked(events: Iterable[EventType]) -> frozenset[EventType]:
    wanted = frozenset([events] if isinstance(events, EventType) else events)
    for kind in wanted:
        if not isinstance(kind, EventType):
            raise TypeError(f"OpenTelemetryListener.events must contain EventType members only, not {kind!r}")
    return wanted


def _add_event(span: trace.Span, event: ResilienceEvent) -> None:
    attributes = _attributes(event)
    if event.error is not None:
        attributes["exception.message"] = object_text(event.error)
    if event.duration is not None:
        attributes["resilience.duration"] = event.duration
    span.add_event(f"resilience.{event.event_type.value}", attributes)


def _attributes(event: ResilienceEvent) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        "resilience.event_type": event.event_type.value,
        "resilience.function_name": safe_text(event.function_name),
        "resilience.attempt": event.attempt,
    }
    if event.detail:
        attributes["resilience.detail"] = safe_text(event.detail)
    if event.error is not None:
        attributes["error.type"] = _qualified(type(event.error))
    for key, value in (event.context or {}).items():
        if value is not None:
            attributes[f"resilience.context.{object_text(key)}"] = _attribute(value)
    return attributes


def _attribute(value: object) -> Value:
    """What exporters can send: a number of 64 bits, or text that encodes as UTF-8."""
    if isinstance(value, bool) or (isinstance(value, int) and value in _INT64):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return object_text(value)


def _qualified(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _exception(error: BaseException) -> dict[str, Value]:
    """As `Span.record_exception` has it, which would send the credentials of URLs and what cannot be encoded."""
    stacktrace = "".join(traceback.format_exception(error, limit=-_FRAMES))
    return {
        "exception.type": _qualified(type(error)),
        "exception.message": object_text(error),
        "exception.stacktrace": safe_text(stacktrace, _STACKTRACE_LENGTH),
    }
