"""Events and the state of pipelines as metrics of the official Prometheus client."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pyresilience.events._histogram import DEFAULT_BUCKETS, check_buckets
from pyresilience.events._names import MAX_FUNCTIONS, OTHER, check_max_functions, label_text, warn_of_overflow
from pyresilience.gauges import GAUGES, Reading, check_namespace, readings

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "pyresilience.contrib.prometheus needs the Prometheus client: pip install prometheus-client"
    ) from error

if TYPE_CHECKING:
    from pyresilience.events._bus import Facts
    from pyresilience.events._events import EventType, ResilienceEvent

__all__ = ["PrometheusListener", "ResilienceCollector"]


class _Series:
    """The children of one function, so that an event does not look them up by labels."""

    __slots__ = ("counters", "durations", "label")

    def __init__(self, label: str) -> None:
        self.label = label
        self.counters: dict[EventType, Counter] = {}
        self.durations: Histogram | None = None


class _Metrics:
    """The metrics of one namespace in one registry, shared by all listeners of both.

    They take the facts of an event themselves, which saves the listener a call.
    """

    def __init__(
        self, namespace: str, registry: CollectorRegistry, buckets: tuple[float, ...], max_functions: int
    ) -> None:
        self.namespace = namespace
        self.buckets = buckets
        self._max_functions = max_functions
        self._lock = threading.Lock()
        self._series: dict[str, _Series] = {}
        self._warned = False
        self._events = Counter(
            f"{namespace}_events_total",
            "Resilience events by type and function.",
            ("event_type", "function_name"),
            registry=registry,
        )
        try:
            self._durations = Histogram(
                f"{namespace}_call_duration_seconds",
                "Duration of calls that succeeded.",
                ("function_name",),
                registry=registry,
                buckets=buckets,
            )
        except ValueError:
            registry.unregister(self._events)
            raise

    def __repr__(self) -> str:
        return f"PrometheusListener({self.namespace!r})"

    def take_facts(
        self,
        event_type: EventType,
        function_name: str,
        _attempt: int,
        _error: BaseException | None,
        _detail: str,
        duration: float | None,
    ) -> None:
        """Count one event; the duration is in seconds."""
        series = self._series.get(function_name) or self._find(function_name)
        counter = series.counters.get(event_type)
        if counter is None:
            # Two threads may both do this; they get the same child.
            counter = self._events.labels(event_type.value, series.label)
            series.counters[event_type] = counter
        counter.inc()
        if duration is not None:
            if series.durations is None:
                series.durations = self._durations.labels(series.label)
            series.durations.observe(duration)

    def _find(self, name: str) -> _Series:
        """The series of a name that was not seen before, is not used as it is, or comes too late."""
        label = label_text(name)
        overflow = False
        with self._lock:
            series = self._series.get(label)
            if series is None:
                names = len(self._series) - (OTHER in self._series)
                if names >= self._max_functions and label != OTHER:
                    label = OTHER
                    overflow, self._warned = not self._warned, True
                series = self._series.setdefault(label, _Series(label))
        if overflow:
            warn_of_overflow("PrometheusListener", self._max_functions, label_text(name))
        return series


_metrics: weakref.WeakKeyDictionary[CollectorRegistry, dict[str, _Metrics]] = weakref.WeakKeyDictionary()
_metrics_lock = threading.Lock()


def _shared_metrics(
    namespace: str, registry: CollectorRegistry, buckets: tuple[float, ...] | None, max_functions: int
) -> _Metrics:
    """New metrics, or those that are registered already under this namespace, if they are ours."""
    with _metrics_lock:
        ours = _metrics.setdefault(registry, {})
        try:
            metrics = ours[namespace] = _Metrics(namespace, registry, buckets or DEFAULT_BUCKETS, max_functions)
        except ValueError:
            if namespace not in ours:
                raise
            metrics = ours[namespace]
    if buckets is not None and buckets != metrics.buckets:
        raise ValueError(
            f"PrometheusListener.buckets of namespace {namespace!r} must be the {metrics.buckets!r} that they already "
            f"are, not {buckets!r}"
        )
    return metrics


class PrometheusListener:
    """A listener that counts events with `prometheus_client`.

    - `<namespace>_events_total`, a counter by `event_type` and `function_name`;
    - `<namespace>_call_duration_seconds`, a histogram by `function_name` of the calls that succeeded.

    Listeners of one namespace and registry share these metrics, and the limits that the first of them set.

    Args:
        namespace: begins the names of the metrics.
        registry: where they are registered; the client's default registry by default.
        buckets: upper bounds of the histogram in seconds.
        max_functions: names counted on their own; events of any further ones are counted as `__other__`, and a
            warning is logged once.

    Raises:
        TypeError: an argument is not of the type it has to be.
        ValueError: an argument is out of bounds; the registry has metrics of these names that belong to somebody
            else; or `buckets` differ from those of this namespace.
    """

    def __init__(
        self,
        namespace: str = "pyresilience",
        registry: CollectorRegistry | None = None,
        buckets: Iterable[float] | None = None,
        *,
        max_functions: int = MAX_FUNCTIONS,
    ) -> None:
        check_namespace("PrometheusListener.namespace", namespace)
        check_max_functions("PrometheusListener", max_functions)
        bounds = None if buckets is None else check_buckets("PrometheusListener", buckets)
        registry = REGISTRY if registry is None else registry
        if not isinstance(registry, CollectorRegistry):
            raise TypeError(f"PrometheusListener.registry must be a CollectorRegistry, not {registry!r}")
        self.namespace = namespace
        self._metrics = _shared_metrics(namespace, registry, bounds, max_functions)

    def __repr__(self) -> str:
        return repr(self._metrics)

    def __call__(self, event: ResilienceEvent, /) -> None:
        self._take_facts(event.event_type, event.function_name, event.attempt, None, "", event.duration)

    @property
    def _take_facts(self) -> Facts:
        return self._metrics.take_facts


class ResilienceCollector(Collector):
    """Shows the state of the named pipelines of this process in an existing Prometheus registry.

    ```python
    from prometheus_client import REGISTRY

    REGISTRY.register(ResilienceCollector())
    ```

    The gauges, all by `function_name`, the name of the pipeline, are `<namespace>_circuit_breaker_state`,
    `<namespace>_in_flight`, `<namespace>_bulkhead_limit`, `<namespace>_bulkhead_in_use` and
    `<namespace>_rate_limiter_available`. They are read when somebody scrapes; nothing is counted in between, and
    reading takes no token and no probe. Pipelines of one name count as one: the worst circuit is shown, bulkheads
    are added up, and a limiter is available when all are. In the multiprocess mode of the client only the process
    that answers is shown.

    Args:
        namespace: begins the names of the metrics.
        max_functions: names shown on their own; any further ones, in alphabetical order, are shown as `__other__`.

    Raises:
        TypeError, ValueError: an argument is not what it has to be.
    """

    def __init__(self, namespace: str = "pyresilience", *, max_functions: int = MAX_FUNCTIONS) -> None:
        check_namespace("ResilienceCollector.namespace", namespace)
        self._max_functions = check_max_functions("ResilienceCollector", max_functions)
        self.namespace = namespace

    def __repr__(self) -> str:
        return f"ResilienceCollector({self.namespace!r})"

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauges without values: a registry asks for their names when it registers this."""
        return self._families({})

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges as they are now."""
        return self._families(readings(label_text, self._max_functions))

    def _families(self, found: dict[str, Reading]) -> Iterator[GaugeMetricFamily]:
        for name, documentation, value_of in GAUGES:
            family = GaugeMetricFamily(f"{self.namespace}_{name}", documentation, labels=("function_name",))
            for label, reading in found.items():
                value = value_of(reading)
                if value is not None:
                    family.add_metric((label,), value)
            yield family
