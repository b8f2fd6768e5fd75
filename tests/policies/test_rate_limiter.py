"""Rate limiter: how many calls go in which time, and who waits for the next."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyresilience import (
    AsyncRateLimiter,
    BulkheadConfig,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    RateLimitExceededError,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.policies._rates import Gcra, SlidingWindow
from tests.lab import After, every_runtime


@every_runtime
async def test_a_burst_goes_and_the_next_call_is_told_when_to_come_back(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=3, period=6), name="quota")
    fn = lab.function("ok")
    guarded = lab.pipeline(limiter)(fn)
    assert [await lab.call(guarded) for _ in range(3)] == ["ok"] * 3
    await lab.sleep(0.5)
    error = await lab.outcome(guarded)
    assert isinstance(error, RateLimitExceededError)
    assert (error.retry_after, error.layer, error.name) == (1.5, "rate_limiter", "quota")
    assert fn.calls == 3
    assert lab.events.sequence[-1] == ("rate_limited", 1)
    assert lab.events.events[-1].detail == "retry after 1.50s"
    await lab.sleep(1.5)
    assert await lab.call(guarded) == "ok"


@every_runtime
async def test_waiting_calls_go_in_order_at_the_rate(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=2, max_wait=100))
    fn = lab.function("ok")
    guarded = lab.pipeline(limiter)(fn)
    order = []

    def caller(number):
        async def go():
            await lab.call(guarded)
            order.append(number)

        return go

    await lab.together(*[caller(number) for number in range(5)], apart=0.1)
    assert fn.times == [0, 2, 4, 6, 8] and order == [0, 1, 2, 3, 4]


@every_runtime
async def test_a_wait_that_would_be_longer_than_max_wait_is_refused_at_once(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=2, max_wait=4))
    guarded = lab.pipeline(limiter)(lab.function("ok"))
    results = await lab.together(*[lambda: lab.call(guarded)] * 4)
    refused = [result for result in results if result != "ok"]
    assert len(refused) == 1 and refused[0].retry_after == 6 and lab.now == 4


@every_runtime
async def test_a_wait_that_the_deadline_cannot_hold_is_refused_at_once(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=10, max_wait=100))
    guarded = lab.pipeline(TimeoutConfig(5), limiter)(lab.function("ok"))
    await lab.call(guarded)
    assert isinstance(await lab.outcome(guarded), RateLimitExceededError)
    assert lab.now == 0


@every_runtime
async def test_the_queue_is_bounded(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=1, max_wait=100, max_queue=2))
    guarded = lab.pipeline(limiter)(lab.function("ok"))
    results = await lab.together(*[lambda: lab.call(guarded)] * 5, apart=0.001)
    assert results.count("ok") == 3


@every_runtime
async def test_a_newcomer_does_not_take_the_token_of_those_who_wait(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=2, max_wait=2))
    guarded = lab.pipeline(limiter)(lab.function("ok"))

    async def newcomer():
        await lab.sleep(1.9)
        return await lab.outcome(guarded)

    first, second, late = await lab.together(lambda: lab.call(guarded), lambda: lab.call(guarded), newcomer)
    assert (first, second) == ("ok", "ok")
    assert isinstance(late, RateLimitExceededError)


async def test_a_cancelled_waiter_takes_nothing_and_those_behind_move_up():
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=2, max_wait=100))
    times = {}

    @Pipeline(limiter)
    async def call(name):
        times[name] = anyio.current_time() - began

    scope = anyio.CancelScope()

    async def impatient():
        with scope:
            await call("impatient")

    began = anyio.current_time()
    await call("first")
    async with anyio.create_task_group() as group:
        group.start_soon(impatient)
        await anyio.sleep(0.1)
        group.start_soon(call, "third")
        await anyio.sleep(0.1)
        group.start_soon(call, "fourth")
        await anyio.sleep(1)
        scope.cancel()
    assert times == {"first": 0, "third": pytest.approx(2), "fourth": pytest.approx(4)}


async def test_a_waiter_whose_loop_stands_still_is_passed_over_and_the_bound_holds():
    """The first in line is late by more than a whole turn: the second goes at its own time."""
    from pyresilience.policies._wait_queue import Ticket

    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=2, max_wait=100))
    times = []

    @Pipeline(limiter)
    async def call():
        times.append(anyio.current_time() - began)

    class Dead:
        def wake(self):
            pass

    began = anyio.current_time()
    await call()
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(0.1)
        assert limiter._line is not None
        limiter._line.join_front(Ticket(Dead()))
    assert times == [0, pytest.approx(2)]


@every_runtime
async def test_a_token_comes_back_when_a_layer_further_in_refuses(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=2, period=1000))
    fn = lab.function(After(5))
    guarded = lab.pipeline(RetryConfig(max_attempts=1), limiter, BulkheadConfig(max_concurrent=1))(fn)
    results = await lab.together(*[lambda: lab.call(guarded)] * 4, apart=0.1)
    assert results.count("ok") == 1 and fn.calls == 1
    assert await lab.call(guarded) == "ok", "the refused calls used nothing up"
    assert isinstance(await lab.outcome(guarded), RateLimitExceededError)


@every_runtime
async def test_a_call_whose_function_ran_keeps_its_token(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=1000))
    fn = lab.function(RateLimitExceededError("upstream"))
    guarded = lab.pipeline(limiter)(fn)
    await lab.outcome(guarded)
    await lab.outcome(guarded)
    assert fn.calls == 1


@every_runtime
async def test_the_sliding_window_never_admits_more_in_any_period(lab):
    limiter = RateLimiter(RateLimiterConfig(max_calls=2, period=10, max_wait=100, algorithm="sliding_window"))
    fn = lab.function("ok")
    guarded = lab.pipeline(limiter)(fn)
    await lab.call(guarded)
    await lab.sleep(4)
    await lab.together(*[lambda: lab.call(guarded)] * 4)
    assert fn.times == [0, 4, 10, 14, 20]


def test_standing_alone_blocking(time):
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=2, max_wait=2))
    assert limiter.available
    assert limiter.acquire() and not limiter.available
    assert limiter.acquire() and time.seconds == 1002
    assert repr(limiter) == "RateLimiter(1 per 2s)"
    strict = RateLimiter(RateLimiterConfig(max_calls=1, period=2))
    assert strict.acquire() and not strict.acquire()
    assert time.seconds == 1002


async def test_standing_alone_async():
    limiter = AsyncRateLimiter(RateLimiterConfig(max_calls=1, period=2, max_wait=2))
    began = anyio.current_time()
    assert await limiter.acquire() and await limiter.acquire()
    assert anyio.current_time() - began == pytest.approx(2)
    assert repr(limiter) == "AsyncRateLimiter(1 per 2s)"


# ---------------------------------------------------------------- the algorithms

steps = st.lists(st.integers(0, 40), min_size=1, max_size=120)


@settings(max_examples=300, deadline=None)
@given(max_calls=st.integers(1, 5), period=st.integers(1, 50), pauses=steps)
def test_gcra_keeps_its_bound_in_every_window(max_calls, period, pauses):
    rate = Gcra(max_calls, period)
    interval = -(-period // max_calls)
    now, admitted = 0, []
    for pause in pauses:
        now += pause
        wait = rate.take(now)
        assert 0 <= wait <= interval
        if wait == 0:
            admitted.append(now)
        else:
            assert rate.wait(now, 0) == wait
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            window = admitted[last] - admitted[first]
            assert last - first + 1 <= window // interval + max_calls


@given(max_calls=st.integers(1, 5), interval=st.integers(1, 50), calls=st.integers(1, 100), idle=st.integers(0, 100))
def test_gcra_never_refuses_who_keeps_the_pace_and_grants_a_full_burst_after_a_rest(max_calls, interval, calls, idle):
    rate = Gcra(max_calls, interval * max_calls)
    now = 0
    for _ in range(calls):
        assert rate.take(now) == 0
        now += interval
    now += interval * max_calls + idle
    assert [rate.take(now) for _ in range(max_calls)] == [0] * max_calls
    assert rate.take(now) == interval


@given(max_calls=st.integers(1, 5), interval=st.integers(1, 50), back=st.integers(0, 10**12))
def test_a_clock_that_goes_back_never_makes_anybody_wait_long(max_calls, interval, back):
    rate = Gcra(max_calls, interval * max_calls)
    for _ in range(max_calls + 2):
        rate.take(10**12)
    assert rate.take(10**12 - back) <= interval
    assert rate.take(10**12 - back) <= interval


@settings(max_examples=300, deadline=None)
@given(max_calls=st.integers(1, 5), period=st.integers(1, 50), pauses=steps)
def test_the_sliding_window_equals_a_log(max_calls, period, pauses):
    rate = SlidingWindow(max_calls, period)
    now, admitted = 1000, []
    for pause in pauses:
        now += pause
        recent = [moment for moment in admitted if moment > now - period]
        wait = rate.take(now)
        assert (wait == 0) == (len(recent) < max_calls)
        if wait == 0:
            admitted.append(now)
        else:
            assert wait == recent[-max_calls] + period - now


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from([Gcra, SlidingWindow]),
    max_calls=st.integers(1, 4),
    per_call=st.integers(1, 20),
    used=st.integers(0, 6),
    ahead=st.integers(0, 10),
)
def test_the_estimate_is_when_the_turn_really_comes(kind, max_calls, per_call, used, ahead):
    rate = kind(max_calls, per_call * max_calls)
    now = 1000
    for _ in range(used):
        rate.take(now)
    estimate = now + rate.wait(now, ahead)
    for _ in range(ahead + 1):
        while wait := rate.take(now):
            now += wait
    assert now == estimate


def test_a_token_given_back_can_be_taken_again():
    for rate in (Gcra(1, 100), SlidingWindow(1, 100)):
        assert rate.take(1000) == 0
        assert rate.take(1000) == 100
        rate.give_back(1000)
        assert rate.take(1000) == 0


def test_a_token_given_back_late_is_not_there_twice():
    """The bucket was full again in between: that token has come back by itself."""
    rate = Gcra(3, 300)
    rate.take(1000)
    assert [rate.take(2000), rate.take(2000)] == [0, 0]
    rate.give_back(1000)
    assert [rate.take(2000), rate.take(2000)] == [0, 100]


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from([Gcra, SlidingWindow]),
    max_calls=st.integers(1, 4),
    per_call=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.integers(0, 5)), max_size=60),
)
def test_calls_that_ran_keep_the_bound_whatever_was_given_back(kind, max_calls, per_call, steps):
    period = per_call * max_calls
    rate = kind(max_calls, period)
    now, pending, ran = 1000, [], []
    for pause, give_back, which in steps:
        now += pause
        if give_back and pending:
            rate.give_back(pending.pop(which % len(pending)))
        elif rate.take(now) == 0:
            pending.append(now)
            if which > 2:
                ran.append(pending.pop())
    ran = sorted(ran + pending)
    for first in range(len(ran)):
        for last in range(first, len(ran)):
            window = ran[last] - ran[first]
            if kind is Gcra:
                assert last - first + 1 <= window // per_call + max_calls
            elif window < period:
                assert last - first + 1 <= max_calls


async def test_a_call_that_is_cancelled_before_the_function_ran_gives_its_token_back():
    limiter = RateLimiter(RateLimiterConfig(max_calls=2, period=1000))
    pipeline = Pipeline(limiter, BulkheadConfig(max_concurrent=1, max_wait=100))

    @pipeline
    async def call(seconds=0.0):
        await anyio.sleep(seconds)

    async with anyio.create_task_group() as group:
        group.start_soon(call, 5)
        await anyio.sleep(1)
        with anyio.move_on_after(1):
            await call()
    await call()
    with pytest.raises(RateLimitExceededError):
        await call()
