from __future__ import annotations

import gc
import json
import logging
import math
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyresilience import CacheConfig, EventType, FallbackConfig, Pipeline, ResilienceEvent, RetryConfig
from pyresilience.events._metrics import _BATCH, DurationSnapshot, MetricsCollector, MetricsSnapshot
from pyresilience.events._names import OTHER, label_text


def count(metrics, kind, times=1, name="my_function", duration=None):
    for _ in range(times):
        metrics(ResilienceEvent(kind, name, 1, duration=duration))


def test_the_summary_is_the_documented_one():
    metrics = MetricsCollector()
    count(metrics, EventType.SUCCESS, 120)
    count(metrics, EventType.RETRY, 25)
    count(metrics, EventType.FAILURE, 5)
    assert metrics.summary() == {
        "total_events": 150,
        "event_counts": {"success": 120, "retry": 25, "failure": 5},
        "success_rate": 0.8,
        "call_success_rate": 0.96,
        "functions": {"my_function": {"total": 150, "success": 120, "failure": 5}},
    }
    json.dumps(metrics.summary())


def test_an_empty_collector_has_an_empty_summary():
    assert MetricsCollector().summary() == {
        "total_events": 0,
        "event_counts": {},
        "success_rate": 0.0,
        "call_success_rate": 0.0,
        "functions": {},
    }


def test_counts_are_kept_by_function():
    metrics = MetricsCollector()
    count(metrics, EventType.RETRY, 2, "a")
    count(metrics, EventType.FAILURE, 1, "b")
    assert metrics.get_counts("a") == {"retry": 2}
    assert metrics.get_counts("b") == {"failure": 1}
    assert metrics.get_counts("unknown") == {}
    assert metrics.summary()["functions"]["a"] == {"total": 2, "success": 0, "failure": 0}


def test_call_success_rate_looks_only_at_calls_that_ran():
    """Refusals, cache hits and cancelled calls say nothing about the function."""
    metrics = MetricsCollector()
    for kind in EventType:
        count(metrics, kind)
    assert metrics.summary()["call_success_rate"] == 1 / 3
    assert metrics.summary()["success_rate"] == 1 / len(EventType)


def test_latencies_are_those_of_successful_calls():
    metrics = MetricsCollector()
    for milliseconds in range(1, 101):
        count(metrics, EventType.SUCCESS, duration=milliseconds / 1000)
    count(metrics, EventType.SLOW_CALL, duration=99.0)
    latencies = metrics.get_latencies("my_function")
    assert list(latencies) == ["p50", "p95", "p99", "min", "max"]
    assert latencies == {
        "p50": pytest.approx(0.050, rel=0.01),
        "p95": pytest.approx(0.095, rel=0.01),
        "p99": pytest.approx(0.099, rel=0.01),
        "min": 0.001,
        "max": 0.1,
    }


def test_without_successes_there_are_no_latencies():
    metrics = MetricsCollector()
    count(metrics, EventType.FAILURE)
    count(metrics, EventType.SUCCESS, name="untimed")
    count(metrics, EventType.SUCCESS, name="nonsense", duration=math.nan)
    for name in ("my_function", "untimed", "nonsense", "unknown"):
        assert metrics.get_latencies(name) == {}
    assert metrics.get_counts("untimed") == {"success": 1} == metrics.get_counts("nonsense")


def test_types_are_listed_as_they_were_first_seen():
    metrics = MetricsCollector()
    for kind, duration in ((EventType.RETRY, None), (EventType.SUCCESS, 1.0), (EventType.FAILURE, None)):
        count(metrics, kind, duration=duration)
    assert list(metrics.summary()["event_counts"]) == ["retry", "success", "failure"]


def test_a_duration_that_is_no_number_is_refused_at_once_where_it_counts():
    metrics = MetricsCollector()
    count(metrics, EventType.FAILURE, duration="soon")
    with pytest.raises((TypeError, ValueError)):
        count(metrics, EventType.SUCCESS, duration="soon")
    count(metrics, EventType.SUCCESS, duration=2)
    assert metrics.get_counts("my_function") == {"failure": 1, "success": 1}


