"""Retry: which failures are tried again, how long it waits, and what surfaces in the end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyresilience import (
    BulkheadConfig,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    EventType,
    FallbackConfig,
    Pipeline,
    RateLimiterConfig,
    RateLimitExceededError,
    Retry,
    RetryBudget,
    RetryBudgetConfig,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.policies import backoff
from pyresilience.testing import EventRecorder, VirtualTime
from tests.lab import After, every_runtime

STEADY = RetryConfig(max_attempts=3, delay=1.0, jitter=False)


@every_runtime
async def test_a_failure_is_tried_again_until_it_succeeds(lab):
    fn = lab.function(ConnectionError("one"), ConnectionError("two"), "ok")
    assert await lab.call(lab.pipeline(STEADY)(fn)) == "ok"
    assert fn.times == [0, 1, 3]
    assert lab.events.sequence == [("retry", 1), ("retry", 2), ("success", 3)]
    assert [event.detail for event in lab.events.events[:2]] == ["retrying in 1.00s", "retrying in 2.00s"]
    assert str(lab.events.events[0].error) == "one"


@every_runtime
async def test_the_original_error_surfaces_with_one_note_of_the_attempts(lab):
    original = ConnectionError("down")
    fn = lab.function(original)
    guarded = lab.pipeline(STEADY)(fn)
    for _ in range(2):
        error = await lab.outcome(guarded)
        assert error is original
        assert error.__notes__ == ["pyresilience: gave up after 3 attempts"]
    assert lab.events.sequence[:4] == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]


@every_runtime
async def test_notes_of_others_stay(lab):
    original = ConnectionError("down")
    original.add_note("theirs")
    await lab.outcome(lab.pipeline(STEADY)(lab.function(original)))
    assert original.__notes__ == ["theirs", "pyresilience: gave up after 3 attempts"]


@every_runtime
async def test_an_error_that_is_not_retryable_surfaces_at_once_without_exhaustion(lab):
    fn = lab.function(KeyError("no"))
    error = await lab.outcome(lab.pipeline(RetryConfig(retry_on=(ConnectionError,)))(fn))
    assert isinstance(error, KeyError)
    assert fn.calls == 1
    assert lab.events.sequence == [("failure", 1)]
    assert not hasattr(error, "__notes__")


@every_runtime
async def test_ignore_on_beats_retry_on(lab):
    fn = lab.function(ConnectionRefusedError())
    await lab.outcome(lab.pipeline(RetryConfig(retry_on=(OSError,), ignore_on=(ConnectionRefusedError,)))(fn))
    assert fn.calls == 1


@every_runtime
async def test_a_single_attempt_is_exhausted_by_its_failure(lab):
    fn = lab.function(OSError())
    await lab.outcome(lab.pipeline(RetryConfig(max_attempts=1))(fn))
    assert lab.events.sequence == [("retry_exhausted", 1), ("failure", 1)]


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_not_an_exception_is_never_retried(time, fatal):
    calls = []

    @Pipeline(RetryConfig(retry_on=(BaseException,), delay=0))
    def function() -> None:
        calls.append(1)
        raise fatal

    with pytest.raises(fatal):
        function()
    assert len(calls) == 1


@every_runtime
async def test_memory_and_recursion_errors_are_retried_only_when_named(lab):
    for named, calls in (((Exception,), 1), ((RecursionError,), 2), ((MemoryError,), 1)):
        fn = lab.function(RecursionError())
        await lab.outcome(lab.pipeline(RetryConfig(max_attempts=2, retry_on=named))(fn))
        assert fn.calls == calls, named


@every_runtime
async def test_an_exception_group_is_retried_only_if_every_error_in_it_would_be(lab):
    both = ExceptionGroup("both", [ConnectionError(), ExceptionGroup("inner", [TimeoutError()])])
    mixed = ExceptionGroup("mixed", [ConnectionError(), KeyError()])
    for group, calls in ((both, 3), (mixed, 1)):
        fn = lab.function(group)
        await lab.outcome(lab.pipeline(RetryConfig(retry_on=(OSError, TimeoutError), delay=0))(fn))
        assert fn.calls == calls


# ---------------------------------------------------------------- results


@every_runtime
async def test_a_bad_result_is_retried_and_a_good_one_returned(lab):
    fn = lab.function("bad", "bad", "good")
    config = RetryConfig(delay=0, retry_on_result=lambda value: value == "bad")
    assert await lab.call(lab.pipeline(config)(fn)) == "good"
    assert lab.events.sequence == [("retry", 1), ("retry", 2), ("success", 3)]
    assert lab.events.events[0].error is None


@every_runtime
async def test_the_last_bad_result_is_returned_and_reported_as_failure(lab):
    fn = lab.function("bad")
    config = RetryConfig(delay=0, retry_on_result=lambda value: value == "bad")
    assert await lab.call(lab.pipeline(config)(fn)) == "bad"
    assert lab.events.sequence == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]
    assert lab.events.events[-1].error is None


@every_runtime
async def test_an_error_of_the_result_predicate_surfaces(lab):
    fn = lab.function("value")
    config = RetryConfig(retry_on_result=lambda value: value.nothing)
    assert isinstance(await lab.outcome(lab.pipeline(config)(fn)), AttributeError)
    assert fn.calls == 1


# ---------------------------------------------------------------- waiting


@every_runtime
async def test_no_wait_is_longer_than_max_delay(lab):
    fn = lab.function(*[OSError()] * 4, "ok")
    await lab.call(lab.pipeline(RetryConfig(max_attempts=5, delay=3, max_delay=5, jitter=False))(fn))
    assert fn.times == [0, 3, 8, 13, 18]


@every_runtime
async def test_delay_func_decides_within_bounds_and_none_means_the_backoff(lab):
    answers = {1: 2.5, 2: None, 3: 1e9, 4: -3, 5: math.nan, 6: "soon"}
    seen = []

    def delay_func(attempt, outcome):
        seen.append((attempt, type(outcome).__name__))
        return answers[attempt]

    fn = lab.function(*[OSError()] * 6, "ok")
    config = RetryConfig(max_attempts=7, delay=1, backoff_factor=1, max_delay=10, jitter=False, delay_func=delay_func)
    await lab.call(lab.pipeline(config)(fn))
    assert [late - early for early, late in zip(fn.times, fn.times[1:], strict=False)] == [2.5, 1, 10, 0, 1, 1]
    assert seen[0] == (1, "OSError")


@every_runtime
async def test_delay_func_gets_the_result_that_was_bad(lab):
    seen = []
    config = RetryConfig(
        retry_on_result=lambda value: value == 503, delay_func=lambda attempt, outcome: seen.append(outcome)
    )
    await lab.call(lab.pipeline(config)(lab.function(503, 200)))
    assert seen == [503]


@every_runtime
async def test_a_delay_func_that_raises_is_logged_and_does_not_replace_the_error(lab, caplog):
    def broken(attempt, outcome):
        raise ZeroDivisionError

    fn = lab.function(OSError("real"))
    error = await lab.outcome(lab.pipeline(RetryConfig(max_attempts=2, delay_func=broken))(fn))
    assert str(error) == "real" and fn.calls == 2
    assert "delay_func" in caplog.text


@every_runtime
async def test_no_retry_whose_wait_the_deadline_cannot_hold(lab):
    """Waiting for a moment after the deadline would only hide the last real error behind a timeout."""
    fn = lab.function(OSError("real"))
    guarded = lab.pipeline(RetryConfig(max_attempts=9, delay=2, jitter=False), TimeoutConfig(60, total=5))(fn)
    assert str(await lab.outcome(guarded)) == "real"
    assert fn.times == [0, 2] and lab.now == 2
    assert lab.events.events[-2].detail == "no time for a wait of 4.00s: 3.00s left"
    assert lab.events.sequence[-2:] == [("retry_exhausted", 2), ("failure", 2)]


@every_runtime
async def test_cancelled_attempts_of_an_outer_pipeline_bound_the_waits_of_an_inner_one(lab):
    """A retry inside the guarded function knows the deadline around it."""
    inner_fn = lab.function(OSError("real"))
    inner = lab.pipeline(RetryConfig(max_attempts=9, delay=4, jitter=False))(inner_fn)

    if lab.blocking:

        def outer_fn():
            return inner()
    else:

        async def outer_fn():
            return await inner()

    error = await lab.outcome(lab.pipeline(TimeoutConfig(10))(outer_fn))
    assert str(error) == "real"
    assert inner_fn.times == [0, 4]


@given(delay=st.floats(0, 1e6), factor=st.floats(0, 1e3), cap=st.floats(0, 1e6), attempt=st.integers(1, 100_000))
def test_backoff_never_overflows_nor_passes_its_cap(delay, factor, cap, attempt):
    assert 0 <= backoff.exponential(delay, factor, cap, attempt) <= cap


@given(st.floats(0, 1e6), st.floats(0, 1))
def test_jitter_draws_between_a_tenth_and_all_of_the_backoff(pause, u):
    assert pause * 0.1 * (1 - 1e-9) <= backoff.jittered(pause, u) <= pause * (1 + 1e-9)


@pytest.mark.parametrize(("u", "expected"), [(0.0, 0.1), (0.5, 0.55), (1.0, 1.0)])
def test_jittered_waits_show_in_the_event(u, expected):
    events = EventRecorder()
    with VirtualTime(random=u):

        @Pipeline(RetryConfig(max_attempts=2), listeners=[events])
        def function():
            raise OSError

        with pytest.raises(OSError):
            function()
    assert events.events[0].detail == f"retrying in {expected:.2f}s"


# ---------------------------------------------------------------- refusals further in


@every_runtime
async def test_an_open_circuit_is_not_retried(lab):
    fn = lab.function(OSError("real"))
    guarded = lab.pipeline(STEADY, CircuitBreakerConfig(failure_threshold=1))(fn)
    error = await lab.outcome(guarded)
    assert type(error).__name__ == "CircuitOpenError" and str(error.__cause__) == "real"
    assert fn.calls == 1
    assert lab.events.sequence == [("circuit_open", 1), ("retry", 1), ("circuit_open", 2), ("failure", 2)]


@every_runtime
async def test_an_open_circuit_is_not_retried_even_when_a_deadline_has_room_for_it(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(recovery_timeout=2))
    breaker.force_open()
    guarded = lab.pipeline(STEADY, breaker, TimeoutConfig(60, total=30))(lab.function("never"))
    assert type(await lab.outcome(guarded)).__name__ == "CircuitOpenError"
    assert lab.now == 0
    assert lab.events.sequence == [("circuit_open", 1)]


@every_runtime
async def test_a_full_bulkhead_is_not_retried_and_is_itself_the_end(lab):
    fn = lab.function(After(5))
    guarded = lab.pipeline(STEADY, BulkheadConfig(max_concurrent=1))(fn)
    results = await lab.together(*[lambda: lab.call(guarded)] * 2)
    assert {type(result) for result in results} == {str, BulkheadFullError} and fn.calls == 1
    assert [kind for kind, _ in lab.events.sequence] == ["bulkhead_rejected", "success"]


@every_runtime
async def test_a_rate_limit_is_retried_only_when_a_deadline_has_room_for_it(lab):
    limit = RateLimiterConfig(max_calls=1, period=2.0)
    for total, calls in ((None, 1), (1.0, 1), (5.0, 2)):
        lab.events.clear()
        fn = lab.function("ok")
        timeout = TimeoutConfig(60, total=total)
        guarded = lab.pipeline(STEADY, limit, timeout)(fn)
        assert await lab.call(guarded) == "ok"
        began = lab.now
        outcome = await lab.outcome(guarded)
        assert fn.calls == calls, total
        if calls == 2:
            assert outcome == "ok" and lab.now - began == 2
            assert lab.events.sequence[1:] == [("rate_limited", 1), ("retry", 1), ("success", 2)]
        else:
            assert isinstance(outcome, RateLimitExceededError) and outcome.retry_after == 2
            assert lab.events.sequence[1:] == [("rate_limited", 1)]


# ---------------------------------------------------------------- budget


@every_runtime
async def test_the_budget_is_asked_before_the_wait_and_the_last_error_surfaces_at_once(lab):
    budget = RetryBudget(RetryBudgetConfig(max_retries=1, refill_rate=0.001))
    fn = lab.function(OSError("real"))
    guarded = lab.pipeline(Retry(STEADY, budget=budget))(fn)
    assert str(await lab.outcome(guarded)) == "real"
    assert fn.times == [0, 1] and lab.now == 1
    assert lab.events.events[-2].detail == "retry budget exhausted"
    assert budget.available == 0


@every_runtime
async def test_a_budget_is_shared_by_functions_and_refills(lab):
    budget = RetryBudget(RetryBudgetConfig(max_retries=2, refill_rate=0.5))
    config = RetryConfig(max_attempts=2, delay=0)
    fns = [lab.function(OSError()) for _ in range(3)]
    for fn in fns:
        await lab.outcome(lab.pipeline(Retry(config, budget=budget))(fn))
    assert [fn.calls for fn in fns] == [2, 2, 1]
    await lab.sleep(2)
    assert budget.acquire() and not budget.acquire()


def test_a_budget_never_holds_more_than_its_size(time):
    budget = RetryBudget(RetryBudgetConfig(max_retries=3, refill_rate=10))
    time.jump(1e6)
    assert budget.available == 3
    assert [budget.acquire() for _ in range(4)] == [True, True, True, False]
    assert repr(budget) == "RetryBudget(available=0 of 3)"


def test_a_budget_that_is_no_budget_is_refused():
    with pytest.raises(TypeError, match="budget must be a RetryBudget"):
        Retry(STEADY, budget=3)  # type: ignore[arg-type]


@every_runtime
async def test_a_fallback_outside_sees_the_error_that_retries_could_not_avoid(lab):
    seen = []
    guarded = lab.pipeline(FallbackConfig(lambda error: seen.append(error) or "plan b"), STEADY)(
        lab.function(OSError("down"))
    )
    assert await lab.call(guarded) == "plan b"
    assert str(seen[0]) == "down"
    assert lab.events.of(EventType.FALLBACK_USED)[0].error is seen[0]


# ---------------------------------------------------------------- StopIteration


def test_stop_iteration_of_the_function_survives(time):
    seen = []

    @Pipeline(FallbackConfig(lambda error: seen.append(error)), RetryConfig(max_attempts=2, delay=0))
    def exhausted():
        raise StopIteration(7)

    assert exhausted() is None
    assert type(seen[0]) is StopIteration and seen[0].value == 7

    @Pipeline(RetryConfig(max_attempts=2, delay=0, retry_on=(StopIteration,)), TimeoutConfig(5))
    def in_a_worker():
        raise StopIteration(8)

    with pytest.raises(StopIteration) as caught:
        in_a_worker()
    assert caught.value.value == 8
    assert caught.value.__notes__ == ["pyresilience: gave up after 2 attempts"]
