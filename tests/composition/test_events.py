"""The sequences of events that a call may give, one by one."""

from __future__ import annotations

import logging

import pytest

from pyresilience import (
    BulkheadConfig,
    BulkheadFullError,
    CacheConfig,
    CallRejectedError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    CircuitState,
    EventType,
    FallbackConfig,
    Pipeline,
    RateLimiterConfig,
    RateLimitExceededError,
    ResilienceTimeoutError,
    RetryBudgetConfig,
    RetryConfig,
    TimeoutConfig,
    resilience_context,
    resilient,
    subscribe,
    unsubscribe,
)
from pyresilience.testing import EventRecorder
from tests.lab import After, every_runtime

STEADY = RetryConfig(max_attempts=3, delay=1, backoff_factor=1, jitter=False)


def details(events, kind):
    return [event.detail for event in events.of(kind)]


@every_runtime
async def test_fail_then_ok(lab):
    assert await lab.call(lab.pipeline(STEADY)(lab.function(ValueError(), "ok"))) == "ok"
    assert lab.events.sequence == [("retry", 1), ("success", 2)]
    assert lab.events.events[1].duration == 1
    assert lab.events.events[1].error is None


@every_runtime
async def test_all_attempts_fail(lab):
    errors = [ValueError("first"), ValueError("second"), ValueError("third")]
    assert await lab.outcome(lab.pipeline(STEADY)(lab.function(*errors))) is errors[2]
    assert lab.events.sequence == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]
    assert [event.error for event in lab.events.events] == [*errors, errors[2]]
    assert all(event.duration is None for event in lab.events.events)


@every_runtime
async def test_attempts_time_out(lab):
    pipeline = lab.pipeline(RetryConfig(max_attempts=2, delay=1, jitter=False), TimeoutConfig(seconds=1))
    error = await lab.outcome(pipeline(lab.function(After(5))))
    assert isinstance(error, ResilienceTimeoutError)
    assert lab.events.sequence == [
        ("timeout", 1), ("retry", 1), ("timeout", 2), ("retry_exhausted", 2), ("failure", 2),
    ]  # fmt: skip
    assert all(isinstance(event.error, ResilienceTimeoutError) for event in lab.events.events)
    assert lab.events.events[2].error is lab.events.events[4].error is error


@every_runtime
async def test_an_error_that_is_not_retryable(lab):
    pipeline = lab.pipeline(RetryConfig(max_attempts=3, delay=1, ignore_on=(KeyError,)))
    await lab.outcome(pipeline(lab.function(ValueError(), KeyError())))
    assert lab.events.sequence == [("retry", 1), ("failure", 2)]


@every_runtime
async def test_the_failure_that_opens_a_circuit(lab):
    pipeline = lab.pipeline(CircuitBreakerConfig(failure_threshold=2))
    guarded = pipeline(lab.function(ValueError()))
    for _ in range(2):
        error = await lab.outcome(guarded)
    assert lab.events.sequence == [("failure", 1), ("circuit_open", 1), ("failure", 1)]
    opened = lab.events.of(EventType.CIRCUIT_OPEN)[0]
    assert opened.detail == "opened"
    assert opened.error is error
    lab.events.clear()
    rejection = await lab.outcome(guarded)
    assert isinstance(rejection, CircuitOpenError)
    assert [(event.event_type.value, event.detail, event.error) for event in lab.events.events] == [
        ("circuit_open", "rejected", rejection)
    ]


@every_runtime
async def test_one_event_for_each_transition(lab):
    config = CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=2)
    guarded = lab.pipeline(config)(lab.function(ValueError(), ValueError(), "ok"))
    for pause in (0, 5, 5, 0, 0):
        await lab.sleep(pause)
        await lab.outcome(guarded)
    assert [(event.event_type.value, event.detail) for event in lab.events.events] == [
        ("circuit_open", "opened"), ("failure", ""),
        ("circuit_half_open", ""), ("circuit_open", "opened"), ("failure", ""),
        ("circuit_half_open", ""), ("success", ""),
        ("circuit_closed", ""), ("success", ""),
        ("success", ""),
    ]  # fmt: skip


@every_runtime
async def test_a_circuit_that_opens_between_attempts(lab):
    """The function ran, so a FAILURE follows the rejection; its error's cause is the last real one."""
    original = ValueError()
    pipeline = lab.pipeline(STEADY, CircuitBreakerConfig(failure_threshold=1))
    error = await lab.outcome(pipeline(lab.function(original)))
    assert isinstance(error, CircuitOpenError)
    assert error.__cause__ is original
    assert [(event.event_type.value, event.attempt, event.detail) for event in lab.events.events] == [
        ("circuit_open", 1, "opened"), ("retry", 1, "retrying in 1.00s"),
        ("circuit_open", 2, "rejected"), ("failure", 2, ""),
    ]  # fmt: skip


