"""Bulkhead: who runs, who waits, and where permits are."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyresilience import Bulkhead, BulkheadConfig, BulkheadFullError, Pipeline, RetryConfig, TimeoutConfig
from pyresilience.policies.bulkhead import BulkheadStatistics
from pyresilience.testing import VirtualTime
from tests.lab import After, every_runtime


@every_runtime
async def test_more_calls_than_permits_are_refused_at_once(lab):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=2), name="pool")
    fn = lab.function(After(5))
    guarded = lab.pipeline(bulkhead)(fn)
    results = await lab.together(*[lambda: lab.call(guarded)] * 5)
    refused = [result for result in results if isinstance(result, BulkheadFullError)]
    assert results.count("ok") == 2 and len(refused) == 3 and fn.calls == 2 and lab.now == 5
    assert (refused[0].layer, refused[0].name) == ("bulkhead", "pool")
    assert bulkhead.statistics() == BulkheadStatistics(limit=2, in_use=0, waiting=0)
    rejected = [event for event in lab.events.events if event.event_type == "bulkhead_rejected"]
    assert [event.detail for event in rejected] == ["full"] * 3
    assert all(isinstance(event.error, BulkheadFullError) for event in rejected)


@every_runtime
async def test_waiting_calls_are_served_in_the_order_in_which_they_came(lab):
    order = []

    async def caller(number):
        async def record():
            order.append(number)
            await lab.sleep(10)

        def record_sync():
            order.append(number)
            lab.time.sleep(10)

        return await lab.call(pipeline(record_sync if lab.blocking else record))

    pipeline = lab.pipeline(BulkheadConfig(max_concurrent=1, max_wait=1000))
    await lab.together(*[(lambda number=number: caller(number)) for number in range(6)], apart=0.5)
    assert order == [0, 1, 2, 3, 4, 5] and lab.now == 60


@every_runtime
async def test_a_wait_ends_after_max_wait(lab):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=2))
    guarded = lab.pipeline(bulkhead)(lab.function(After(10)))

    async def late():
        await lab.sleep(1)
        error = await lab.outcome(guarded)
        assert isinstance(error, BulkheadFullError) and lab.now == 3
        assert bulkhead.statistics() == BulkheadStatistics(1, 1, 0)
        return True

    assert await lab.together(lambda: lab.call(guarded), late) == ["ok", True]
    assert lab.events.events[0].detail == "no permit within 2.00s"


@every_runtime
async def test_the_queue_is_bounded(lab):
    guarded = lab.pipeline(BulkheadConfig(max_concurrent=1, max_wait=100, max_queue=2))(lab.function(After(1)))
    results = await lab.together(*[lambda: lab.call(guarded)] * 5, apart=0.01)
    assert results[:3] == ["ok"] * 3
    assert [type(result) for result in results[3:]] == [BulkheadFullError] * 2
    assert {event.detail for event in lab.events.events if event.detail} == {"queue full"}


@every_runtime
async def test_a_newcomer_never_overtakes_those_who_wait(lab):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=100))
    order = []

    def named(name):
        fn = lab.function(After(1, name))
        guarded = lab.pipeline(bulkhead)(fn)

        async def go():
            order.append(await lab.call(guarded))
            if name == "first":
                order.append(await lab.call(guarded))

        return go

    await lab.together(named("first"), named("second"), named("third"), apart=0.1)
    assert order == ["first", "second", "third", "first"]


@every_runtime
async def test_a_wait_ends_at_the_deadline_of_the_call(lab):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=100))
    holder = lab.pipeline(bulkhead)(lab.function(After(50)))
    fn = lab.function("never")
    hurried = lab.pipeline(TimeoutConfig(3), bulkhead)(fn)

    async def late():
        await lab.sleep(1)
        error = await lab.outcome(hurried)
        assert isinstance(error, TimeoutError) and lab.now == 4 and fn.calls == 0
        assert bulkhead.statistics().waiting == 0

    assert await lab.together(lambda: lab.call(holder), late) == ["ok", None]
    assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)


@every_runtime
async def test_a_permit_is_not_held_while_a_retry_waits(lab):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    seen = []

    async def watch():
        await lab.sleep(0.5)
        seen.append(bulkhead.statistics().in_use)

    guarded = lab.pipeline(RetryConfig(delay=1, jitter=False), bulkhead)(lab.function(OSError(), "ok"))
    await lab.together(lambda: lab.call(guarded), watch)
    assert seen == [0]


@every_runtime
async def test_abandoned_work_keeps_its_permit_until_it_ends(lab):
    """Only sync functions are abandoned; on the async side they run in worker threads as well."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    pipeline = lab.pipeline(RetryConfig(max_attempts=1), bulkhead, TimeoutConfig(1))

    def slow():
        lab.time.sleep(10)

    async def call():
        return pipeline.call_sync(slow) if lab.blocking else await pipeline.call(slow)

    assert isinstance(await lab.outcome(call), TimeoutError)
    assert lab.now == 1 and bulkhead.statistics().in_use == 1
    assert isinstance(await lab.outcome(call), BulkheadFullError)
    await lab.sleep(9.5)
    assert bulkhead.statistics().in_use == 0
    timeout = next(event for event in lab.events.events if event.event_type == "timeout")
    assert timeout.detail == "attempt timed out after 1.00s; function abandoned"


