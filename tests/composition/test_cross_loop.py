"""One policy object shared by two asyncio loops, a trio loop and plain threads at once, in real time."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    Cache,
    CacheConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    CircuitState,
    EventType,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    TimeoutConfig,
)
from pyresilience.pipeline import _in_flight as in_flight
from pyresilience.testing import EventRecorder

LOOPS = ["asyncio", "asyncio", "trio"]


class Meter:
    """How many run at one time, at the most, and how many ran at all."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = self.peak = self.runs = 0

    def __enter__(self):
        with self.lock:
            self.runs += 1
            self.running += 1
            self.peak = max(self.peak, self.running)

    def __exit__(self, *error):
        with self.lock:
            self.running -= 1


class Callers:
    """Loops and threads that make calls at the same time; errors that are not expected surface at the end."""

    def __init__(self, seconds=10.0):
        self.seconds = seconds
        self.threads = []
        self.errors = []
        self.start = threading.Event()

    def thread(self, fn, *args):
        def main():
            try:
                assert self.start.wait(self.seconds)
                fn(*args)
            except BaseException as error:
                self.errors.append(error)

        self.threads.append(threading.Thread(target=main, daemon=True))
        self.threads[-1].start()

    def loop(self, backend, fn, *args):
        async def bounded():
            with anyio.fail_after(self.seconds):
                await fn(*args)

        self.thread(lambda: anyio.run(bounded, backend=backend))

    def finish(self):
        self.start.set()
        end = time.monotonic() + self.seconds
        for thread in self.threads:
            thread.join(max(0, end - time.monotonic()))
        assert not [thread for thread in self.threads if thread.is_alive()]
        if self.errors:
            raise ExceptionGroup("callers failed", [error for error in self.errors if isinstance(error, Exception)])


def test_a_bulkhead_of_three():
    """Cancelled waiters, expired waits and hand-overs between all of them: never more than three, nothing lost."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=3, max_wait=0.004))
    patient = Bulkhead(BulkheadConfig(max_concurrent=3, max_wait=10))
    events = EventRecorder()
    guards = [Pipeline(bulkhead, patient, listeners=[events]), Pipeline(patient, listeners=[events])]
    meter = Meter()
    asked = []

    async def work():
        with meter:
            await anyio.sleep(draw.choice([0, 0.0003, 0.001]))

    def block():
        with meter:
            time.sleep(draw.choice([0, 0.0002]))

    async def task(seed):
        own = random.Random(seed)
        for _ in range(12):
            asked.append(True)
            try:
                with anyio.move_on_after(own.choice([0, 0.0005, 0.002, None])):
                    await own.choice(guards).call(work)
            except BulkheadFullError:
                pass

    async def tasks():
        async with anyio.create_task_group() as group:
            for seed in range(15):
                group.start_soon(task, seed)

    def calls(seed):
        own = random.Random(seed)
        for _ in range(100):
            asked.append(True)
            try:
                own.choice(guards).call_sync(block)
            except BulkheadFullError:
                pass

    draw = random.Random(5)
    callers = Callers()
    for backend in LOOPS:
        callers.loop(backend, tasks)
    for seed in range(3):
        callers.thread(calls, seed)
    callers.finish()
    for shared in (bulkhead, patient):
        statistics = shared.statistics()
        assert (statistics.in_use, statistics.waiting) == (0, 0)
    assert meter.peak <= 3
    ended = [event for event in events.events if event.event_type is not EventType.BULKHEAD_REJECTED]
    assert len(ended) + len(events.of(EventType.BULKHEAD_REJECTED)) == len(asked)
    assert not any(pipeline.in_flight for pipeline in guards)


def test_who_waits_is_served_in_the_order_of_coming():
    """One permit, and a line of loops and threads that came one after the other."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=10))
    pipeline = Pipeline(bulkhead)
    gate = threading.Event()
    order = []

    def waiting(count):
        end = time.monotonic() + 5
        while bulkhead.statistics().waiting < count:
            assert time.monotonic() < end
            time.sleep(0.0005)

    def block(number):
        order.append(number)

    async def work(number):
        order.append(number)

    holder = Callers()
    holder.thread(pipeline.call_sync, gate.wait)
    holder.start.set()
    end = time.monotonic() + 5
    while not bulkhead.statistics().in_use:
        assert time.monotonic() < end
    line = Callers()
    line.start.set()
    for number in range(12):
        if number % 4 == 3:
            line.thread(pipeline.call_sync, block, number)
        else:
            line.loop(LOOPS[number % 4], pipeline.call, work, number)
        waiting(number + 1)
    gate.set()
    line.finish()
    holder.finish()
    assert order == list(range(12))