@every_runtime
async def test_a_miss_then_a_hit(lab):
    guarded = lab.pipeline(CacheConfig(), STEADY)(lab.function(ValueError(), "ok"))
    for _ in range(2):
        assert await lab.call(guarded, 1) == "ok"
    assert lab.events.sequence == [("cache_miss", 0), ("retry", 1), ("success", 2), ("cache_hit", 0)]


@every_runtime
async def test_followers_of_a_flight(lab):
    """One runs; the others hit with the detail `joined`, or fail with the leader's error."""
    for step, kind in (("ok", EventType.CACHE_HIT), (ValueError(), EventType.FAILURE)):
        lab.events.clear()
        fn = lab.function(After(1, step))
        guarded = lab.pipeline(CacheConfig())(fn)
        results = await lab.together(*[lambda guarded=guarded: lab.call(guarded, 1)] * 3)
        assert results == [step] * 3
        assert fn.calls == 1
        misses = [event for event in lab.events.events if event.event_type is EventType.CACHE_MISS]
        assert len(misses) == 1
        ends = lab.events.types[1:]
        if kind is EventType.CACHE_HIT:
            assert sorted(ends) == ["cache_hit", "cache_hit", "success"]
            assert details(lab.events, kind) == ["joined"] * 2
        else:
            assert ends == [kind] * 3


@pytest.mark.parametrize(
    ("config", "kind", "detail"),
    [
        (BulkheadConfig(max_concurrent=1), EventType.BULKHEAD_REJECTED, "full"),
        (RateLimiterConfig(max_calls=1, period=9), EventType.RATE_LIMITED, "retry after 9.00s"),
    ],
)
@every_runtime
async def test_a_rejection_is_itself_the_end(lab, config, kind, detail):
    guarded = lab.pipeline(config)(lab.function(After(2, "ok")))
    _, rejected = await lab.together(lambda: lab.call(guarded), lambda: lab.call(guarded), apart=0.0)
    errors = [event for event in lab.events.events if event.event_type is kind]
    assert [event.detail for event in errors] == [detail]
    assert sorted(lab.events.types) == sorted([kind, EventType.SUCCESS])
    assert isinstance(errors[0].error, CallRejectedError)
    assert rejected == "ok" or rejected is errors[0].error


@every_runtime
async def test_a_rejected_attempt_after_one_that_ran(lab):
    pipeline = lab.pipeline(STEADY, RateLimiterConfig(max_calls=1, period=60))
    error = await lab.outcome(pipeline(lab.function(ValueError())))
    assert isinstance(error, RateLimitExceededError)
    assert lab.events.sequence == [("retry", 1), ("rate_limited", 2), ("failure", 2)]


@every_runtime
async def test_a_fallback_that_answers_and_one_that_fails(lab):
    def broken(error):
        raise LookupError("no answer either")

    original = ValueError()
    assert await lab.call(lab.pipeline(FallbackConfig(handler=1), STEADY)(lab.function(original))) == 1
    assert lab.events.sequence[-2:] == [("retry_exhausted", 3), ("fallback_used", 3)]
    assert lab.events.events[-1].error is original
    lab.events.clear()
    error = await lab.outcome(lab.pipeline(FallbackConfig(handler=broken))(lab.function(original)))
    assert isinstance(error, LookupError)
    assert error.__context__ is original
    assert [(event.event_type, event.error) for event in lab.events.events] == [(EventType.FAILURE, error)]


@every_runtime
async def test_a_fallback_for_a_rejection(lab):
    breaker = CircuitBreaker()
    breaker.force_open()
    pipeline = lab.pipeline(FallbackConfig(handler="instead"), breaker)
    assert await lab.call(pipeline(lab.function("ok"))) == "instead"
    assert [(event.event_type.value, event.detail) for event in lab.events.events] == [
        ("circuit_open", "rejected"), ("fallback_used", ""),
    ]  # fmt: skip


@every_runtime
async def test_a_bad_result_until_the_end(lab):
    """It is returned all the same, and counts as a failure."""
    config = RetryConfig(max_attempts=2, delay=1, jitter=False, retry_on_result=lambda value: value == "bad")
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2))
    assert await lab.call(lab.pipeline(CacheConfig(), config, breaker)(lab.function("bad")), 1) == "bad"
    assert [(event.event_type.value, event.attempt, event.error) for event in lab.events.events] == [
        ("cache_miss", 0, None), ("retry", 1, None),
        ("circuit_open", 2, None), ("retry_exhausted", 2, None), ("failure", 2, None),
    ]  # fmt: skip
    assert breaker.state is CircuitState.OPEN


@every_runtime
async def test_retry_says_what_it_is_going_to_do(lab):
    config = RetryConfig(max_attempts=4, delay=0.5, backoff_factor=3, jitter=False)
    await lab.outcome(lab.pipeline(config)(lab.function(ValueError())))
    assert details(lab.events, EventType.RETRY) == ["retrying in 0.50s", "retrying in 1.50s", "retrying in 4.50s"]


