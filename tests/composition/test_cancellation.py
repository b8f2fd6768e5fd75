"""The cancellation matrix: every policy, every pair and the standard order, cancelled at every moment, in every way.

After each: permits, places in line, probes and flights are back, the breaker has no verdict, the cancellation is
what it was, and the call's last event is its only terminal one: CANCELLED.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    Cache,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitState,
    EventType,
    FallbackConfig,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    Retry,
    RetryConfig,
    TimeoutConfig,
    resilience_context,
)
from pyresilience.testing import EventRecorder, VirtualTime
from tests.lab import After, every_runtime
from tests.locks import free

ORDER = ("fallback", "cache", "total", "retry", "breaker", "limiter", "bulkhead", "attempt")
"""The standard order."""

COMPOSITIONS = [*itertools.chain.from_iterable(itertools.combinations(ORDER, size) for size in (1, 2)), ORDER]

NEEDS = {
    "before entry": set(),
    "running": set(),
    "cleaning up": set(),
    "backoff": {"retry"},
    "second attempt": {"retry"},
    "queued for a permit": {"bulkhead"},
    "just before the grant": {"bulkhead"},
    "just after the grant": {"bulkhead"},
    "waiting for a turn": {"limiter"},
    "in the fallback": {"fallback"},
    "leading a flight": {"cache"},
    "following a flight": {"cache"},
    "probing": {"breaker"},
}

TERMINAL = {EventType.SUCCESS, EventType.FAILURE, EventType.FALLBACK_USED, EventType.CACHE_HIT, EventType.CANCELLED}


@dataclass
class World:
    """The live layers of one composition, and a call through them that is going to be cancelled."""

    names: tuple[str, ...]
    events: EventRecorder = field(default_factory=EventRecorder)
    fallbacks: int = 0
    runs: int = 0
    cancelled: Any = None

    def __post_init__(self):
        async def fallback(error):
            self.fallbacks += 1
            await anyio.sleep(50)
            return "instead"

        self.bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=100))
        self.limiter = RateLimiter(RateLimiterConfig(max_calls=2, period=20, max_wait=100))
        self.breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2, recovery_timeout=0.5))
        self.cache = Cache()
        parts = {
            "fallback": FallbackConfig(handler=fallback),
            "cache": self.cache,
            "total": TimeoutConfig(seconds=300, per_attempt=False),
            "retry": RetryConfig(max_attempts=3, delay=5, jitter=False),
            "breaker": self.breaker,
            "limiter": self.limiter,
            "bulkhead": self.bulkhead,
            "attempt": TimeoutConfig(seconds=200),
        }
        self.pipeline = Pipeline(*(parts[name] for name in self.names), listeners=[self.events])

    def at_rest(self):
        permits = self.bulkhead.statistics()
        assert (permits.in_use, permits.waiting) == (0, 0)
        assert not self.breaker._circuit.probes
        assert not self.limiter._line
        assert not self.cache._flights
        assert not self.pipeline.in_flight

    def mine(self):
        return [event for event in self.events.events if (event.context or {}).get("who") == "me"]

    def ended_cancelled(self):
        events = self.mine()
        assert [event.event_type for event in events if event.event_type in TERMINAL] == [EventType.CANCELLED]
        assert events[-1].event_type is EventType.CANCELLED
        assert events[-1].error is self.cancelled


async def me(world, guarded, *args):
    """The call under test: notes how it ended and changes nothing."""
    token = resilience_context.set({"who": "me"})
    try:
        return await guarded(*args)
    except BaseException as error:
        world.cancelled = error
        raise
    finally:
        resilience_context.reset(token)


@dataclass
class Moment:
    """What has to be going on when the cancellation comes, at second 1, and what goes on beside it."""

    world: World
    name: str
    hold: Any = None

    async def guarded(self):
        world, name = self.world, self.name

        async def fn(key="key"):
            world.runs += 1
            if name in ("backoff", "in the fallback") or (name == "second attempt" and world.runs == 1):
                raise LookupError
            try:
                await anyio.sleep(30)
            finally:
                if name == "cleaning up":
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(2)
            return "value"

        if name == "second attempt":
            world.pipeline.layers[world.names.index("retry")].config = RetryConfig(delay=0.5, jitter=False)
        if name == "in the fallback":
            for layer in world.pipeline.layers:
                if isinstance(layer, Retry):
                    layer.config = RetryConfig(max_attempts=1)
        if name == "waiting for a turn":
            assert world.limiter.acquire()
            assert world.limiter.acquire()
        if name == "probing":
            world.breaker.record_failure()
            world.breaker.record_failure()
            await anyio.sleep(0.5)
        if "permit" in name or "grant" in name:
            await self.take_the_permit()
        return world.pipeline(fn)

    async def take_the_permit(self):
        """As a streaming body would: the permit comes back at the very statement that releases the hold."""

        async def stream(call, call_next):
            self.hold = call.hold()
            return await call_next(call)

        async def body():
            return None

        await Pipeline(self.world.bulkhead, stream).call(body)
        assert self.world.bulkhead.statistics().in_use == 1

    def strike(self, cancel):
        if self.name == "just before the grant":
            cancel()
            self.hold.release()
        elif self.name == "just after the grant":
            self.hold.release()
            cancel()
        else:
            cancel()

    async def afterwards(self):
        if self.name == "queued for a permit":
            self.hold.release()


async def neighbour(world, moment, guarded, answers):
    """A second call with the same arguments, for the moments that need one."""
    if moment.name == "leading a flight":
        await anyio.sleep(0.5)
    answers.append(await guarded())


async def by_scope(world, moment, guarded):
    with anyio.CancelScope() as scope:
        if moment.name == "before entry":
            scope.cancel()
            await me(world, guarded)
        async with anyio.create_task_group() as group:

            async def subject():
                with scope:
                    await me(world, guarded)

            scope = anyio.CancelScope()
            group.start_soon(subject)
            await anyio.sleep(1)
            moment.strike(scope.cancel)
    assert scope.cancelled_caught


async def by_deadline(world, moment, guarded):
    seconds = 0 if moment.name == "before entry" else 1
    async with anyio.create_task_group() as group:
        if moment.hold is not None:

            async def release():
                await anyio.sleep(1)
                moment.strike(lambda: None)

            group.start_soon(release)
        with anyio.move_on_after(seconds) as scope:
            await me(world, guarded)
    assert scope.cancelled_caught


async def by_task_cancel(world, moment, guarded):
    task = asyncio.ensure_future(me(world, guarded))
    if moment.name != "before entry":
        await anyio.sleep(1)
    else:
        await asyncio.sleep(0)
    moment.strike(lambda: task.cancel("of the caller"))
    with pytest.raises(asyncio.CancelledError, match="of the caller"):
        await task
    assert task.cancelled()
    assert world.cancelled.args == ("of the caller",)


async def cell(names, name, cancelled_by):
    """One cell of the matrix."""
    world = World(names)
    moment = Moment(world, name)
    guarded = await moment.guarded()
    answers = []
    async with anyio.create_task_group() as group:
        if name in ("leading a flight", "following a flight"):
            group.start_soon(neighbour, world, moment, guarded, answers)
            if name == "following a flight":
                await anyio.sleep(0.5)
        await cancelled_by(world, moment, guarded)
        await moment.afterwards()
    if name != "before entry" or cancelled_by is not by_deadline or world.cancelled is not None:
        assert isinstance(world.cancelled, anyio.get_cancelled_exc_class())
        world.ended_cancelled()
    world.at_rest()
    assert world.fallbacks == (name == "in the fallback")
    failed = name in ("backoff", "second attempt", "in the fallback")
    assert world.breaker.failure_count == (failed and "breaker" in names)
    assert world.breaker.state is (CircuitState.HALF_OPEN if name == "probing" else CircuitState.CLOSED)
    if answers or name.endswith("a flight"):
        assert answers == ["value"]  # the neighbour noticed nothing
    await later_calls_are_free(world)


async def later_calls_are_free(world):
    """What was taken is there for others, at once."""
    world.breaker.force_close()
    await anyio.sleep(100)
    began = anyio.current_time()
    for _ in range(2):
        assert await world.pipeline.call(anyio.sleep, 0) is None
    assert anyio.current_time() - began < 0.001
    world.at_rest()


def compositions(moment):
    return [names for names in COMPOSITIONS if NEEDS[moment] <= set(names)]


async def every_composition(moment, cancelled_by):
    for names in compositions(moment):
        try:
            before = asyncio.current_task().cancelling()
        except RuntimeError:
            before = None  # trio
        try:
            await cell(names, moment, cancelled_by)
        except BaseException as error:
            error.add_note(f"composition: {' > '.join(names)}")
            raise
        if before is not None:
            assert asyncio.current_task().cancelling() == before


@pytest.mark.parametrize("moment", NEEDS)
async def test_cancelled_by_a_scope(moment):
    await every_composition(moment, by_scope)


@pytest.mark.parametrize("moment", sorted(NEEDS.keys() - {"backoff", "waiting for a turn"}))
async def test_cancelled_by_a_deadline(moment):
    """Except in waits that are not begun because they would not end in time."""
    await every_composition(moment, by_deadline)


@pytest.mark.parametrize("moment", NEEDS)
def test_cancelled_as_an_asyncio_task(moment):
    VirtualTime().run(every_composition, moment, by_task_cancel, backend="asyncio")


@pytest.mark.parametrize("names", COMPOSITIONS, ids=" > ".join)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@every_runtime
async def test_an_error_that_is_no_exception_is_handled_as_a_cancellation(lab, names, error):
    """Raised by the function itself: not retried, not answered by a fallback, not shared with followers."""
    world = World(names)
    original = error("of the function")
    guarded = world.pipeline(lab.function(original)) if not lab.blocking or "fallback" not in names else None
    if guarded is None:  # its handler is async
        world = World(tuple(name for name in names if name != "fallback"))
        guarded = world.pipeline(lab.function(original))
    with pytest.raises(error) as caught:
        await lab.call(guarded)
    assert caught.value is original
    assert world.events.events[-1].event_type is EventType.CANCELLED
    assert world.events.events[-1].error is original
    assert len([event for event in world.events.events if event.event_type in TERMINAL]) == 1
    assert world.breaker.failure_count == 0
    world.at_rest()


@every_runtime
async def test_an_error_that_is_no_exception_leaves_the_probe_to_the_next_call(lab):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, recovery_timeout=1, success_threshold=1))
    breaker.record_failure()
    await lab.sleep(1)
    guarded = lab.pipeline(breaker)(lab.function(KeyboardInterrupt(), "ok"))
    with pytest.raises(KeyboardInterrupt):
        await lab.call(guarded)
    assert breaker.state is CircuitState.HALF_OPEN
    assert await lab.call(guarded) == "ok"
    assert breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("kind", list(EventType))
@every_runtime
async def test_a_listener_that_interrupts_takes_nothing_with_it(lab, kind):
    """Ctrl-C while a listener runs, at any event of several stories: everything is given back."""

    class Stop(KeyboardInterrupt):
        pass

    def listener(event):
        if event.event_type is kind:
            raise Stop

    listener.event_types = [kind]
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    breaker = CircuitBreaker(
        CircuitBreakerConfig(failure_threshold=2, recovery_timeout=1, success_threshold=1, slow_call_duration=0.5)
    )
    cache = Cache()
    pipeline = Pipeline(
        FallbackConfig(handler="instead", fallback_on=(KeyError,)),
        cache,
        RetryConfig(max_attempts=2, delay=0.1),
        breaker,
        RateLimiterConfig(max_calls=8, period=1000),
        bulkhead,
        TimeoutConfig(seconds=2),
        listeners=[listener],
    )
    fn = lab.function(
        "ok", KeyError(), KeyError(), After(1, "slow"), After(5), After(5), ValueError(), ValueError(), "ok"
    )
    guarded = pipeline(fn)
    interrupted = 0
    for number in range(14):
        try:
            await lab.call(guarded, number // 2)
        except Stop:
            interrupted += 1
        except Exception:
            pass
        await lab.sleep(6)  # longer than an abandoned function runs
        assert bulkhead.statistics().in_use == 0
        assert not cache._flights
        assert not breaker._circuit.probes
        assert not pipeline.in_flight
        assert all(free(layer._lock) for layer in (bulkhead, breaker, cache))
    if kind not in (EventType.BULKHEAD_REJECTED, EventType.CANCELLED):
        assert interrupted


@pytest.mark.parametrize("error", [None, ValueError("of the body")])
@every_runtime
async def test_a_listener_that_interrupts_the_end_of_a_stream_takes_nothing_with_it(lab, error):
    """The body ends long after its call was answered; settlement goes on to the last permit."""
    holds = []

    async def stream(call, call_next):
        holds.append(call.hold())
        return await call_next(call)

    class Stop(KeyboardInterrupt):
        pass

    def listener(event):
        raise Stop

    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    pipeline = Pipeline(bulkhead, breaker, stream, listeners=[listener])
    assert await lab.call(pipeline(lab.function("headers"))) == "headers"
    assert bulkhead.statistics().in_use == pipeline.in_flight == 1
    with pytest.raises(Stop):
        holds[0].release(error)
    assert bulkhead.statistics().in_use == pipeline.in_flight == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_function_in_a_thread_is_abandoned_when_its_call_is_cancelled(backend):
    """It cannot be stopped: the caller leaves at once, and the permit follows when the function ends."""
    time = VirtualTime()
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    events = EventRecorder()
    pipeline = Pipeline(CircuitBreakerConfig(), bulkhead, listeners=[events])

    async def main():
        began = anyio.current_time()
        with anyio.move_on_after(1) as scope:
            await pipeline.call(time.sleep, 10)
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(1)
        assert events.types == [EventType.CANCELLED]
        assert events.events[0].detail == "function abandoned"
        await anyio.sleep(8)
        assert bulkhead.statistics().in_use == 1
        await anyio.sleep(2)
        assert bulkhead.statistics().in_use == 0
        assert len(events.events) == 1

    time.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_wait_for_a_worker_thread_never_starts_the_function(backend):
    time = VirtualTime()
    ran = []
    pipeline = Pipeline(TimeoutConfig(seconds=60, pool_size=1))

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.call, time.sleep, 10)
            await anyio.sleep(1)
            with anyio.move_on_after(1) as scope:
                await pipeline.call(lambda: ran.append(True))
            assert scope.cancelled_caught
        await anyio.sleep(20)
        assert not ran
        assert pipeline.pool.abandoned == 0

    time.run(main, backend=backend)


async def test_a_guarded_coroutine_that_is_closed_gives_everything_back():
    """As when a generator or a half-run coroutine is thrown away."""
    world = World(("breaker", "limiter", "bulkhead"))
    reached = []

    class Forever:
        def __await__(self):
            reached.append(True)
            yield

    async def fn():
        await Forever()

    coroutine = world.pipeline(fn)()
    coroutine.send(None)
    assert reached
    assert world.bulkhead.statistics().in_use == 1
    coroutine.close()
    world.at_rest()
    assert world.events.types == [EventType.CANCELLED]
