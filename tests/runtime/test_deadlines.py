"""Deadlines of whole calls, and of sync functions, which can be abandoned but not cancelled."""

from __future__ import annotations

import threading

import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreakerConfig,
    EventType,
    FallbackConfig,
    Pipeline,
    ResilienceTimeoutError,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.testing import EventRecorder
from tests.lab import After, every_runtime

STEADY = RetryConfig(max_attempts=9, delay=1, backoff_factor=1, jitter=False)


class Tracer:
    """A layer that notes when a call passes it, inwards and outwards."""

    def __init__(self, lab, trace, mark):
        self.lab, self.trace, self.mark = lab, trace, mark

    async def __call__(self, call, call_next):
        self.trace.append((self.lab.now, f"{self.mark}("))
        try:
            return await call_next(call)
        finally:
            self.trace.append((self.lab.now, f"){self.mark}"))


@every_runtime
async def test_no_layer_and_no_event_after_the_caller_has_its_answer(lab):
    """A total of 4 s around attempts of 2 s whose function needs 10: two runs, and then nothing more, ever."""
    trace = []
    pipeline = lab.pipeline(
        Tracer(lab, trace, "a"),
        STEADY,
        Tracer(lab, trace, "b"),
        CircuitBreakerConfig(failure_threshold=100),
        TimeoutConfig(seconds=2, total=4),
        Tracer(lab, trace, "c"),
    )
    fn = lab.function(After(10, "late"))
    error = await lab.outcome(pipeline(fn))
    assert isinstance(error, ResilienceTimeoutError)
    assert lab.now == 4
    seen = len(trace), len(lab.events.events)
    assert trace == [
        (0, "a("), (0, "b("), (0, "c("), (2, ")c"), (2, ")b"), (3, "b("), (3, "c("), (4, ")c"), (4, ")b"), (4, ")a"),
    ]  # fmt: skip
    await lab.sleep(100)
    assert (len(trace), len(lab.events.events)) == seen
    assert fn.calls == 2


@every_runtime
async def test_an_expired_total_deadline_means_that_the_function_is_not_run(lab):
    """What stands outside the deadline used it up."""

    class Slow:
        outside_deadline = True

        async def __call__(self, call, call_next):
            await lab.sleep(5)
            return await call_next(call)

    fn = lab.function("ok")
    error = await lab.outcome(lab.pipeline(Slow(), TimeoutConfig(seconds=1, per_attempt=False))(fn))
    assert isinstance(error, ResilienceTimeoutError)
    assert fn.calls == 0
    assert lab.events.types == [EventType.TIMEOUT, EventType.FAILURE]


@every_runtime
async def test_a_total_deadline_ends_a_backoff_sleep_that_it_did_not_foresee(lab):
    """The wait was chosen when there was time for it, but the layer outside took some more."""

    async def dawdle(call, call_next):
        try:
            return await call_next(call)
        except ValueError:
            await call.sleep(60)
            raise

    pipeline = lab.pipeline(TimeoutConfig(seconds=2, per_attempt=False), dawdle)
    error = await lab.outcome(pipeline(lab.function(ValueError())))
    assert isinstance(error, ResilienceTimeoutError)
    assert lab.now == 2


@every_runtime
async def test_a_wait_for_a_permit_ends_at_the_total_deadline(lab):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=60))
    slow = Pipeline(bulkhead)(lab.function(After(10, "slow")))
    pipeline = lab.pipeline(TimeoutConfig(seconds=2, per_attempt=False), bulkhead)
    fn = lab.function("ok")
    quick = pipeline(fn)
    outcomes = await lab.together(lambda: lab.call(slow), lambda: lab.call(quick), apart=0.5)
    assert outcomes[0] == "slow"
    assert isinstance(outcomes[1], ResilienceTimeoutError)
    assert fn.calls == 0
    assert bulkhead.statistics().in_use == bulkhead.statistics().waiting == 0
    assert lab.events.types == [EventType.TIMEOUT, EventType.FAILURE]


@every_runtime
async def test_our_own_deadlines_are_failures_for_the_breaker_attempt_and_total_alike(lab):
    for limit in (TimeoutConfig(seconds=1), TimeoutConfig(seconds=1, per_attempt=False)):
        pipeline = lab.pipeline(CircuitBreakerConfig(failure_threshold=2, recovery_timeout=1000), limit)
        guarded = pipeline(lab.function(After(5, "late")))
        for _ in range(2):
            assert isinstance(await lab.outcome(guarded), ResilienceTimeoutError)
        opened = [event for event in lab.events.of(EventType.CIRCUIT_OPEN) if event.detail == "opened"]
        assert len(opened) == 1
        lab.events.clear()


