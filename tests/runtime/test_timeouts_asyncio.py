"""A timeout among asyncio's own cancellation, task groups and timeouts."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import anyio
import pytest
import trio

from pyresilience import EventType, Pipeline, ResilienceTimeoutError, RetryConfig, TimeoutConfig
from pyresilience.runtime import _anyio, _deadlines
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._deadlines import DeadlineQueue
from pyresilience.testing import EventRecorder, VirtualTime


@pytest.fixture
def anyio_backend():
    virtual = VirtualTime()
    with virtual.hosting():
        yield "asyncio", virtual.backend_options("asyncio")


@pytest.fixture(autouse=True)
async def cancellations_are_undone(anyio_backend):
    """Whatever the test did, it leaves its task with no cancellation request of ours."""
    before = asyncio.current_task().cancelling()
    yield
    assert asyncio.current_task().cancelling() == before
    await asyncio.sleep(3)


class Watch:
    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.started = self.loop.time()

    @property
    def elapsed(self):
        return pytest.approx(self.loop.time() - self.started, abs=1e-6)


async def limited(fn, seconds):
    return await Pipeline(TimeoutConfig(seconds=seconds)).call(fn)


def forget_the_groups_own_request():
    """A task group cancels its host when a child failed; before 3.13 that request stays on the task."""
    while sys.version_info < (3, 13) and asyncio.current_task().cancelling():
        asyncio.current_task().uncancel()


async def forever():
    await asyncio.sleep(1000)


async def test_expiry_leaves_no_request_to_cancel():
    for _ in range(3):
        with pytest.raises(ResilienceTimeoutError):
            await limited(forever, 1)
        assert asyncio.current_task().cancelling() == 0


async def test_a_native_cancel_arrives_unchanged():
    task = asyncio.ensure_future(limited(forever, 2))
    await asyncio.sleep(1)
    task.cancel("of the caller")
    with pytest.raises(asyncio.CancelledError, match="of the caller"):
        await task


@pytest.mark.parametrize("first", ["cancel", "expiry"])
async def test_a_native_cancel_in_the_same_iteration_as_the_expiry_is_not_swallowed(first):
    loop = asyncio.get_running_loop()
    at = loop.time() + 1
    seen = []
    events = EventRecorder()
    pipeline = Pipeline(TimeoutConfig(seconds=1), listeners=[events])

    async def guarded():
        try:
            await pipeline.call(forever)
        except BaseException as error:
            seen.append((type(error), asyncio.current_task().cancelling()))
            raise

    if first == "cancel":
        loop.call_at(at, lambda: task.cancel())
    task = asyncio.ensure_future(guarded())
    await asyncio.sleep(0)
    if first == "expiry":
        loop.call_at(at, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [(asyncio.CancelledError, 1)]
    assert events.types == [EventType.CANCELLED]


@pytest.mark.parametrize("fails_on_cancel", [True, False])
async def test_a_task_group_inside_ends_with_the_call(fails_on_cancel):
    ended = []

    async def child():
        try:
            await forever()
        except asyncio.CancelledError:
            ended.append(True)
            if fails_on_cancel:
                raise ValueError("clean-up broke") from None
            raise

    async def body():
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())

    with pytest.raises(ExceptionGroup if fails_on_cancel else ResilienceTimeoutError):
        await limited(body, 1)
    assert ended == [True, True]
    forget_the_groups_own_request()


async def test_a_task_group_inside_whose_child_fails_at_the_deadline():
    async def fails():
        await asyncio.sleep(1)
        raise ValueError

    async def body():
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await forever()

    with pytest.raises((ResilienceTimeoutError, ExceptionGroup)):
        await limited(body, 1)
    forget_the_groups_own_request()


async def test_a_failing_sibling_cancels_the_call_as_it_would_any_task():
    seen = []

    async def guarded():
        try:
            await limited(forever, 5)
        except BaseException as error:
            seen.append(type(error))
            raise

    async def fails():
        await asyncio.sleep(1)
        raise ValueError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(guarded())
            group.create_task(fails())
    assert seen == [asyncio.CancelledError]
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    forget_the_groups_own_request()


async def test_a_shorter_asyncio_timeout_inside_is_the_functions_own_affair():
    watch = Watch()

    async def body():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await forever()
        assert watch.elapsed == 1
        return "ok"

    assert await limited(body, 5) == "ok"


@pytest.mark.parametrize("inner_seconds", [1, 5])
async def test_an_asyncio_timeout_inside_does_not_take_our_expiry_for_its_own(inner_seconds):
    watch = Watch()
    inner = []

    async def body():
        try:
            async with asyncio.timeout(inner_seconds):
                await forever()
        except TimeoutError:
            inner.append(True)
            raise

    with pytest.raises(TimeoutError):
        await limited(body, 1)
    assert watch.elapsed == 1
    assert inner_seconds == 1 or not inner


@pytest.mark.parametrize("outer_seconds", [1, 5])
async def test_an_asyncio_timeout_outside(outer_seconds):
    """Earlier than ours it wins; at the same instant one of the two does, and nothing is left behind."""
    watch = Watch()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(1) as outer:
            await limited(forever, outer_seconds)
    assert watch.elapsed == 1
    assert outer.expired() or isinstance(caught.value, ResilienceTimeoutError)
    assert outer_seconds == 1 or outer.expired()


async def test_a_longer_asyncio_timeout_outside_goes_on():
    async with asyncio.timeout(5) as outer:
        with pytest.raises(ResilienceTimeoutError):
            await limited(forever, 1)
        await asyncio.sleep(1)
    assert not outer.expired()


async def test_what_asyncio_shield_protects_goes_on():
    done = []

    async def protected():
        await asyncio.sleep(2)
        done.append(True)

    async def body():
        await asyncio.shield(asyncio.ensure_future(protected()))

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert not done
    await asyncio.sleep(2)
    assert done


async def test_wait_for_inside_and_outside():
    watch = Watch()

    async def body():
        await asyncio.wait_for(forever(), 5)

    with pytest.raises(ResilienceTimeoutError):
        await asyncio.wait_for(limited(body, 1), 3)
    assert watch.elapsed == 1


async def test_a_wait_for_a_thread_that_anyio_protects_is_not_cut_short():
    """`anyio.to_thread.run_sync` without `abandon_on_cancel` is a shielded wait."""
    done = []
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    virtual = loop._virtual

    def work():
        loop.call_soon_threadsafe(entered.set)
        done.append(True)
        virtual.work_ended()

    async def body():
        virtual.work_started()
        await anyio.to_thread.run_sync(work)
        await forever()

    with pytest.raises(ResilienceTimeoutError):
        await limited(body, 1)
    assert done
    assert entered.is_set()


async def test_one_timer_serves_a_thousand_calls():
    """Deadlines of one duration come in order, so only the oldest needs a timer."""
    loop = asyncio.get_running_loop()
    go = asyncio.Event()
    pipeline = Pipeline(TimeoutConfig(seconds=5))
    before = len(loop._scheduled)
    calls = [asyncio.ensure_future(pipeline.call(go.wait)) for _ in range(1000)]
    await asyncio.sleep(1)
    assert len(loop._scheduled) - before <= 2
    go.set()
    assert await asyncio.gather(*calls) == [True] * 1000
    await asyncio.sleep(5)
    assert len(loop._scheduled) <= before  # and the idle one is gone after `seconds` at the most


async def test_pipelines_with_one_duration_share_the_timer_and_each_call_keeps_its_own_deadline():
    loop = asyncio.get_running_loop()
    before = len(loop._scheduled)
    watch = Watch()
    ends = {}

    async def call(number):
        await asyncio.sleep(number / 100)
        pipeline = Pipeline(TimeoutConfig(seconds=5), name=f"number {number}")
        with pytest.raises(ResilienceTimeoutError, match=f"^number {number}: "):
            await pipeline.call(forever)
        ends[number] = loop.time() - watch.started

    calls = [asyncio.ensure_future(call(number)) for number in range(100)]
    await asyncio.sleep(2)
    assert len(loop._scheduled) - before <= 1 + len(calls)  # the sleeps of `forever`, and one timer
    await asyncio.gather(*calls)
    assert ends == {number: pytest.approx(5 + number / 100, abs=1e-6) for number in range(100)}
    await asyncio.sleep(5)
    assert len(loop._scheduled) <= before


async def test_more_durations_than_are_kept_for_others_all_end_in_time():
    watch = Watch()
    durations = [1 + number / 1000 for number in range(2 * _deadlines.MOST_DURATIONS + 10)]
    pipelines = [Pipeline(TimeoutConfig(seconds=seconds)) for seconds in durations]
    ends = []
    for _ in range(2):
        began = watch.elapsed.expected

        async def call(pipeline, began=began):
            with pytest.raises(ResilienceTimeoutError):
                await pipeline.call(forever)
            ends.append(watch.elapsed.expected - began)

        await asyncio.gather(*map(call, pipelines))
    assert ends == pytest.approx(durations * 2, abs=1e-6)
    assert len(_deadlines._by_duration) <= _deadlines.MOST_DURATIONS


async def test_an_interrupt_while_the_timer_is_set_leaves_the_next_call_its_own(monkeypatch):
    class Interrupt(BaseException):
        pass

    def interrupted(*_args, **_kwargs):
        raise Interrupt

    guarded = Pipeline(TimeoutConfig(seconds=1))(forever)
    with monkeypatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(asyncio.get_running_loop(), "call_at", interrupted)
        await guarded()
    watch = Watch()
    with pytest.raises(ResilienceTimeoutError):
        await guarded()
    assert watch.elapsed == 1


if sys.version_info >= (3, 12):

    async def test_eager_tasks():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            with pytest.raises(ResilienceTimeoutError):
                await asyncio.create_task(limited(forever, 1))
        finally:
            loop.set_task_factory(None)


def test_trio_in_guest_mode_on_an_asyncio_host():
    """A trio task runs inside the host's loop there: the running loop is not the backend of the call."""
    ended = []

    async def guest():
        pipeline = Pipeline(TimeoutConfig(seconds=0.02))
        for _ in range(3):
            with pytest.raises(ResilienceTimeoutError):
                await pipeline.call(trio.sleep_forever)
        with trio.move_on_after(0.01) as scope:
            await pipeline.call(trio.sleep_forever)
        assert scope.cancelled_caught
        return "guest"

    async def host():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        with pytest.raises(ResilienceTimeoutError):
            await limited(forever, 0.02)
        ended.append((await done).unwrap())

    asyncio.run(host())
    assert ended == ["guest"]


def test_what_is_known_of_a_backend_is_not_learnt_outside_a_task(monkeypatch):
    """A coroutine that somebody steps in a callback of the loop, where anyio answers for asyncio all the same."""
    monkeypatch.setattr(_anyio, "_backends", {})
    guarded = Pipeline(RetryConfig(max_attempts=2, delay=0, jitter=False))(flaky := Flaky())

    def step():
        with contextlib.suppress(BaseException):
            guarded().send(None)

    async def main():
        asyncio.get_running_loop().call_soon(step)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert flaky.calls and set(_anyio._backends) <= {True}
    flaky.calls = 0
    assert trio.run(guarded) == "ok"


class Flaky:
    def __init__(self):
        self.calls = 0

    async def __call__(self):
        self.calls += 1
        if self.calls == 1:
            raise OSError
        return "ok"


def test_a_loop_whose_clock_was_replaced_is_asked_for_the_time():
    """As tools for virtual time do, on the loop itself or by a class of their own."""

    async def main():
        loop = asyncio.get_running_loop()
        assert DeadlineQueue(loop).time is sources.monotonic
        loop.time = lambda: 7.0
        assert DeadlineQueue(loop).time() == 7.0

    asyncio.run(main())