def test_a_rate_limit():
    """Forty callers, ten at once and then one each 5 ms: no window has more, and each is served once."""
    limiter = RateLimiter(RateLimiterConfig(max_calls=10, period=0.05, max_wait=10))
    pipeline = Pipeline(limiter)
    times = [time.monotonic_ns()]

    async def work():
        times.append(time.monotonic_ns())

    async def tasks():
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(pipeline.call, work)

    callers = Callers()
    for backend in LOOPS:
        callers.loop(backend, tasks)
    for _ in range(10):
        callers.thread(lambda: pipeline.call_sync(lambda: times.append(time.monotonic_ns())))
    callers.finish()
    assert len(times) == 1 + 40
    assert not limiter._line
    # From before the first token to after the last one: however long a thread was kept from running in between.
    assert max(times) - times[0] >= 0.150e9


@pytest.mark.parametrize("ends", ["failures", "successes"])
def test_a_breaker(ends):
    """One transition each, whoever causes it; and after it opened nobody runs."""
    breaker = CircuitBreaker(
        CircuitBreakerConfig(
            failure_threshold=5,
            recovery_timeout=0.03,
            success_threshold=3,
            half_open_max_calls=2,
            probe_timeout=10,  # no probe is taken for lost because its thread was kept from running
        )
    )
    events = EventRecorder()
    pipeline = Pipeline(breaker, listeners=[events])
    for _ in range(5):
        breaker.record_failure()
    time.sleep(0.03)
    meter = Meter()

    async def work():
        with meter:
            await anyio.sleep(0.001)
        if ends == "failures":
            raise ValueError

    def block():
        with meter:
            time.sleep(0.001)
        if ends == "failures":
            raise ValueError

    async def task():
        for _ in range(10):
            try:
                await pipeline.call(work)
            except (ValueError, CircuitOpenError):
                await anyio.sleep(0.0005)

    async def tasks():
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(task)

    def calls():
        for _ in range(10):
            try:
                pipeline.call_sync(block)
            except (ValueError, CircuitOpenError):
                time.sleep(0.0005)

    callers = Callers()
    for backend in LOOPS:
        callers.loop(backend, tasks)
    for _ in range(3):
        callers.thread(calls)
    callers.finish()
    half_opened = len(events.of(EventType.CIRCUIT_HALF_OPEN))
    opened = len([event for event in events.of(EventType.CIRCUIT_OPEN) if event.detail == "opened"])
    closed = len(events.of(EventType.CIRCUIT_CLOSED))
    assert not breaker._circuit.probes
    if ends == "failures":
        assert meter.peak <= 2
        assert closed == 0
        assert opened in (half_opened, half_opened - 1)
    else:
        assert (half_opened, opened, closed) == (1, 0, 1)
        assert breaker.state is CircuitState.CLOSED


def test_a_cache_runs_each_key_once():
    """Followers in other loops and threads get the value of a leader that is somewhere else."""
    cache = Cache(CacheConfig())
    events = EventRecorder()
    pipeline = Pipeline(cache, listeners=[events])
    runs = []
    answers = []

    async def fetch(key):
        runs.append(key)
        await anyio.sleep(0.005)
        return [key]

    guarded = pipeline(fetch)

    async def tasks():
        async def ask(key):
            answers.append(await guarded(key))

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(ask, number % 6)

    callers = Callers()
    for backend in LOOPS:
        callers.loop(backend, tasks)
    callers.finish()
    assert sorted(runs) == list(range(6))
    assert len(answers) == 90
    assert len({id(answer) for answer in answers}) == 6
    assert len(events.of(EventType.CACHE_HIT)) == 84
    assert not cache._flights


def test_a_cache_shared_by_threads_and_cancelled_leaders():
    """A leader that is cancelled hands the flight to a follower, wherever that one lives."""
    cache = Cache(CacheConfig(ttl=0.001))
    pipeline = Pipeline(cache)
    answers = []

    async def fetch(key):
        await anyio.sleep(0.002)
        return key

    guarded = pipeline(fetch)

    async def task(seed):
        own = random.Random(seed)
        for _ in range(15):
            with anyio.move_on_after(own.choice([0.0005, 0.001, None])):
                answers.append(await guarded(1))

    async def tasks():
        async with anyio.create_task_group() as group:
            for seed in range(10):
                group.start_soon(task, seed)

    callers = Callers()
    for backend in LOOPS:
        callers.loop(backend, tasks)
    callers.finish()
    assert set(answers) == {1}
    assert not cache._flights


