"""Circuit breaker: when it opens, what it lets through, and what it does not count."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyresilience import (
    BulkheadConfig,
    CallRejectedError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    CircuitState,
    FallbackConfig,
    Pipeline,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.policies import _circuit
from pyresilience.policies._circuit import NO_PROBES, REFUSED, Circuit
from pyresilience.runtime._sources import NANOSECONDS
from pyresilience.testing import EventRecorder
from tests.lab import After, every_runtime


async def fail(lab, guarded, times):
    for _ in range(times):
        await lab.outcome(guarded)


@every_runtime
async def test_failures_in_a_row_open_it_and_calls_are_refused_without_running(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=3, recovery_timeout=30), name="payments")
    fn = lab.function(OSError("down"))
    guarded = lab.pipeline(breaker)(fn)
    await fail(lab, guarded, 3)
    await lab.sleep(10)
    error = await lab.outcome(guarded)
    assert isinstance(error, CircuitOpenError) and isinstance(error, CallRejectedError)
    assert (error.retry_after, error.layer, error.name) == (20, "circuit_breaker", "payments")
    assert fn.calls == 3
    assert lab.events.sequence == [
        ("failure", 1),
        ("failure", 1),
        ("circuit_open", 1),
        ("failure", 1),
        ("circuit_open", 1),
    ]
    opened, rejected = lab.events.events[2], lab.events.events[4]
    assert (opened.detail, str(opened.error)) == ("opened", "down")
    assert (rejected.detail, rejected.error) == ("rejected", error)


@every_runtime
async def test_a_success_in_between_starts_the_count_again(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2))
    guarded = lab.pipeline(breaker)(lab.function(OSError(), "ok", OSError(), "ok"))
    await fail(lab, guarded, 3)
    assert breaker.state is CircuitState.CLOSED and breaker.failure_count == 1


@every_runtime
async def test_it_half_opens_with_the_first_call_after_the_break_and_closes_after_enough_successes(lab):
    config = CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=2)
    breaker = CircuitBreaker(config)
    guarded = lab.pipeline(breaker)(lab.function(OSError(), "ok"))
    await fail(lab, guarded, 1)
    await lab.sleep(5)
    assert breaker.state is CircuitState.OPEN
    lab.events.clear()
    assert await lab.call(guarded) == "ok"
    assert breaker.state is CircuitState.HALF_OPEN
    await lab.call(guarded)
    assert breaker.state is CircuitState.CLOSED
    assert lab.events.sequence == [("circuit_half_open", 1), ("success", 1), ("circuit_closed", 1), ("success", 1)]


@every_runtime
async def test_a_failed_probe_opens_it_again_for_the_whole_break(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5))
    guarded = lab.pipeline(breaker)(lab.function(OSError()))
    await fail(lab, guarded, 1)
    await lab.sleep(6)
    await fail(lab, guarded, 1)
    error = await lab.outcome(guarded)
    assert isinstance(error, CircuitOpenError) and error.retry_after == 5


@every_runtime
async def test_half_open_admits_only_the_configured_probes(lab):
    """Also at the moment of opening, with many callers at once."""
    breaker = CircuitBreaker(
        CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=3, half_open_max_calls=2)
    )
    fn = lab.function(OSError(), After(1, "ok"))
    guarded = lab.pipeline(breaker)(fn)
    await fail(lab, guarded, 1)
    await lab.sleep(5)
    results = await lab.together(*[lambda: lab.call(guarded)] * 50)
    assert results.count("ok") == 2 and fn.calls == 3
    assert breaker.state is CircuitState.HALF_OPEN
    await lab.call(guarded)
    assert breaker.state is CircuitState.CLOSED


@every_runtime
async def test_late_results_of_an_earlier_period_are_ignored(lab):
    """Calls that began while it was closed say nothing about the recovery."""
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=1))
    slow_failure = lab.pipeline(breaker)(lab.function(After(10, OSError())))
    slow_success = lab.pipeline(breaker)(lab.function(After(6, "late")))
    quick_failure = lab.pipeline(breaker)(lab.function(OSError()))
    probe = lab.pipeline(breaker)(lab.function("ok"))

    async def story():
        await lab.sleep(1)
        await lab.outcome(quick_failure)
        await lab.sleep(5.5)
        assert breaker.state is CircuitState.OPEN, "the late success must not close it"
        await lab.call(probe)
        assert breaker.state is CircuitState.CLOSED
        await lab.sleep(5)
        assert breaker.state is CircuitState.CLOSED, "the late failure must not open it again"
        return True

    results = await lab.together(lambda: lab.call(slow_failure), lambda: lab.call(slow_success), story)
    assert results[2] is True, results


@every_runtime
async def test_refusals_further_in_and_ignored_errors_are_not_counted_and_give_the_probe_back(lab):
    config = CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=1, ignore_on=(KeyError,))
    breaker = CircuitBreaker(config)
    fn = lab.function(KeyError(), OSError(), KeyError(), After(3, "ok"), "ok")
    guarded = lab.pipeline(breaker, BulkheadConfig(max_concurrent=1))(fn)
    await fail(lab, guarded, 1)
    assert breaker.state is CircuitState.CLOSED
    await fail(lab, guarded, 1)
    await lab.sleep(5)
    await fail(lab, guarded, 1)
    assert breaker.state is CircuitState.HALF_OPEN

    other = lab.pipeline(breaker, lambda call, call_next: refuse())(lab.function("never"))

    def refuse():
        raise CallRejectedError("shed")

    assert isinstance(await lab.outcome(other), CallRejectedError)
    assert await lab.call(guarded) == "ok"
    assert breaker.state is CircuitState.CLOSED


@every_runtime
async def test_errors_of_other_types_count_as_successes(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2, error_types=(OSError,)))
    guarded = lab.pipeline(breaker)(lab.function(OSError(), ValueError(), OSError(), OSError()))
    await fail(lab, guarded, 3)
    assert breaker.state is CircuitState.CLOSED
    await fail(lab, guarded, 1)
    assert breaker.state is CircuitState.OPEN


@every_runtime
async def test_attempt_timeouts_count_whatever_the_error_types(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, error_types=(KeyError,)))
    await lab.outcome(lab.pipeline(breaker, TimeoutConfig(1))(lab.function(After(5))))
    assert breaker.state is CircuitState.OPEN


@every_runtime
async def test_a_total_timeout_outside_counts_as_a_failure(lab):
    """A black hole must open the circuit."""
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    guarded = lab.pipeline(RetryConfig(), breaker, TimeoutConfig(60, total=1))(lab.function(After(5)))
    await lab.outcome(guarded)
    assert breaker.state is CircuitState.OPEN


@every_runtime
async def test_a_timeout_layer_outside_counts_as_a_failure_too(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    await lab.outcome(lab.pipeline(TimeoutConfig(1), breaker)(lab.function(After(5))))
    assert breaker.state is CircuitState.OPEN


async def test_cancellation_by_the_caller_is_neutral_and_gives_the_probe_back():
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=1))
    events = EventRecorder()

    @Pipeline(breaker, listeners=[events])
    async def fn(error=None):
        if error:
            raise error
        await anyio.sleep(10)
        return "ok"

    with pytest.raises(OSError):
        await fn(OSError())
    await anyio.sleep(5)
    for _ in range(3):
        with anyio.move_on_after(1):
            await fn()
        assert breaker.state is CircuitState.HALF_OPEN
    assert await fn() == "ok"
    assert breaker.state is CircuitState.CLOSED
    assert [kind for kind, _ in events.sequence].count("cancelled") == 3


@every_runtime
async def test_a_probe_that_never_returns_gives_its_place_to_another(lab):
    """Its lease is the attempt timeout inside, or else the break."""
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=1))
    fn = lab.function(OSError(), After(100, "stuck"), "ok")
    guarded = lab.pipeline(breaker)(fn)
    await fail(lab, guarded, 1)

    async def others():
        await lab.sleep(6)
        error = await lab.outcome(guarded)
        assert isinstance(error, CircuitOpenError) and error.retry_after == 4
        await lab.sleep(4)
        assert await lab.call(guarded) == "ok"
        assert breaker.state is CircuitState.CLOSED
        return True

    async def stuck():
        await lab.sleep(5)
        return await lab.call(guarded)

    assert await lab.together(stuck, others) == ["stuck", True]
    assert breaker.state is CircuitState.CLOSED


@every_runtime
async def test_probes_slower_than_their_lease_still_close_it(lab):
    """A service that answers, if slowly, must not be kept out for as long as there is traffic."""
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=1, success_threshold=2))
    fn = lab.function(OSError(), After(3, "slow but right"))
    guarded = lab.pipeline(breaker)(fn)
    await fail(lab, guarded, 1)
    await lab.sleep(1)

    async def client():
        for _ in range(20):
            await lab.outcome(guarded)
            await lab.sleep(0.25)

    async def watch():
        await lab.sleep(4.5)
        assert breaker.state is CircuitState.CLOSED
        return True

    assert (await lab.together(client, client, client, watch))[3] is True


@every_runtime
async def test_a_black_hole_gets_only_the_configured_probes(lab):
    """Their timeout is reported before their lease ends."""
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=10, success_threshold=2))
    fn = lab.function(After(1000))
    guarded = lab.pipeline(breaker, TimeoutConfig(2))(fn)
    await fail(lab, guarded, 1)

    async def client():
        for _ in range(120):
            await lab.outcome(guarded)
            await lab.sleep(0.25)

    await lab.together(*[client] * 5, apart=0.05)
    # Two probes at most in each half-open period, and at most one period every 12 s.
    assert fn.calls <= 1 + 2 * (lab.now // 12 + 1)


def test_the_lease_of_a_shared_breaker_is_that_of_the_slowest_pipeline(time):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=1))
    pipelines = [Pipeline(breaker, TimeoutConfig(seconds)) for seconds in (60, 1)]
    breaker.record_failure()
    time.jump(5)
    assert breaker.allow_request() and not breaker.allow_request()
    time.jump(119)
    assert not breaker.allow_request()
    time.jump(1)
    assert breaker.allow_request()
    del pipelines


@every_runtime
async def test_the_last_bad_result_counts_as_a_failure(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2))
    config = RetryConfig(max_attempts=2, delay=0, retry_on_result=lambda value: value == 503)
    assert await lab.call(lab.pipeline(config, breaker)(lab.function(503))) == 503
    assert breaker.state is CircuitState.OPEN


# ---------------------------------------------------------------- slow calls and windows


@every_runtime
async def test_slow_calls_are_announced_and_open_the_window_at_their_rate(lab):
    config = CircuitBreakerConfig(
        sliding_window_size=4, slow_call_duration=2.0, slow_call_rate_threshold=0.5, recovery_timeout=5
    )
    breaker = CircuitBreaker(config)
    guarded = lab.pipeline(breaker)(lab.function(After(1), After(3), After(2), After(2.5)))
    await fail(lab, guarded, 3)
    assert breaker.state is CircuitState.CLOSED
    await fail(lab, guarded, 1)
    assert breaker.state is CircuitState.OPEN
    assert [event.detail for event in lab.events.events if event.event_type == "slow_call"] == [
        "took 3.00s",
        "took 2.50s",
    ]


@every_runtime
async def test_without_a_window_slow_calls_are_only_announced(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, slow_call_duration=1.0))
    assert await lab.call(lab.pipeline(breaker)(lab.function(After(5, "ok")))) == "ok"
    assert breaker.state is CircuitState.CLOSED
    assert lab.events.sequence == [("slow_call", 1), ("success", 1)]


@every_runtime
async def test_slow_probes_open_it_again(lab):
    config = CircuitBreakerConfig(sliding_window_size=1, slow_call_duration=2, success_threshold=1, recovery_timeout=5)
    breaker = CircuitBreaker(config)
    guarded = lab.pipeline(breaker)(lab.function(OSError(), After(3), "quick"))
    await fail(lab, guarded, 1)
    await lab.sleep(5)
    await lab.call(guarded)
    assert breaker.state is CircuitState.OPEN
    await lab.sleep(5)
    await lab.call(guarded)
    assert breaker.state is CircuitState.CLOSED


@every_runtime
async def test_the_window_is_judged_from_minimum_calls_on(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(sliding_window_size=10, minimum_calls=4, failure_rate_threshold=0.5))
    guarded = lab.pipeline(breaker)(lab.function(OSError(), OSError(), "ok", "ok"))
    await fail(lab, guarded, 3)
    assert breaker.state is CircuitState.CLOSED
    assert breaker.metrics == {"state": "closed", "failure_rate": 2 / 3, "slow_call_rate": 0, "total_calls": 3}
    await fail(lab, guarded, 1)
    assert breaker.state is CircuitState.OPEN, "the fourth call, a success, completes the minimum at a rate of a half"


@every_runtime
async def test_quick_successes_weigh_in_the_window_although_they_take_no_lock(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(sliding_window_size=10, minimum_calls=2, failure_rate_threshold=0.5))
    guarded = lab.pipeline(breaker)(lab.function(*["ok"] * 6, *[OSError()] * 5))
    await fail(lab, guarded, 10)
    assert breaker.metrics == {"state": "closed", "failure_rate": 0.4, "slow_call_rate": 0, "total_calls": 10}
    await fail(lab, guarded, 1)
    assert breaker.state is CircuitState.OPEN


def test_minimum_calls_of_zero_means_the_size_of_the_window(time):
    breaker = CircuitBreaker(CircuitBreakerConfig(sliding_window_size=3))
    for _ in range(2):
        breaker.record_failure()
    assert breaker.state is CircuitState.CLOSED
    breaker.record_failure()
    assert breaker.state is CircuitState.OPEN


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(1, 8),
    minimum=st.integers(0, 8),
    rate=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
    slow_rate=st.sampled_from([0.25, 0.5, 1.0]),
    outcomes=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=40),
)
def test_the_window_equals_a_recount_after_every_step(size, minimum, rate, slow_rate, outcomes):
    """Exact rational comparison, whether a quick success took the lock or not."""
    minimum = min(minimum, size)
    config = CircuitBreakerConfig(
        sliding_window_size=size,
        minimum_calls=minimum,
        failure_rate_threshold=rate,
        slow_call_rate_threshold=slow_rate,
    )
    circuit = Circuit(config)
    history: list[tuple[bool, bool]] = []
    for failed, slow, lockless in outcomes:
        if lockless and circuit.light == circuit.permit:
            circuit.pending.append(0)
            failed = slow = False
        else:
            circuit.record(circuit.permit, 0, failed=failed, slow=slow)
        history = [*history, (failed, slow)][-size:]
        calls, failures, slows = len(history), sum(f for f, _ in history), sum(s for _, s in history)
        enough = calls >= (minimum or size)
        tripped = enough and (
            (failures > 0 and Fraction(failures, calls) >= Fraction(str(rate)))
            or (slows > 0 and Fraction(slows, calls) >= Fraction(str(slow_rate)))
        )
        assert (circuit.state is CircuitState.OPEN) == tripped
        if tripped:
            break
        assert circuit.rates() == (calls, failures / calls, slows / calls)


# ---------------------------------------------------------------- by hand and on its own


@every_runtime
async def test_forced_open_stays_until_it_is_closed_by_hand(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(recovery_timeout=5))
    guarded = lab.pipeline(breaker, name="payments")(lab.function("ok"))
    breaker.force_open()
    await lab.sleep(1000)
    error = await lab.outcome(guarded)
    assert isinstance(error, CircuitOpenError) and error.retry_after == 5
    breaker.force_close()
    assert await lab.call(guarded) == "ok"
    details = [(event.event_type.value, event.detail, event.function_name) for event in lab.events.events]
    assert details[0] == ("circuit_open", "forced", "payments")
    assert details[2] == ("circuit_closed", "forced", "payments")


def test_asking_whether_it_refuses_changes_nothing(time):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=1))
    assert not breaker.refusing
    breaker.record_failure()
    assert breaker.refusing
    time.jump(5)
    assert not breaker.refusing and breaker.state is CircuitState.OPEN
    assert breaker.allow_request() and breaker.refusing
    breaker.force_open()
    time.jump(1e6)
    assert breaker.refusing


def test_reset_forgets_everything(time):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2))
    breaker.record_failure()
    breaker.reset()
    breaker.record_failure()
    assert breaker.state is CircuitState.CLOSED and breaker.failure_count == 1


def test_standing_alone(time):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2, recovery_timeout=5, success_threshold=2))
    assert breaker.allow_request()
    breaker.record_failure()
    breaker.record_failure()
    assert breaker.state is CircuitState.OPEN and not breaker.allow_request()
    time.jump(5)
    assert breaker.allow_request() and breaker.allow_request() and not breaker.allow_request()
    breaker.record_success()
    breaker.record_success()
    assert breaker.state is CircuitState.CLOSED
    assert repr(breaker) == "CircuitBreaker(closed)"


def test_a_request_that_is_never_reported_does_not_block_the_recovery(time):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=5, success_threshold=1))
    breaker.record_failure()
    time.jump(5)
    assert breaker.allow_request() and not breaker.allow_request()
    time.jump(5)
    assert breaker.allow_request()
    breaker.record_success()
    assert breaker.state is CircuitState.CLOSED


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "succeed", "fail", "abandon", "tick", "force_open", "force_close"]),
            st.integers(0, 30),
        ),
        max_size=80,
    )
)
def test_the_machine_keeps_its_rules_for_any_sequence(steps):
    """Only the legal transitions; never more probes than places; results of older periods change nothing."""
    config = CircuitBreakerConfig(failure_threshold=2, recovery_timeout=10, success_threshold=2, half_open_max_calls=2)
    circuit = Circuit(config)
    now = 0
    out: list[tuple[int, int]] = []
    period = 0
    for step, number in steps:
        before = (circuit.state, circuit.forced)
        entered = None
        if step == "tick":
            now += number * NANOSECONDS
        elif step == "acquire":
            permit, entered = circuit.acquire(now)
            period += entered is not None
            if permit != REFUSED:
                out.append((permit, period))
        elif step.startswith("force"):
            state = CircuitState.OPEN if step == "force_open" else CircuitState.CLOSED
            circuit.force(state, now)
            period += 1
        elif out:
            permit, born = out.pop(number % len(out))
            snapshot = (circuit.state, circuit.failures, dict(circuit.probes))
            if step == "abandon":
                circuit.abandon(permit)
                assert circuit.state is before[0]
            else:
                entered = circuit.record(permit, now, failed=step == "fail")
            if born != period:
                assert snapshot == (circuit.state, circuit.failures, dict(circuit.probes))
                assert entered is None
            period += entered is not None
        if entered is not None:
            assert (before[0], entered) in {
                (CircuitState.CLOSED, CircuitState.OPEN),
                (CircuitState.OPEN, CircuitState.HALF_OPEN),
                (CircuitState.HALF_OPEN, CircuitState.OPEN),
                (CircuitState.HALF_OPEN, CircuitState.CLOSED),
            }
            assert not before[1], "a forced circuit moves by hand only"
        assert len(circuit.probes) <= 2
        assert (circuit.permit != REFUSED) == (circuit.state is CircuitState.CLOSED)
        assert circuit.retry_after(now) >= 0


@every_runtime
async def test_a_fallback_can_answer_a_refusal(lab):
    breaker = CircuitBreaker()
    breaker.force_open()
    guarded = lab.pipeline(FallbackConfig("plan b"), breaker)(lab.function("ok"))
    assert await lab.call(guarded) == "plan b"
    assert lab.events.sequence == [("circuit_open", 1), ("fallback_used", 1)]


def test_a_circuit_that_is_interrupted_on_its_way_stays_where_it_was(monkeypatch):
    circuit = Circuit(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=1, success_threshold=1))
    circuit.record(circuit.permit, 0, failed=True)

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_circuit, "_Trial", interrupted)
        circuit.acquire(2 * 10**9)
    assert circuit.state == "open"
    permit, entered = circuit.acquire(2 * 10**9)
    assert entered == "half_open"
    assert circuit.record(permit, 2 * 10**9, failed=False) == "closed"
    assert not NO_PROBES


def test_a_breaker_has_its_state_in_one_place():
    for twice in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            twice(CircuitBreaker())