def test_reset_forgets_everything():
    metrics = MetricsCollector()
    count(metrics, EventType.SUCCESS, duration=1.0)
    metrics.reset()
    assert metrics.get_counts("my_function") == {} and metrics.get_latencies("my_function") == {}
    assert metrics.snapshot() == MetricsSnapshot({}, {})
    count(metrics, EventType.SUCCESS)
    assert metrics.summary()["total_events"] == 1


def test_a_snapshot_has_cumulative_buckets_up_to_infinity():
    metrics = MetricsCollector(buckets=(0.1, 1))
    for duration in (0.05, 0.1, 0.5, 3.0):
        count(metrics, EventType.SUCCESS, duration=duration)
    count(metrics, EventType.RETRY, name="other")
    assert metrics.snapshot() == MetricsSnapshot(
        {"my_function": {"success": 4}, "other": {"retry": 1}},
        {"my_function": DurationSnapshot(((0.1, 2), (1.0, 3), (math.inf, 4)), 4, pytest.approx(3.65))},
    )


def test_a_snapshot_stays_as_it_was():
    metrics = MetricsCollector()
    count(metrics, EventType.SUCCESS, duration=1.0)
    snapshot = metrics.snapshot()
    count(metrics, EventType.SUCCESS, duration=1.0)
    assert snapshot.counts["my_function"] == {"success": 1} and snapshot.durations["my_function"].count == 1


def test_names_beyond_the_cap_are_counted_together_with_one_warning(caplog):
    metrics = MetricsCollector(max_functions=2)
    for name in ("a", "b", "c", "d", "a", OTHER):
        count(metrics, EventType.SUCCESS, name=name)
    assert metrics.snapshot().counts == {"a": {"success": 2}, "b": {"success": 1}, OTHER: {"success": 3}}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "more than 2 function names" in caplog.text and "'c'" in caplog.text


def test_a_function_that_is_called_like_the_overflow_takes_no_place():
    metrics = MetricsCollector(max_functions=1)
    count(metrics, EventType.SUCCESS, name=OTHER)
    count(metrics, EventType.SUCCESS, name="a")
    assert set(metrics.snapshot().counts) == {"a", OTHER}


def test_names_can_be_encoded_and_are_bounded_in_length():
    """One lone surrogate would break every later scrape."""
    metrics = MetricsCollector()
    for name in ("bad\udc80", "x" * 10_000, "grüße"):
        count(metrics, EventType.SUCCESS, 2, name)
    names = list(metrics.snapshot().counts)
    assert names == ["bad\\udc80", "x" * 200, "grüße"]
    assert all(name.encode() for name in names)
    assert metrics.get_counts("bad\udc80") == {"success": 2} == metrics.get_counts("x" * 10_000)
    assert label_text("plain") == "plain"


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "bad\udc80", "x" * 300, OTHER]),
            st.sampled_from([EventType.SUCCESS, EventType.RETRY]),
            st.sampled_from([None, 0.5, 3.0]),
        )
    )
)
def test_any_sequence_of_events_is_counted_as_by_hand(happened):
    metrics = MetricsCollector(max_functions=2, buckets=(1.0,))
    counts, durations = {}, {}
    for name, kind, duration in happened:
        metrics(ResilienceEvent(kind, name, 1, duration=duration))
        label = label_text(name)
        if label not in counts and len(counts.keys() - {OTHER}) >= 2:
            label = OTHER
        series = counts.setdefault(label, {})
        series[kind.value] = series.get(kind.value, 0) + 1
        if kind is EventType.SUCCESS and duration is not None:
            durations.setdefault(label, []).append(duration)
    snapshot = metrics.snapshot()
    assert snapshot.counts == counts
    assert {name: (seen.count, seen.sum, seen.buckets[0][1]) for name, seen in snapshot.durations.items()} == {
        name: (len(values), sum(values), values.count(0.5)) for name, values in durations.items()
    }


