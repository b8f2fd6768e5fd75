"""Counting events in memory."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, TypeVar

from pyresilience.events._events import EventType, ResilienceEvent
from pyresilience.events._histogram import DEFAULT_BUCKETS, DurationHistogram, check_buckets, cumulative
from pyresilience.events._names import MAX_FUNCTIONS, OTHER, check_max_functions, label_text, warn_of_overflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

_BATCH = 32
_SUCCESS = EventType.SUCCESS  # until 3.12 a function is called to find a member in its class


@dataclass(frozen=True, slots=True)
class DurationSnapshot:
    """Durations of the successful calls of one function.

    Attributes:
        buckets: pairs of upper bound in seconds and how many durations do not exceed it; the last bound is `inf`.
        count: how many there are, equal to the last bucket.
        sum: seconds, all together.
    """

    buckets: tuple[tuple[float, int], ...]
    count: int
    sum: float


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What a `MetricsCollector` has counted, at one moment.

    Attributes:
        counts: by function name and the value of the event type; only what was seen.
        durations: by function name; functions without a successful call are absent.
    """

    counts: Mapping[str, Mapping[str, int]]
    durations: Mapping[str, DurationSnapshot]


class FunctionSummary(TypedDict):
    """One function in `MetricsSummary`; `total` counts all its events."""

    total: int
    success: int
    failure: int


class MetricsSummary(TypedDict):
    """What `MetricsCollector.summary()` returns.

    Attributes:
        total_events: events of all types.
        event_counts: by the value of the event type; only what was seen.
        success_rate: `SUCCESS` events among all events, retries and state changes included.
        call_success_rate: calls that succeeded among those that ran and came to an end of their own: `SUCCESS` /
            (`SUCCESS` + `FAILURE` + `FALLBACK_USED`). Cache hits, cancelled calls and refusals count on neither side:
            they say nothing about the function, and a refusal does not tell whether a retry or a fallback followed.
        functions: by function name.

    Both rates are 0.0 while there is nothing to count.
    """

    total_events: int
    event_counts: dict[str, int]
    success_rate: float
    call_success_rate: float
    functions: dict[str, FunctionSummary]


class _Series:
    """What is known of one function."""

    __slots__ = ("_counts", "durations")

    def __init__(self) -> None:
        self._counts: dict[EventType, int] = {}  # but for the successes in `durations`
        self.durations: DurationHistogram | None = None

    def count(self, kind: EventType) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def begin_durations(self, bounds: tuple[float, ...]) -> DurationHistogram:
        self._counts.setdefault(_SUCCESS, 0)  # its place is where it was first seen
        self.durations = durations = DurationHistogram(bounds)
        return durations

    def counts(self) -> dict[EventType, int]:
        counts = self._counts.copy()
        if self.durations is not None:
            counts[_SUCCESS] += self.durations.count
        return counts

    def durations_now(self) -> DurationHistogram | None:
        return None if self.durations is None else self.durations.copy()


