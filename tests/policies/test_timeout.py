"""Timeout: attempts and whole calls, functions of both colours."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import threading
from math import inf

import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    Pipeline,
    ResilienceTimeoutError,
    RetryConfig,
    Timeout,
    TimeoutConfig,
    remaining_time,
)
from pyresilience.testing import EventRecorder
from tests.lab import After, every_runtime


@every_runtime
async def test_an_attempt_ends_at_its_limit(lab):
    fn = lab.function(After(10, "late"))
    error = await lab.outcome(lab.pipeline(TimeoutConfig(seconds=2))(fn))
    assert isinstance(error, ResilienceTimeoutError) and isinstance(error, TimeoutError)
    assert (error.seconds, lab.now) == (2, 2)
    assert str(error) == "function: attempt timed out after 2.00s"
    assert lab.events.sequence == [("timeout", 1), ("failure", 1)]
    assert lab.events.events[0].error is error and lab.events.events[1].error is error


@every_runtime
async def test_each_attempt_has_the_whole_limit(lab):
    fn = lab.function(After(10), After(1, "ok"))
    guarded = lab.pipeline(RetryConfig(delay=1, jitter=False), TimeoutConfig(2))(fn)
    assert await lab.call(guarded) == "ok"
    assert lab.now == 4
    assert lab.events.sequence == [("timeout", 1), ("retry", 1), ("success", 2)]


@every_runtime
async def test_timeouts_until_retries_run_out(lab):
    guarded = lab.pipeline(RetryConfig(max_attempts=2, delay=0), TimeoutConfig(1))(lab.function(After(10)))
    await lab.outcome(guarded)
    assert lab.events.sequence == [
        ("timeout", 1),
        ("retry", 1),
        ("timeout", 2),
        ("retry_exhausted", 2),
        ("failure", 2),
    ]


@pytest.mark.parametrize("config", [TimeoutConfig(5, per_attempt=False), TimeoutConfig(60, total=5)])
def test_a_whole_call_ends_at_its_limit_wherever_the_config_stands(lab, config):
    @every_runtime
    async def scenario(lab):
        fn = lab.function(After(1.5, OSError()))
        guarded = lab.pipeline(RetryConfig(max_attempts=9, delay=0.5, jitter=False, backoff_factor=1), config)(fn)
        error = await lab.outcome(guarded)
        assert isinstance(error, ResilienceTimeoutError), error
        assert (lab.now, fn.calls, error.seconds) == (5, 3, 5)
        assert lab.events.sequence == [("retry", 1), ("retry", 2), ("timeout", 3), ("failure", 3)]
        assert lab.events.events[2].detail.startswith("call timed out after 5.00s")

    scenario(lab)


@every_runtime
async def test_the_earlier_of_two_limits_counts(lab):
    for seconds, total, expected in ((1, 3, 1), (3, 1, 1)):
        began = lab.now
        error = await lab.outcome(lab.pipeline(TimeoutConfig(seconds, total=total))(lab.function(After(10))))
        assert lab.now - began == 1 and error.seconds == expected


@every_runtime
async def test_nested_limits_in_any_order(lab):
    for outer, inner in ((1, 5), (5, 1), (2, 2)):
        began = lab.now
        error = await lab.outcome(lab.pipeline(TimeoutConfig(outer), TimeoutConfig(inner))(lab.function(After(10))))
        assert isinstance(error, ResilienceTimeoutError)
        assert lab.now - began == min(outer, inner)


@every_runtime
async def test_infinity_is_no_limit(lab):
    guarded = lab.pipeline(TimeoutConfig(inf), TimeoutConfig(inf, per_attempt=False))(lab.function(After(1e6, "ok")))
    assert await lab.call(guarded) == "ok"


class Lenient(Timeout):
    """Lets the first attempt take its time."""

    def __call__(self, call, call_next):
        return call_next(call) if call.attempt == 1 else super().__call__(call, call_next)


@every_runtime
@pytest.mark.parametrize("outer", [(), (RetryConfig(max_attempts=2, delay=0),)])
async def test_a_timeout_of_ones_own_has_its_say(lab, outer):
    guarded = lab.pipeline(*outer, Lenient(TimeoutConfig(2)))(lab.function(After(10, OSError("slow"))))
    assert isinstance(await lab.outcome(guarded), ResilienceTimeoutError if outer else OSError)
    assert lab.now == (12 if outer else 10)


PLAIN_ASYNCIO = """
import asyncio, sys
from pyresilience import ResilienceTimeoutError, RetryConfig, TimeoutConfig, resilient

@resilient(retry=RetryConfig(max_attempts=2, delay=0), timeout=TimeoutConfig(seconds=0.01, total=5))
async def call(seconds):
    await asyncio.sleep(seconds)
    return "ok"

async def main():
    assert await call(0) == "ok"
    try:
        await call(60)
    except ResilienceTimeoutError as error:
        return error.seconds == 0.01 and "trio" not in sys.modules

