"""What a timeout does to an async function, on asyncio and trio alike: anyio's semantics, exactly at the deadline."""

from __future__ import annotations

import random

import anyio
import pytest

from pyresilience import EventType, Pipeline, ResilienceTimeoutError, RetryConfig, TimeoutConfig
from pyresilience.runtime import _sources as sources
from pyresilience.testing import EventRecorder


async def limited(fn, seconds):
    return await Pipeline(TimeoutConfig(seconds=seconds)).call(fn)


class Watch:
    """Virtual seconds since it was made."""

    def __init__(self):
        self.started = anyio.current_time()

    @property
    def elapsed(self):
        return pytest.approx(anyio.current_time() - self.started, abs=1e-6)


async def test_it_expires_exactly_at_the_deadline():
    watch = Watch()
    with pytest.raises(ResilienceTimeoutError) as caught:
        await limited(anyio.sleep_forever, 1)
    assert watch.elapsed == 1
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.seconds == 1
    await anyio.sleep(5)  # and the caller is free


async def test_a_value_in_time_is_followed_by_no_late_cancellation():
    async def body():
        await anyio.sleep(1)
        return 7

    assert await limited(body, 2) == 7
    await anyio.sleep(10)


async def test_the_same_task_may_expire_many_times():
    watch = Watch()
    for _ in range(50):
        with pytest.raises(ResilienceTimeoutError):
            await limited(anyio.sleep_forever, 1)
    assert watch.elapsed == 50


async def test_overlapping_calls_expire_each_at_its_own_time():
    """One queue of deadlines serves them all, in whatever order they enter and leave."""
    pipeline = Pipeline(TimeoutConfig(seconds=1))
    ends = []

    async def one(start, duration):
        await anyio.sleep(start)
        began = anyio.current_time()
        try:
            await pipeline.call(anyio.sleep, duration)
        except ResilienceTimeoutError:
            assert anyio.current_time() - began == pytest.approx(1, abs=1e-6) and duration > 1
        else:
            assert anyio.current_time() - began == pytest.approx(duration, abs=1e-6) and duration < 1
        ends.append(None)

    draw = random.Random(7)
    async with anyio.create_task_group() as group:
        for _ in range(300):
            group.start_soon(one, draw.uniform(0, 3), draw.choice([0.2, 0.7, 0.999, 1.001, 5]))
    assert len(ends) == 300


async def test_a_body_that_swallows_the_cancellation_is_cancelled_again():
    """Level-triggered: every further checkpoint is cancelled too."""
    watch = Watch()

    async def body():
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            pass
        await anyio.sleep(100)

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert watch.elapsed == 1


async def test_a_late_value_is_a_timeout():
    """The body swallowed the cancellation and returned."""

    async def body():
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "late"

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    await anyio.sleep(5)


async def test_an_overrun_without_a_checkpoint_is_a_timeout():
    async def body():
        sources.current.jump(3)
        return "late"

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)


async def test_a_shield_inside_runs_to_its_end():
    watch = Watch()
    done = []

    async def body():
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
            done.append(True)
        await anyio.sleep(100)

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert done
    assert watch.elapsed == 5


@pytest.mark.parametrize("shield", [True, False])
async def test_only_shielded_clean_up_may_wait(shield):
    done = []

    async def body():
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=shield):
                await anyio.sleep(5)
                done.append(True)

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert bool(done) is shield


async def test_an_error_of_the_clean_up_surfaces():
    async def body():
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("clean-up broke")

    with pytest.raises(ValueError, match="clean-up broke"):
        await limited(body, 1)
    await anyio.sleep(5)


async def test_the_functions_own_timeout_error_is_not_taken_for_ours():
    events = EventRecorder()

    async def body():
        raise TimeoutError("of the function")

    with pytest.raises(TimeoutError, match="of the function") as caught:
        await Pipeline(TimeoutConfig(seconds=1), listeners=[events]).call(body)
    assert not isinstance(caught.value, ResilienceTimeoutError)
    assert events.types == [EventType.FAILURE]


@pytest.mark.parametrize("outer_seconds", [0, 1, 2])
async def test_a_cancellation_from_outside_is_never_turned_into_a_timeout(outer_seconds):
    """Before our deadline of 2 seconds, at the same instant, and before the call began."""
    events = EventRecorder()
    pipeline = Pipeline(TimeoutConfig(seconds=2), listeners=[events])
    expired = False
    with anyio.move_on_after(outer_seconds) as outer:
        if not outer_seconds:
            outer.cancel()
        try:
            await pipeline.call(anyio.sleep_forever)
        except ResilienceTimeoutError:
            expired = True
    assert outer.cancelled_caught is not expired
    assert events.types == ([EventType.TIMEOUT, EventType.FAILURE] if expired else [EventType.CANCELLED])
    assert outer_seconds == 2 or not expired
    await anyio.sleep(5)