class MetricsCollector:
    """A listener that counts events and keeps the durations of successful calls, in bounded memory.

    Thread-safe; one collector may listen to any number of pipelines. Events wait in a queue, which needs no lock, and
    are counted in their order when there are 32 or when somebody reads. Reading never disturbs counting for longer
    than it takes to copy the numbers.

    Args:
        max_functions: names counted on their own; events of any further ones are counted as `__other__`, and a
            warning is logged once.
        buckets: upper bounds in seconds of the durations in `snapshot()`. Percentiles do not depend on them.

    Raises:
        TypeError, ValueError: an argument is not what it has to be.
    """

    def __init__(self, *, max_functions: int = MAX_FUNCTIONS, buckets: Iterable[float] = DEFAULT_BUCKETS) -> None:
        self._max_functions = check_max_functions("MetricsCollector", max_functions)
        self._bounds = check_buckets("MetricsCollector", buckets)
        self._lock = threading.RLock()  # a signal handler may make guarded calls of its own
        self._waiting: deque[tuple[_Series, EventType, float | None]] = deque()
        self._busy = 0  # the thread that counts or reads
        self._series: dict[str, _Series] = {}
        self._warned = False
        _collectors.add(self)

    def __repr__(self) -> str:
        return f"MetricsCollector({len(self._series)} functions)"

    def __call__(self, event: ResilienceEvent, /) -> None:
        kind, duration = event.event_type, event.duration
        if duration is not None:
            duration = float(duration) if kind is _SUCCESS else None
        self._take_facts(kind, event.function_name, event.attempt, None, "", duration)

    def _take_facts(
        self,
        event_type: EventType,
        function_name: str,
        _attempt: int,
        _error: BaseException | None,
        _detail: str,
        duration: float | None,
    ) -> None:
        """Count one event; the duration, in seconds, is that of a `SUCCESS`."""
        series = self._series.get(function_name) or self._find(function_name)
        waiting = self._waiting
        waiting.append((series, event_type, duration))
        if len(waiting) >= _BATCH:
            with self._lock:
                self._count()

    def _count(self) -> None:
        """Count what waits, one by one, so that an interrupt loses one at the most. The lock is held."""
        if self._busy:  # it is this thread, and a signal has come in between
            return
        self._busy = threading.get_ident()
        try:
            next_one = self._waiting.popleft
            for _ in range(len(self._waiting)):
                series, kind, duration = next_one()
                if duration is None or kind is not _SUCCESS:
                    series.count(kind)
                    continue
                durations = series.durations or series.begin_durations(self._bounds)
                if not durations.record(duration):
                    series.count(kind)
        finally:
            self._busy = 0

    def _find(self, name: str) -> _Series:
        """The series of a name that was not seen before, is not used as it is, or comes too late."""
        text = label_text(name)
        overflow = False
        with self._lock:
            series = self._series.get(text)
            if series is None:
                names = len(self._series) - (OTHER in self._series)
                if names >= self._max_functions and text != OTHER:
                    text = OTHER
                    overflow, self._warned = not self._warned, True
                series = self._series.setdefault(text, _Series())
        if overflow:
            warn_of_overflow("MetricsCollector", self._max_functions, label_text(name))
        return series

    def summary(self) -> MetricsSummary:
        """All counts and what follows from them."""
        counts = self._read(_counts)
        totals: dict[EventType, int] = {}
        for by_kind in counts.values():
            for kind, number in by_kind.items():
                totals[kind] = totals.get(kind, 0) + number
        success = totals.get(EventType.SUCCESS, 0)
        ended = success + totals.get(EventType.FAILURE, 0) + totals.get(EventType.FALLBACK_USED, 0)
        total = sum(totals.values())
        return {
            "total_events": total,
            "event_counts": _by_value(totals),
            "success_rate": success / total if total else 0.0,
            "call_success_rate": success / ended if ended else 0.0,
            "functions": {
                name: {
                    "total": sum(by_kind.values()),
                    "success": by_kind.get(EventType.SUCCESS, 0),
                    "failure": by_kind.get(EventType.FAILURE, 0),
                }
                for name, by_kind in counts.items()
            },
        }

    def get_counts(self, name: str) -> dict[str, int]:
        """How many events of which type a function had; empty for one that had none."""
        label = label_text(name)
        return self._read(lambda series: _by_value(series[label].counts()) if label in series else {})

    def get_latencies(self, name: str) -> dict[str, float]:
        """`p50`, `p95`, `p99`, `min` and `max` of a function's successful calls, in seconds; empty without any.

        `min` and `max` are exact, the percentiles at most 1 % off.
        """
        label = label_text(name)
        durations = self._read(lambda series: series[label].durations_now() if label in series else None)
        if durations is None or not durations.count:
            return {}
        p50, p95, p99 = durations.percentiles(50, 95, 99)
        return {"p50": p50, "p95": p95, "p99": p99, "min": durations.minimum, "max": durations.maximum}

    def snapshot(self) -> MetricsSnapshot:
        """All counts and durations of one moment, for exposition.

        Names can be encoded as UTF-8 and are bounded in length and number; they are not escaped for any format.
        """
        counts, durations = self._read(lambda series: (_counts(series), _durations(series)))
        return MetricsSnapshot(
            {name: _by_value(by_kind) for name, by_kind in counts.items()},
            {
                name: DurationSnapshot(cumulative(self._bounds, buckets), sum(buckets), seconds)
                for name, (buckets, seconds) in durations.items()
            },
        )

    def _read(self, look: Callable[[dict[str, _Series]], T]) -> T:
        """What `look` makes of all series, with everything counted that happened before, and nothing more."""
        with self._lock:
            self._count()
            busy, self._busy = self._busy, threading.get_ident()
            try:
                return look(self._series)
            finally:
                self._busy = busy

    def reset(self) -> None:
        """Forget everything that was counted."""
        with self._lock:
            self._series = {}

    def reset_after_fork(self) -> None:
        """A thread of the parent may have held the lock."""
        self._lock = threading.RLock()
        if self._busy != threading.get_ident():
            self._busy = 0


def _counts(series: dict[str, _Series]) -> dict[str, dict[EventType, int]]:
    return {name: one.counts() for name, one in list(series.items())}


def _durations(series: dict[str, _Series]) -> dict[str, tuple[list[int], float]]:
    return {
        name: (one.durations.counts(), one.durations.sum)
        for name, one in list(series.items())
        if one.durations is not None
    }


def _by_value(counts: Mapping[EventType, int]) -> dict[str, int]:
    return {kind.value: number for kind, number in counts.items()}


_collectors: weakref.WeakSet[MetricsCollector] = weakref.WeakSet()


def _after_fork() -> None:
    for collector in _collectors:
        collector.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