raise SystemExit(42 if asyncio.run(main()) else 1)
"""


def test_where_trio_was_never_imported_a_task_is_not_asked_for():
    assert subprocess.run([sys.executable, "-c", PLAIN_ASYNCIO], timeout=20).returncode == 42


@every_runtime
async def test_a_timeout_error_of_the_function_is_not_taken_for_ours(lab):
    error = await lab.outcome(lab.pipeline(TimeoutConfig(5))(lab.function(TimeoutError("theirs"))))
    assert type(error) is TimeoutError
    assert lab.events.sequence == [("failure", 1)]


@every_runtime
async def test_the_function_can_ask_what_remains(lab):
    seen = []
    if lab.blocking:

        def fn():
            lab.time.sleep(1)
            seen.append(remaining_time())
    else:

        async def fn():
            await lab.sleep(1)
            seen.append(remaining_time())

    for config in (TimeoutConfig(5), TimeoutConfig(60, total=5), TimeoutConfig(5, in_thread=False), TimeoutConfig(inf)):
        await lab.call(lab.pipeline(config)(fn))
    assert seen == [pytest.approx(4)] * 3 + [inf]


def test_nothing_remains_to_be_asked_outside_a_guarded_call(time):
    assert remaining_time() == inf


# ---------------------------------------------------------------- sync functions


def test_a_sync_function_with_a_limit_runs_in_a_worker_thread(time):
    here = threading.get_ident()
    assert Pipeline(TimeoutConfig(5)).call_sync(threading.get_ident) != here
    assert Pipeline(RetryConfig()).call_sync(threading.get_ident) == here


def test_the_opt_out_keeps_the_thread_and_bounds_only_what_is_between_attempts(time):
    """As a connection of sqlite3 needs."""
    connection = sqlite3.connect(":memory:")
    query = lambda: connection.execute("select 1").fetchone()  # noqa: E731
    with pytest.raises(sqlite3.ProgrammingError):
        Pipeline(TimeoutConfig(5)).call_sync(query)
    assert Pipeline(TimeoutConfig(5, in_thread=False)).call_sync(query) == (1,)
    connection.close()

    def slow(error=None):
        time.sleep(3)
        if error:
            raise error
        return "late but done"

    began = time.seconds
    assert Pipeline(TimeoutConfig(1, in_thread=False)).call_sync(slow) == "late but done"
    with pytest.raises(ConnectionError):
        Pipeline(RetryConfig(delay=1, jitter=False), TimeoutConfig(60, total=5, in_thread=False)).call_sync(
            slow, ConnectionError()
        )
    assert time.seconds - began == 3 + 3 + 1 + 3


def test_a_pool_of_its_own_bounds_abandoned_threads(time):
    events = EventRecorder()
    pipeline = Pipeline(TimeoutConfig(1, pool_size=2), listeners=[events])
    for _ in range(2):
        with pytest.raises(ResilienceTimeoutError):
            pipeline.call_sync(time.sleep, 100)
    with pytest.raises(BulkheadFullError, match="all 2 worker threads run functions that were abandoned") as caught:
        pipeline.call_sync(lambda: 1)
    assert caught.value.layer == "worker_pool"
    assert events.events[-1].detail == "abandoned"
    assert events.events[-1].event_type == "bulkhead_rejected", "the rejection is the end: the function never ran"
    time.sleep(100)
    assert pipeline.call_sync(lambda: 1) == 1


def test_no_event_and_no_layer_after_the_caller_has_its_answer(time):
    events = EventRecorder()
    runs = []

    def work():
        runs.append(time.seconds)
        time.sleep(0.6)
        raise OSError

    pipeline = Pipeline(RetryConfig(max_attempts=8, delay=0), TimeoutConfig(60, total=1), listeners=[events])
    with pytest.raises(ResilienceTimeoutError):
        pipeline.call_sync(work)
    count = len(events.events)
    time.sleep(100)
    assert len(runs) == 2 and len(events.events) == count


def test_nested_sync_limits_never_starve_each_other(time):
    """Callers as many as threads, each guarded twice."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=8))
    pipeline = Pipeline(TimeoutConfig(5, pool_size=4), bulkhead, TimeoutConfig(2, pool_size=4))

    def one():
        return pipeline.call_sync(lambda: "done")

    threads = [time.spawn(one) for _ in range(8)]
    assert [thread.join() for thread in threads] == ["done"] * 8
    assert bulkhead.statistics().in_use == 0


def test_a_deadline_around_the_call_is_not_taken_for_its_own(time):
    """The inner pipeline has ten seconds, the function it is called in has two."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=100))
    holder = time.spawn(Pipeline(bulkhead).call_sync, time.sleep, 50)
    time.sleep(1)
    events = EventRecorder()
    inner = Pipeline(TimeoutConfig(10), bulkhead, listeners=[events])
    outer = Pipeline(TimeoutConfig(2, in_thread=False))
    with pytest.raises(ResilienceTimeoutError, match="a deadline around the call has passed"):
        outer.call_sync(inner.call_sync, lambda: "never")
    assert time.seconds == 1003
    assert events.sequence == [("timeout", 1), ("failure", 1)]
    holder.join()


def test_the_error_pickles():
    error = pickle.loads(pickle.dumps(ResilienceTimeoutError("late", seconds=2.0)))
    assert (str(error), error.seconds, type(error)) == ("late", 2.0, ResilienceTimeoutError)


def test_readable():
    assert repr(Timeout(TimeoutConfig(1.5))) == "Timeout(1.5s)"