@pytest.mark.parametrize(("inner", "outer"), [(1, 2), (2, 1), (1, 1)])
async def test_the_earliest_of_nested_deadlines_wins(inner, outer):
    watch = Watch()
    where = []

    async def middle():
        try:
            await limited(anyio.sleep_forever, inner)
        except ResilienceTimeoutError:
            where.append("inner")
            raise

    with pytest.raises(ResilienceTimeoutError) as caught:
        await limited(middle, outer)
    assert watch.elapsed == 1
    if inner != outer:
        assert where == (["inner"] if inner < outer else [])
        assert caught.value.seconds == 1
    await anyio.sleep(5)


async def test_the_caller_may_go_on_after_an_inner_timeout():
    async def middle():
        with pytest.raises(ResilienceTimeoutError):
            await limited(anyio.sleep_forever, 1)
        await anyio.sleep(0.5)
        return "inner"

    assert await limited(middle, 2) == "inner"


@pytest.mark.parametrize("host_busy", [True, False])
async def test_children_of_a_task_group_inside_end_with_it(host_busy):
    ended = []

    async def child():
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    async def body():
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            group.start_soon(child)
            if host_busy:
                await anyio.sleep(50)

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert ended == [True, True]


async def test_a_child_that_swallows_the_cancellation_is_cancelled_again():
    watch = Watch()

    async def child():
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            pass
        await anyio.sleep(100)

    async def body():
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert watch.elapsed == 1


async def test_a_failing_sibling_cancels_the_call_and_nothing_else():
    seen = []

    async def guarded():
        try:
            await limited(anyio.sleep_forever, 5)
        except BaseException as error:
            seen.append(type(error))
            raise

    async def fails():
        await anyio.sleep(1)
        raise ValueError

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(guarded)
            group.start_soon(fails)
    assert seen == [anyio.get_cancelled_exc_class()]
    assert [type(error) for error in caught.value.exceptions] == [ValueError]


async def test_a_timeout_in_one_task_leaves_its_group_alone():
    seen = []

    async def guarded():
        with pytest.raises(ResilienceTimeoutError):
            await limited(anyio.sleep_forever, 1)
        await anyio.sleep(1)
        seen.append("after")

    async with anyio.create_task_group() as group:
        group.start_soon(guarded)
    assert seen == ["after"]


async def test_the_deadline_is_visible_to_the_function():
    watch = Watch()

    async def body():
        await anyio.sleep(2)
        return anyio.current_effective_deadline() - watch.started

    assert await limited(body, 5) == pytest.approx(5)


async def test_a_scope_of_the_function_may_expire_at_the_same_instant():
    watch = Watch()

    async def body():
        with anyio.move_on_after(1):
            await anyio.sleep_forever()
        await anyio.sleep(100)

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert watch.elapsed == 1


async def test_a_longer_scope_of_the_function_does_not_catch_our_cancellation():
    after = []

    async def body():
        with anyio.move_on_after(5):
            await anyio.sleep_forever()
        after.append(True)

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert not after


async def test_after_the_timeout_the_callers_awaits_are_free_at_once():
    with pytest.raises(ResilienceTimeoutError):
        await limited(anyio.sleep_forever, 1)
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def test_each_attempt_has_its_own_deadline_and_the_call_another():
    """Attempts of 2 s, one second between them, and 4 s for everything: the second attempt gets 1 s."""
    watch = Watch()
    events = EventRecorder()
    pipeline = Pipeline(
        RetryConfig(max_attempts=5, delay=1, backoff_factor=1, jitter=False),
        TimeoutConfig(seconds=2, total=4),
        listeners=[events],
    )
    with pytest.raises(ResilienceTimeoutError) as caught:
        await pipeline.call(anyio.sleep_forever)
    assert watch.elapsed == 4
    assert caught.value.seconds == 4
    assert events.sequence == [("timeout", 1), ("retry", 1), ("timeout", 2), ("failure", 2)]
    assert [event.detail for event in events.of(EventType.TIMEOUT)] == [
        "attempt timed out after 2.00s",
        "call timed out after 4.00s",
    ]


async def test_a_total_timeout_of_calls_that_entered_late_is_exact_too():
    """Layers outside the deadline take time before it; the queue of constant durations cannot serve those calls."""
    watch = Watch()

    class Slow:
        outside_deadline = True

        async def __call__(self, call, call_next):
            await call.sleep(delays.pop())
            return await call_next(call)

    delays = [0.3, 0.0, 0.6]
    pipeline = Pipeline(Slow(), TimeoutConfig(seconds=1, per_attempt=False))

    async def one():
        with pytest.raises(ResilienceTimeoutError):
            await pipeline.call(anyio.sleep_forever)
        assert watch.elapsed == 1

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
