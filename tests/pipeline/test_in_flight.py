"""What counts calls in flight: places, which are used again, and keep nothing of a call alive."""

import asyncio
import contextlib
import gc
import weakref

import anyio
import pytest

from pyresilience import Pipeline, RetryConfig, shutdown_async
from pyresilience.pipeline import _in_flight as in_flight

pipeline = Pipeline(RetryConfig(max_attempts=1))


class Caller:
    """Its guarded method waits for something that only the object itself leads to."""

    @pipeline
    async def ask(self):
        self.answer = asyncio.get_running_loop().create_future()
        return await self.answer


async def forgotten_calls(count):
    """Weak references to callers whose tasks nobody holds any more."""
    callers = [Caller() for _ in range(count)]
    for caller in callers:
        task = asyncio.ensure_future(caller.ask())
        task._log_destroy_pending = False
    await asyncio.sleep(0)
    assert pipeline.in_flight == count
    return [weakref.ref(caller) for caller in callers]


def test_a_call_that_was_forgotten_is_collected_whatever_its_arguments_lead_to():
    async def forget():
        callers = await forgotten_calls(3)
        gc.collect()
        assert [caller() for caller in callers] == [None] * 3
        assert pipeline.in_flight == 0

    asyncio.run(forget())


def test_places_that_the_collector_gave_back_count_again():
    async def forget():
        await forgotten_calls(3)
        gc.collect()
        callers = await forgotten_calls(4)
        assert pipeline.in_flight == 4
        del callers
        gc.collect()

    asyncio.run(forget())
    assert pipeline.call_sync(lambda: pipeline.in_flight) == 1


def test_sync_calls_use_as_many_places_as_there_are_calls_at_once():
    def nested(depth, end):
        return guarded(depth - 1, end) if depth else end()

    guarded = pipeline(nested)
    guarded(5, int)
    places = len(in_flight._places)
    for _ in range(10):
        assert guarded(5, lambda: pipeline.in_flight) == 6
        with pytest.raises(ValueError, match="invalid literal"):
            guarded(5, lambda: int("x"))
    assert len(in_flight._places) == places


async def test_async_calls_use_as_many_places_as_there_are_calls_at_once(anyio_backend):
    @pipeline
    async def wait(fails):
        await anyio.sleep(1)
        if fails:
            raise asyncio.InvalidStateError

    async def call(fails):
        with contextlib.suppress(asyncio.InvalidStateError):
            await wait(fails)

    async def crowd(cancelled):
        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(call, number % 2)
            await anyio.sleep(0.5)
            assert pipeline.in_flight == 30
            if cancelled:
                group.cancel_scope.cancel()

    for cancelled in (False, True):
        await crowd(cancelled)
    places = len(in_flight._places)
    for cancelled in (False, True, False):
        await crowd(cancelled)
        assert len(in_flight._places) == places and not pipeline.in_flight


async def test_work_that_nobody_will_end_is_not_waited_for(anyio_backend):
    """As a streamed response that was dropped unread."""
    kept = []

    async def streaming(call, call_next):
        kept.append(call.hold())
        return await call_next(call)

    guard = Pipeline(streaming)
    for _ in range(3):
        await guard.call(anyio.sleep, 0)
    assert guard.in_flight == 3
    async with anyio.create_task_group() as group:

        @group.start_soon
        async def drop():
            await anyio.sleep(1)
            kept.clear()
            gc.collect()

        began = anyio.current_time()
        assert await shutdown_async(timeout=5) is True
        assert anyio.current_time() - began == pytest.approx(1)
    assert guard.in_flight == 0


async def test_work_that_goes_on_uses_as_many_places_as_there_is_at_once(anyio_backend):
    kept = []

    async def streaming(call, call_next):
        kept.append(call.hold())
        return await call_next(call)

    guard = Pipeline(streaming)

    async def crowd():
        for _ in range(30):
            await guard.call(anyio.sleep, 0)
        assert guard.in_flight == 30
        while kept:
            kept.pop().release()

    await crowd()
    places = len(in_flight._places)
    await crowd()
    assert len(in_flight._places) == places and guard.in_flight == 0