@every_runtime
async def test_a_bulkhead_around_retries_waits_for_the_abandoned_work_of_every_attempt(lab):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    pipeline = lab.pipeline(bulkhead, RetryConfig(max_attempts=2, delay=0), TimeoutConfig(1))
    lengths = [10, 0]

    def work():
        lab.time.sleep(lengths.pop(0))
        return "ok"

    async def call():
        return pipeline.call_sync(work) if lab.blocking else await pipeline.call(work)

    assert await lab.call(call) == "ok"
    assert lab.now == 1 and bulkhead.statistics().in_use == 1
    assert lab.events.sequence == [("timeout", 1), ("retry", 1), ("success", 2)]
    await lab.sleep(10)
    assert bulkhead.statistics().in_use == 0
    assert lab.events.sequence[-1] == ("success", 2), "no event after the answer"


def test_a_sync_wait_in_the_thread_of_an_event_loop_is_refused_at_once():
    """Only that thread could give the permit back."""
    time = VirtualTime()
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=100))

    async def main():
        @Pipeline(bulkhead)
        async def outer():
            return Pipeline(bulkhead).call_sync(lambda: "inner")

        with pytest.raises(BulkheadFullError):
            await outer()

    for backend in ("asyncio", "trio"):
        time.run(main, backend=backend)
    assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)


async def test_a_cancelled_waiter_leaves_and_the_next_one_is_served():
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=100))
    order = []

    @Pipeline(bulkhead)
    async def work(name, seconds):
        order.append(name)
        await anyio.sleep(seconds)

    async def impatient():
        with anyio.move_on_after(1):
            await work("impatient", 1)

    async with anyio.create_task_group() as group:
        group.start_soon(work, "first", 5)
        await anyio.sleep(0.1)
        group.start_soon(impatient)
        await anyio.sleep(0.1)
        group.start_soon(work, "third", 1)
    assert order == ["first", "third"]
    assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)


call_plan = st.tuples(
    st.floats(0, 5).map(lambda x: round(x, 3)),  # start
    st.floats(0.001, 5).map(lambda x: round(x, 4)),  # duration
    st.booleans(),  # fails
    st.one_of(st.none(), st.floats(0.01, 5).map(lambda x: round(x, 5))),  # cancelled after
)


@settings(max_examples=100, deadline=None)
@given(plans=st.lists(call_plan, max_size=8), limit=st.integers(1, 3), backend=st.sampled_from(["asyncio", "trio"]))
def test_any_program_keeps_the_limit_and_gives_every_permit_back(plans, limit, backend):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=limit, max_wait=1.5, max_queue=3))
    running = 0
    peak = 0

    @Pipeline(bulkhead)
    async def work(seconds, fails):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        try:
            await anyio.sleep(seconds)
            if fails:
                raise OSError
        finally:
            running -= 1

    async def one(start, seconds, fails, cancelled_after):
        await anyio.sleep(start)
        with anyio.move_on_after(float("inf") if cancelled_after is None else cancelled_after):
            try:
                await work(seconds, fails)
            except (OSError, BulkheadFullError):
                pass

    async def main():
        async with anyio.create_task_group() as group:
            for plan in plans:
                group.start_soon(one, *plan)

    VirtualTime().run(main, backend=backend)
    assert peak <= limit
    assert bulkhead.statistics() == BulkheadStatistics(limit, 0, 0)
