"""Metrics as text: the Prometheus format 0.0.4 and OpenMetrics 1.0, rendered from integers when somebody asks."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyresilience import MetricsCollector, subscribe
from pyresilience.events._names import MAX_FUNCTIONS, OTHER
from pyresilience.gauges import GAUGES, readings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pyresilience.events._metrics import DurationSnapshot

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

MAX_LABEL = 256

_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_lock = threading.Lock()
_shared: MetricsCollector | None = None


def shared_collector() -> MetricsCollector:
    """The collector that counts the events of every pipeline of the process, from the first time it is asked for."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = MetricsCollector()
            subscribe(_shared)
        return _shared


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header prefers OpenMetrics 1.0 to the plain text format."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if kind in quality and (kind == "text/plain" or values.get("version", "1.0.0") in ("1.0.0", "0.0.1")):
            quality[kind] = max(quality[kind], _quality(values.get("q", "1")))
    asked = quality["application/openmetrics-text"]
    return asked > 0 and asked >= quality["text/plain"]


def render(collector: MetricsCollector, namespace: str, *, openmetrics: bool) -> bytes:
    """All series: the counters and durations of `collector`, and gauges of the named pipelines of the process.

    Beyond 1,000 functions or pipelines those that come last share the label `__other__`.
    """
    snapshot = collector.snapshot()
    lines = [
        *_counters(snapshot.counts, f"{namespace}_events", openmetrics),
        *_histograms(snapshot.durations, f"{namespace}_call_duration_seconds", openmetrics),
        *_gauges(namespace),
    ]
    if openmetrics:
        lines.append("# EOF")
    lines.append("")
    return "\n".join(lines).encode("utf-8")


def _counters(counts: Mapping[str, Mapping[str, int]], name: str, openmetrics: bool) -> Iterator[str]:
    names = _Names()
    merged: dict[str, dict[str, int]] = {}
    for function, kinds in counts.items():
        into = merged.setdefault(names.label(function), {})
        for kind, count in kinds.items():
            into[kind] = into.get(kind, 0) + count
    yield from _head(name if openmetrics else f"{name}_total", "counter", "Events by type and function.")
    for label, kinds in merged.items():
        for kind, count in kinds.items():
            yield f'{name}_total{{event_type="{_label(kind)}",function_name="{label}"}} {count}'


def _histograms(durations: Mapping[str, DurationSnapshot], name: str, openmetrics: bool) -> Iterator[str]:
    names = _Names()
    merged: dict[str, _Histogram] = {}
    for function, duration in durations.items():
        merged.setdefault(names.label(function), _Histogram()).add(duration)
    yield from _head(name, "histogram", "Duration of calls that succeeded.")
    if openmetrics:
        yield f"# UNIT {name} seconds"
    for label, histogram in merged.items():
        for bound, count in histogram.buckets.items():
            yield f'{name}_bucket{{function_name="{label}",le="{_number(bound)}"}} {count}'
        yield f'{name}_count{{function_name="{label}"}} {histogram.count}'
        yield f'{name}_sum{{function_name="{label}"}} {_number(histogram.sum)}'


@dataclass(slots=True)
class _Histogram:
    buckets: dict[float, int] = field(default_factory=dict[float, int])
    count: int = 0
    sum: float = 0.0

    def add(self, duration: DurationSnapshot) -> None:
        for bound, count in duration.buckets:
            self.buckets[bound] = self.buckets.get(bound, 0) + count
        self.count += duration.count
        self.sum += duration.sum


def _gauges(namespace: str) -> Iterator[str]:
    found = readings(_label, MAX_FUNCTIONS)
    for name, text, value_of in GAUGES:
        yield from _head(f"{namespace}_{name}", "gauge", text)
        for label, reading in found.items():
            value = value_of(reading)
            if value is not None:
                yield f'{namespace}_{name}{{function_name="{label}"}} {value}'


class _Names:
    """Names as label values; distinct ones that look alike after sanitising become one series."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        label = _label(name)
        if label not in self._known:
            if len(self._known) >= MAX_FUNCTIONS:
                return OTHER
            self._known.add(label)
        return label


def _label(value: str) -> str:
    """Escaped as both formats want it; what cannot be encoded or breaks terminals shows as an escape."""
    value = _UNSAFE.sub(lambda unsafe: ascii(unsafe[0])[1:-1], value[:MAX_LABEL])
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _head(name: str, kind: str, text: str) -> Iterable[str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value))


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0