def test_counting_from_many_threads_loses_nothing_and_every_snapshot_is_consistent():
    metrics = MetricsCollector(max_functions=3)
    threads = [threading.Thread(target=work, args=(metrics, number)) for number in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            snapshot = metrics.snapshot()
            for name, durations in snapshot.durations.items():
                assert durations.buckets[-1][1] == durations.count == snapshot.counts[name]["success"]
    finally:
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    summary = metrics.summary()
    assert summary["total_events"] == 4 * 2000
    assert summary["event_counts"] == {"success": 4 * 1000, "retry": 4 * 1000}
    assert set(summary["functions"]) == {"f0", "f1", "f2", OTHER}


def work(metrics, number):
    for step in range(1000):
        count(metrics, EventType.SUCCESS, name=f"f{(number + step) % 5 if step > 4 else step}", duration=0.01 * step)
        count(metrics, EventType.RETRY, name=f"f{(number + step) % 5 if step > 4 else step}")


class Watched(dict):
    """Says when something is counted."""

    def __init__(self, counted):
        self.counted = counted

    def __setitem__(self, kind, number):
        self.counted(kind)
        super().__setitem__(kind, number)


def owned(lock):
    return lock._is_owned()


def test_events_are_counted_in_their_order_under_the_lock_some_at_a_time():
    """A lost update is too rare to be seen by running threads against each other."""
    metrics = MetricsCollector()
    count(metrics, EventType.RETRY)
    counted, kinds = [], [*EventType] * 5
    metrics._series["my_function"]._counts = Watched(lambda kind: counted.append((kind, owned(metrics._lock))))
    for kind in kinds:
        count(metrics, kind)
        assert len(metrics._waiting) < _BATCH
    metrics.summary()
    assert counted == [(kind, True) for kind in (EventType.RETRY, *kinds)] and not owned(metrics._lock)


def test_who_is_interrupted_in_counting_may_be_used_again_by_the_same_thread():
    """As by the guarded calls of a signal handler."""
    metrics = MetricsCollector()
    count(metrics, EventType.RETRY)
    again = []

    def handler(kind):
        if not again:
            again.append(kind)
            count(metrics, EventType.RETRY, 3 * _BATCH)
            assert metrics.get_counts("my_function") == {}

    metrics._series["my_function"]._counts = Watched(handler)
    assert metrics.get_counts("my_function") == {"retry": 1} and again
    assert metrics.get_counts("my_function") == {"retry": 1 + 3 * _BATCH}


def test_nothing_is_counted_while_somebody_reads():
    metrics = MetricsCollector()
    count(metrics, EventType.SUCCESS, duration=1.0)

    def look(series):
        count(metrics, EventType.SUCCESS, _BATCH, duration=1.0)
        return series["my_function"].counts()

    assert metrics._read(look) == {EventType.SUCCESS: 1}
    assert metrics.get_counts("my_function") == {"success": 1 + _BATCH}


def test_an_interrupt_loses_one_event_at_the_most():
    metrics = MetricsCollector()
    count(metrics, EventType.RETRY)
    series = metrics._series["my_function"]
    interrupts = iter([False, True])

    def interrupt(kind):
        if next(interrupts, False):
            raise KeyboardInterrupt

    series._counts = Watched(interrupt)
    count(metrics, EventType.RETRY, 3)
    with pytest.raises(KeyboardInterrupt):
        metrics.summary()
    assert metrics.get_counts("my_function") == {"retry": 3} and not owned(metrics._lock)
    count(metrics, EventType.RETRY, 2 * _BATCH)
    assert len(metrics._waiting) == 0


def test_an_interrupt_while_somebody_reads_leaves_no_lock_behind():
    metrics = MetricsCollector()

    def interrupted(series):
        raise KeyboardInterrupt

    kept = []
    for _ in range(3):
        try:
            metrics._read(interrupted)
        except KeyboardInterrupt as error:
            kept.append(error)
        assert not owned(metrics._lock)
    count(metrics, EventType.RETRY, 2 * _BATCH)
    assert len(metrics._waiting) == 0


def test_counting_goes_on_in_a_child_that_a_signal_handler_has_forked():
    metrics = MetricsCollector()
    count(metrics, EventType.RETRY)
    calls = iter([True])

    def handler(kind):
        if next(calls, False):
            metrics.reset_after_fork()
            count(metrics, EventType.RETRY, _BATCH)
            metrics.summary()

    metrics._series["my_function"]._counts = Watched(handler)
    count(metrics, EventType.RETRY, 3)
    assert metrics.get_counts("my_function") == {"retry": 4}
    assert metrics.get_counts("my_function") == {"retry": 4 + _BATCH}


def test_what_waits_is_bounded_however_long_somebody_counts():
    """Threads that would add to it wait until the one that counts goes on."""
    metrics = MetricsCollector()
    threads = [threading.Thread(target=count, args=(metrics, EventType.SUCCESS, 1000)) for _ in range(4)]
    with metrics._lock:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(0.02)
        assert all(thread.is_alive() for thread in threads)
        assert len(metrics._waiting) < _BATCH + len(threads)
    for thread in threads:
        thread.join()
    assert metrics.get_counts("my_function") == {"success": 4000}


def test_counts_of_one_moment_fit_together():
    """Whoever has seen the inner call succeed has not always seen the outer one, but never the reverse."""
    metrics = MetricsCollector()
    for name in ("inner", "outer", "done"):
        count(metrics, EventType.SUCCESS, name=name, duration=1.0)

    def calls():
        for _ in range(3000):
            count(metrics, EventType.SUCCESS, name="inner", duration=1.0)
            count(metrics, EventType.SUCCESS, name="outer", duration=1.0)

    thread = threading.Thread(target=calls)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        while thread.is_alive():
            counts = metrics.snapshot().counts
            assert 0 <= counts["inner"]["success"] - counts["outer"]["success"] <= 1
    finally:
        sys.setswitchinterval(interval)
        thread.join()


@pytest.mark.parametrize(
    "read",
    [
        lambda metrics: metrics.get_counts("my_function")["success"],
        lambda metrics: metrics.summary()["event_counts"]["success"],
        lambda metrics: metrics.summary()["functions"]["my_function"]["success"],
        lambda metrics: metrics.snapshot().counts["my_function"]["success"],
        lambda metrics: metrics.snapshot().durations["my_function"].count,
        lambda metrics: round(metrics.get_latencies("my_function")["max"]),
    ],
)
def test_whoever_reads_sees_each_event_at_once(read):
    metrics = MetricsCollector()
    for number in range(1, 2 * _BATCH):
        count(metrics, EventType.SUCCESS, duration=float(number))
        assert read(metrics) == number


FORKING = """
import os, signal, threading
from pyresilience import EventType, ResilienceEvent
from pyresilience.events._metrics import MetricsCollector

metrics = MetricsCollector()
held, forked = threading.Event(), threading.Event()

def read():
    metrics._read(lambda series: held.set() or forked.wait())

threading.Thread(target=read).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    metrics(ResilienceEvent(EventType.SUCCESS, "f"))
    os._exit(42 if metrics.get_counts("f") == {"success": 1} else 1)
forked.set()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_process_can_count_although_it_was_forked_while_a_thread_did():
    assert subprocess.run([sys.executable, "-c", FORKING], timeout=20).returncode == 42


def test_a_collector_that_is_not_used_any_more_is_freed():
    from pyresilience.events import _metrics

    metrics = MetricsCollector()
    assert metrics in _metrics._collectors
    before = len(_metrics._collectors)
    del metrics
    gc.collect()
    assert len(_metrics._collectors) < before


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), ("9", TypeError)])
def test_a_bad_number_of_functions_is_refused_by_name(value, error):
    with pytest.raises(error, match=r"MetricsCollector\.max_functions must be"):
        MetricsCollector(max_functions=value)


def test_bad_buckets_are_refused_by_name():
    with pytest.raises(ValueError, match=r"MetricsCollector\.buckets"):
        MetricsCollector(buckets=())


async def test_it_listens_to_pipelines():
    metrics = MetricsCollector()
    steps = [ConnectionError("refused"), "ok"]

    async def fetch():
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    retry = RetryConfig(max_attempts=2, delay=1.0, jitter=False)
    pipeline = Pipeline(FallbackConfig("instead"), CacheConfig(), retry, listeners=[metrics])
    guarded = pipeline(fetch)
    assert [await guarded(), await guarded()] == ["ok", "ok"]
    assert metrics.get_counts("fetch") == {"cache_miss": 1, "retry": 1, "success": 1, "cache_hit": 1}
    assert metrics.get_latencies("fetch")["max"] == pytest.approx(1.0, abs=0.001)
    assert repr(metrics) == "MetricsCollector(1 functions)"
