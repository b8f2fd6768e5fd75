"""What counts calls in flight: places, which are used again, and keep nothing of a call alive."""

import asyncio
import contextlib
import gc
import threading
import weakref

import anyio
import pytest

from pyresilience import Pipeline, RetryConfig, shutdown_async
from pyresilience.pipeline import _async_root
from pyresilience.pipeline import _in_flight as in_flight
from pyresilience.pipeline._in_flight import Place, Places

pipeline = Pipeline(RetryConfig(max_attempts=1))


class Caller:
    """Its guarded method waits for something that only the object itself leads to."""

    @pipeline
    async def ask(self):
        self.answer = asyncio.get_running_loop().create_future()
        return await self.answer


def number_of_places():
    return sum(len(kind._all) for kind in (*in_flight.of_calls, in_flight.held))


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
    places = number_of_places()
    for _ in range(10):
        assert guarded(5, lambda: pipeline.in_flight) == 6
        with pytest.raises(ValueError, match="invalid literal"):
            guarded(5, lambda: int("x"))
    assert number_of_places() == places


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
    places = number_of_places()
    for cancelled in (False, True, False):
        await crowd(cancelled)
        assert number_of_places() == places and not pipeline.in_flight


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
    places = number_of_places()
    await crowd()
    assert number_of_places() == places and guard.in_flight == 0


class Abort(BaseException):
    pass


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_a_call_that_cannot_even_fail_properly_gives_its_place_back(colour):
    def listener(event):
        raise Abort

    guard = Pipeline(listeners=[listener])

    def fail():
        raise OSError

    async def fail_later():
        raise OSError

    def call():
        with pytest.raises(Abort):
            guard.call_sync(fail) if colour == "def" else asyncio.run(guard.call(fail_later))

    for _ in range(10):
        call()
    before = number_of_places()
    for _ in range(10):
        call()
    assert number_of_places() == before and guard.in_flight == 0


def test_calls_at_the_limit_of_recursion_give_their_places_back():
    @pipeline
    def deeper():
        return deeper()

    def until_it_breaks():
        with pytest.raises(RecursionError):
            deeper()

    for _ in range(5):
        until_it_breaks()
    before = number_of_places()
    for _ in range(20):
        until_it_breaks()
    assert number_of_places() <= before + 10 and pipeline.in_flight == 0
    assert pipeline.call_sync(int) == 0


async def test_after_a_rush_the_places_that_are_not_needed_any_more_go(anyio_backend, monkeypatch):
    places = Places(Place)
    monkeypatch.setattr(in_flight, "of_calls", [places])
    for name, value in (("places", places), ("take_place", places.take), ("leave_place", places.leave)):
        monkeypatch.setattr(_async_root, name, value)

    @pipeline
    async def wait():
        await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for _ in range(3 * in_flight.MOST_FREE):
            group.start_soon(wait)
        await anyio.sleep(0.5)
        assert pipeline.in_flight == 3 * in_flight.MOST_FREE
    assert pipeline.in_flight == 0
    assert len(places._all) <= 1.1 * in_flight.MOST_FREE
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(wait)
        await anyio.sleep(0.5)
        assert pipeline.in_flight == 10


@pytest.mark.parametrize("position", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("kind", [*in_flight.of_calls, in_flight.held], ids=["async", "sync", "held"])
def test_a_call_that_is_handed_over_to_its_hold_while_somebody_looks_is_seen(monkeypatch, kind, position):
    """The other thread looks at some place, and when it goes on the call has returned."""
    holds, arrived, go_on = [], threading.Event(), threading.Event()

    async def streaming(call, call_next):
        holds.append(call.hold())
        return await call_next(call)

    guard = Pipeline(streaming)
    look = in_flight.owner_of
    caller = threading.Thread(target=guard.call_sync, args=(lambda: arrived.set() or go_on.wait(),))

    def meanwhile(place):
        if place is kind.all()[position]:
            go_on.set()
            caller.join()
        return look(place)

    for places_of_a_kind in (*in_flight.of_calls, in_flight.held):
        places_of_a_kind.leave(places_of_a_kind.new())
    caller.start()
    arrived.wait()
    with monkeypatch.context() as patch:
        patch.setattr(in_flight, "owner_of", meanwhile)
        seen = guard.in_flight
    assert seen in (1, 2) and len(holds) == 1
    assert guard.in_flight == 1
    holds[0].release()
    assert guard.in_flight == 0