@every_runtime
async def test_an_exhausted_budget_and_a_short_deadline_say_so(lab):
    spent = resilient(
        retry=STEADY, retry_budget=RetryBudgetConfig(max_retries=1, refill_rate=1e-9), listeners=[lab.events]
    )
    await lab.outcome(spent(lab.function(ValueError())))
    assert details(lab.events, EventType.RETRY_EXHAUSTED) == ["retry budget exhausted"]
    lab.events.clear()
    hurried = lab.pipeline(TimeoutConfig(seconds=1.5, per_attempt=False), STEADY)
    await lab.outcome(hurried(lab.function(ValueError())))
    assert details(lab.events, EventType.RETRY_EXHAUSTED) == ["no time for a wait of 1.00s: 0.50s left"]


@every_runtime
async def test_a_layer_of_the_users_that_answers_a_rejection_makes_the_call_a_success(lab):
    """What it dealt with is not the end of the call any more."""

    async def default(call, call_next):
        try:
            return await call_next(call)
        except BulkheadFullError:
            return "default"

    guarded = lab.pipeline(default, BulkheadConfig(max_concurrent=1))(lab.function(After(1, "ok")))
    results = await lab.together(lambda: lab.call(guarded), lambda: lab.call(guarded))
    assert sorted(results) == ["default", "ok"]
    assert lab.events.types == [EventType.BULKHEAD_REJECTED, EventType.SUCCESS, EventType.SUCCESS]


@every_runtime
async def test_a_layer_of_the_users_that_calls_twice(lab):
    """The first answer came from a fallback further in, the second from the function."""

    async def twice(call, call_next):
        await call_next(call)
        return await call_next(call)

    pipeline = lab.pipeline(twice, FallbackConfig(handler="instead"))
    assert await lab.call(pipeline(lab.function(ValueError(), "ok"))) == "ok"
    assert lab.events.types == [EventType.SUCCESS]


@every_runtime
async def test_a_listener_that_raises_is_logged_and_passed_over(lab, caplog):
    def broken(event):
        raise LookupError("of the listener")

    after = EventRecorder()
    pipeline = Pipeline(STEADY, listeners=[broken, after])
    with caplog.at_level(logging.WARNING, logger="pyresilience"):
        assert await lab.call(pipeline(lab.function(ValueError(), "ok"))) == "ok"
    assert after.sequence == [("retry", 1), ("success", 2)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@every_runtime
async def test_a_listener_may_ask_the_breaker_and_call_the_pipeline_again(lab):
    """No lock is held while listeners run."""
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=1))
    states = []
    inner = []

    def nosy(event):
        states.append((event.event_type.value, breaker.state.value, breaker.metrics["state"]))
        if event.event_type is EventType.FAILURE and not inner:
            try:
                inner.append(pipeline.call_sync(lambda: "inner"))
            except CircuitOpenError as error:
                inner.append(error)

    pipeline = Pipeline(breaker, BulkheadConfig(max_concurrent=1), CacheConfig(), listeners=[nosy])
    await lab.outcome(pipeline(lab.function(ValueError())))
    assert isinstance(inner[0], CircuitOpenError)
    assert states == [
        ("cache_miss", "closed", "closed"),
        ("circuit_open", "open", "open"),
        ("failure", "open", "open"),
        ("circuit_open", "open", "open"),
    ]
    breaker.reset()
    assert await lab.call(pipeline(lab.function("ok", name="again"))) == "ok"


@every_runtime
async def test_who_subscribes_while_a_pipeline_is_built_hears_it(lab):
    """Another thread may do so at any moment; here a layer does."""

    class Subscribes:
        def attached(self, inner):
            subscribe(lab.events)

        async def __call__(self, call, call_next):
            return await call_next(call)

    guarded = Pipeline(Subscribes())(lab.function("ok"))
    try:
        await lab.call(guarded)
    finally:
        unsubscribe(lab.events)
    assert lab.events.types == [EventType.SUCCESS]


@every_runtime
async def test_a_listener_may_leave_while_it_is_called(lab):
    heard = []

    def once(event):
        heard.append(event.event_type)
        unsubscribe(once)

    subscribe(once)
    guarded = Pipeline()(lab.function("ok"))
    for _ in range(3):
        await lab.call(guarded)
    assert heard == [EventType.SUCCESS]


@every_runtime
async def test_the_context_of_an_event_is_a_copy_of_that_moment(lab):
    context = {"request": 1}
    token = resilience_context.set(context)
    try:
        await lab.call(lab.pipeline(STEADY)(lab.function("ok")))
    finally:
        resilience_context.reset(token)
    context["request"] = 2
    assert lab.events.events[0].context == {"request": 1}
    lab.events.clear()
    await lab.call(lab.pipeline(STEADY)(lab.function("ok")))
    assert lab.events.events[0].context is None