def test_a_timeout_keeps_its_loops_apart():
    pipeline = Pipeline(TimeoutConfig(seconds=0.02))
    late = []

    async def task():
        for seconds in (0.001, 5):
            began = time.monotonic()
            try:
                await pipeline.call(anyio.sleep, seconds)
            except TimeoutError:
                late.append(time.monotonic() - began)

    async def tasks():
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(task)

    callers = Callers()
    for backend in LOOPS:
        callers.loop(backend, tasks)
    callers.finish()
    assert len(late) == 30
    assert min(late) >= 0.0199


class Corpse:
    """An event loop that was closed while a task of it waited."""

    def __init__(self, coroutine, until):
        loop = asyncio.new_event_loop()
        self.task = loop.create_task(coroutine)
        end = time.monotonic() + 5
        while not until():
            assert time.monotonic() < end
            loop.run_until_complete(asyncio.sleep(0))
        self.task._log_destroy_pending = False
        loop.close()

    def bury(self):
        """Anyio keeps the tasks of a closed loop for ever, and so the calls that they were in; later tests count."""
        in_flight.reset_after_fork()


@pytest.mark.parametrize("dead", [1, 3, 1200])
def test_a_dead_waiter_swallows_no_permit(dead):
    """The permit is handed past the loops that were closed, however many, to the thread behind them."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=10, max_queue=2000))
    pipeline = Pipeline(bulkhead)
    gate = threading.Event()
    holder = Callers()
    holder.thread(pipeline.call_sync, gate.wait)
    holder.start.set()
    end = time.monotonic() + 5
    while not bulkhead.statistics().in_use:
        assert time.monotonic() < end

    async def never():
        raise AssertionError("a permit was handed to a corpse")

    async def crowd():
        tasks = [asyncio.ensure_future(pipeline.call(never)) for _ in range(dead)]
        for task in tasks:
            task._log_destroy_pending = False
        await asyncio.gather(*tasks)

    corpse = Corpse(crowd(), lambda: bulkhead.statistics().waiting == dead)
    line = Callers()
    line.start.set()
    line.thread(pipeline.call_sync, int)
    while bulkhead.statistics().waiting < dead + 1:
        assert time.monotonic() < end
        time.sleep(0.0005)
    gate.set()
    line.finish()
    holder.finish()
    assert (bulkhead.statistics().in_use, bulkhead.statistics().waiting) == (0, 0)
    corpse.bury()


def test_a_dead_waiter_does_not_hold_up_a_rate_limit():
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=0.02, max_wait=10))
    pipeline = Pipeline(limiter)
    assert limiter.acquire()

    async def never():
        raise AssertionError

    corpse = Corpse(pipeline.call(never), lambda: limiter._line)
    began = time.monotonic()
    line = Callers()
    for _ in range(2):
        line.thread(pipeline.call_sync, int)
    line.finish()
    assert time.monotonic() - began < 1
    assert not limiter._line
    corpse.bury()


def test_a_dead_leader_does_not_block_a_cache_for_ever():
    """Its flight can never land; who asks again later waits no longer than its own deadline."""
    cache = Cache(CacheConfig())
    pipeline = Pipeline(cache, TimeoutConfig(seconds=30, total=0.05))

    async def fetch(key):
        await asyncio.sleep(60 if key == 1 else 0)
        return key

    guarded = pipeline(fetch)
    corpse = Corpse(guarded(1), lambda: cache._flights)

    async def ask():
        with pytest.raises(TimeoutError):
            await guarded(1)
        return await guarded(2)

    assert asyncio.run(ask()) == 2
    corpse.bury()


def test_a_policy_outlives_its_first_loop():
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=5))
    pipeline = Pipeline(
        CacheConfig(ttl=0.000001), RateLimiterConfig(max_calls=1000), bulkhead, TimeoutConfig(seconds=5, total=9)
    )

    @pipeline
    async def quick(number):
        await anyio.lowlevel.checkpoint()
        return number

    async def crowd():
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(quick, number)

    for backend in LOOPS * 2:
        anyio.run(crowd, backend=backend)
    assert bulkhead.statistics().in_use == 0