@every_runtime
async def test_the_earliest_of_nested_pipelines_deadlines_wins(lab):
    """A guarded function calls another: each enforces its own, and the outer one cannot be extended."""
    for inner_seconds, outer_seconds in [(1, 3), (3, 1)]:
        began = lab.now
        where = []

        async def notes(call, call_next, where=where):
            try:
                return await call_next(call)
            except ResilienceTimeoutError:
                where.append("inner")
                raise

        middle = Pipeline(notes, TimeoutConfig(seconds=inner_seconds))(lab.function(After(10, "late")))
        error = await lab.outcome(Pipeline(TimeoutConfig(seconds=outer_seconds))(middle))
        assert isinstance(error, ResilienceTimeoutError)
        assert error.seconds == 1
        assert lab.now - began == pytest.approx(1)
        if inner_seconds < outer_seconds:
            assert where == ["inner"]
        await lab.sleep(20)


@every_runtime
async def test_two_timeouts_in_one_pipeline(lab):
    """As layers: the outer counts what stands between the two as well."""
    for outer, inner, expected in [(5, 1, "1.00s"), (1, 5, "1.00s"), (2, 2, "2.00s")]:
        lab.events.clear()
        pipeline = lab.pipeline(TimeoutConfig(seconds=outer), TimeoutConfig(seconds=inner))
        error = await lab.outcome(pipeline(lab.function(After(60, "late"))))
        assert isinstance(error, ResilienceTimeoutError)
        assert lab.events.of(EventType.TIMEOUT)[0].detail.startswith(f"attempt timed out after {expected}")
        assert [kind for kind in lab.events.types if kind is EventType.FAILURE] == [EventType.FAILURE]
    await lab.sleep(100)


def test_a_nested_call_in_a_worker_sees_what_remains_of_the_call_around_it(time):
    """Its retries do not begin a wait that the deadline outside would cut short."""
    events = EventRecorder()
    inner = Pipeline(STEADY, listeners=[events])

    def fails():
        raise ValueError

    @Pipeline(TimeoutConfig(seconds=2.5))
    def outer():
        return inner.call_sync(fails)

    began = time.seconds
    with pytest.raises(ValueError):
        outer()
    assert time.seconds - began == 2
    assert events.sequence == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]
    assert events.of(EventType.RETRY_EXHAUSTED)[0].detail == "no time for a wait of 1.00s: 0.50s left"


def test_a_nested_call_in_a_worker_waits_for_no_permit_beyond_the_call_around_it(time):
    """The place in line goes when the outer deadline passes, though nobody is left to be told."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=60))
    events = EventRecorder()
    inner = Pipeline(bulkhead, listeners=[events])

    @Pipeline(TimeoutConfig(seconds=2))
    def outer():
        return inner.call_sync(int)

    holder = time.spawn(Pipeline(bulkhead).call_sync, time.sleep, 30)
    time.sleep(1)
    with pytest.raises(ResilienceTimeoutError):
        outer()
    time.sleep(1)
    assert bulkhead.statistics().waiting == 0
    assert events.types == [EventType.TIMEOUT, EventType.FAILURE]
    holder.join()
    assert bulkhead.statistics().in_use == 0


def test_a_timeout_that_opted_out_of_threads_runs_in_the_callers_thread(time):
    """Its deadline is enforced between attempts and in waits, and what comes late is still an answer."""
    where = []

    @Pipeline(STEADY, TimeoutConfig(seconds=1, total=3, in_thread=False))
    def slow():
        where.append(threading.current_thread())
        time.sleep(1.2)
        if len(where) == 1:
            raise ValueError
        return "late"

    assert slow() == "late"
    assert where == [threading.current_thread()] * 2


@every_runtime
async def test_a_fallback_answers_for_the_deadline_of_the_whole_call(lab):
    pipeline = lab.pipeline(FallbackConfig(handler="instead"), TimeoutConfig(seconds=1, per_attempt=False))
    assert await lab.call(pipeline(lab.function(After(5, "late")))) == "instead"
    assert lab.now == 1
    assert lab.events.types == [EventType.TIMEOUT, EventType.FALLBACK_USED]
