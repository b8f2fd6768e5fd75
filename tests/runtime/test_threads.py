"""The pool of daemon worker threads in which sync functions run: who ends a job, who is told, who is refused."""

from __future__ import annotations

import contextvars
import random
import threading
import time as real_time

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    EventType,
    Pipeline,
    ResilienceTimeoutError,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.runtime import _threads as threads
from pyresilience.runtime._threads import Job, JobState, PoolExhausted, WorkerPool
from pyresilience.testing import EventRecorder
from tests.lab import every_runtime


def eventually(condition, seconds=10.0):
    """Poll until the condition holds."""
    end = real_time.monotonic() + seconds
    while not condition():
        assert real_time.monotonic() < end, "it never happened"
        real_time.sleep(0.001)


class Gate:
    """A function that blocks until opened, and says when it runs."""

    def __init__(self):
        self.opened = threading.Event()
        self.runs = threading.Semaphore(0)

    def __call__(self):
        self.runs.release()
        assert self.opened.wait(20)
        return "opened"


def submitted(pool, fn, *args):
    """A job given to the pool, and an event that its end sets."""
    told = threading.Event()
    job = Job(fn, args, {}, told.set, float("inf"))
    pool.submit(job)
    return job, told


def test_a_job_is_run_and_its_end_told():
    job, told = submitted(WorkerPool(1), lambda a, b: a + b, 1, 2)
    assert told.wait(10)
    assert job.state is JobState.ENDED
    assert job.outcome() == 3


def test_the_thread_is_idle_before_the_caller_hears():
    """So the next call finds it warm: a thousand calls in a row use one thread."""
    pool = WorkerPool(8)
    names = set()
    for _ in range(1000):
        _, told = submitted(pool, lambda: names.add(threading.get_ident()))
        assert told.wait(10)
    assert len(names) == 1
    assert pool.threads == 1


def test_the_thread_used_last_is_used_next():
    """LIFO: the threads at the bottom get idle for long enough to leave."""
    pool = WorkerPool(4)
    gates = [Gate() for _ in range(3)]
    jobs = [submitted(pool, gate) for gate in gates]
    for gate, (_, told) in zip(gates, jobs, strict=True):
        gate.opened.set()
        assert told.wait(10)
    ident = []
    for _ in range(2):
        _, told = submitted(pool, lambda: ident.append(threading.get_ident()))
        assert told.wait(10)
    assert ident[0] == ident[1]
    assert pool.threads == 3


def test_idle_threads_leave_and_come_back_when_needed():
    pool = WorkerPool(4, idle_seconds=0.01)
    gate = Gate()
    jobs = [submitted(pool, gate) for _ in range(4)]
    for _ in jobs:
        assert gate.runs.acquire(timeout=10)
    assert pool.threads == 4
    gate.opened.set()
    eventually(lambda: pool.threads == 0)
    _, told = submitted(pool, int)
    assert told.wait(10)


def test_a_thread_that_was_called_back_while_leaving_does_the_job():
    """The job is handed over after the thread's patience ended and before it could retire."""
    pool = WorkerPool(1, idle_seconds=0.002)
    for _ in range(300):
        job, told = submitted(pool, int)
        assert told.wait(10)
        assert job.outcome() == 0
        real_time.sleep(random.uniform(0.0015, 0.0025))  # around the moment of leaving
    assert pool.threads <= 1


def test_never_more_threads_than_the_pool_may_have_and_none_is_lost():
    pool = WorkerPool(3)
    gate = Gate()
    jobs = [submitted(pool, gate) for _ in range(10)]
    for _ in range(3):
        assert gate.runs.acquire(timeout=10)
    assert pool.threads == 3
    assert not gate.runs.acquire(blocking=False)
    gate.opened.set()
    assert all(told.wait(10) for _, told in jobs)
    assert pool.threads == 3


class Paused(threading.Event):
    """Makes a step of the pool wait, to hold a race open."""

    def __init__(self):
        super().__init__()
        self.reached = threading.Event()

    def before(self, step):
        def slowed(*args):
            self.reached.set()
            assert self.wait(20)
            return step(*args)

        return slowed


@pytest.mark.parametrize("first", ["worker", "caller"])
def test_one_claim_decides_who_ends_a_job(first, monkeypatch):
    """The caller leaves while the worker is about to report: one of them wins, and each thing is settled once."""
    pool = WorkerPool(1)
    pause = Paused()
    settled = []
    told = threading.Event()
    job = Job(int, (), {}, told.set, float("inf"))
    if first == "caller":
        monkeypatch.setattr(pool, "ended", pause.before(pool.ended))
    else:
        monkeypatch.setattr(threads, "_tell", pause.before(threads._tell))
    pool.submit(job)
    assert pause.reached.wait(10)
    job.hold.then(settled.append)
    pool.leave(job)
    if first == "caller":
        assert job.state is JobState.ABANDONED
        assert pool.abandoned == 1
        assert not settled
    else:
        assert job.state is JobState.ENDED
        assert pool.abandoned == 0
        assert job.outcome() == 0
    pause.set()
    eventually(lambda: len(pool._idle) == 1)
    assert settled == [None]
    assert pool.abandoned == 0
    assert told.wait(10) if first == "worker" else not told.is_set()


def test_what_is_given_back_late_is_part_of_the_job_from_its_start():
    """The caller is held between leaving and asking for the late callback; it runs all the same, once."""
    pool = WorkerPool(1)
    gate = Gate()
    settled = []
    job, _ = submitted(pool, gate)
    assert gate.runs.acquire(timeout=10)
    pool.leave(job)
    assert job.state is JobState.ABANDONED
    gate.opened.set()
    eventually(lambda: pool.abandoned == 0)
    job.hold.then(settled.append)
    assert settled == [None]


def test_a_queued_job_whose_caller_left_never_starts():
    pool = WorkerPool(1)
    gate = Gate()
    ran = []
    first, told = submitted(pool, gate)
    second, _ = submitted(pool, lambda: ran.append(True))
    pool.leave(second)
    assert second.state is JobState.CALLED_OFF
    gate.opened.set()
    assert told.wait(10)
    assert first.outcome() == "opened"
    _, told = submitted(pool, int)
    assert told.wait(10)
    assert not ran


def test_when_all_threads_are_abandoned_calls_are_refused_at_once():
    gate = Gate()
    events = EventRecorder()
    pipeline = Pipeline(TimeoutConfig(seconds=0.02, pool_size=2), listeners=[events])
    for _ in range(2):
        with pytest.raises(ResilienceTimeoutError):
            pipeline.call_sync(gate)
    events.clear()
    with pytest.raises(BulkheadFullError, match="all 2 worker threads run functions that were abandoned") as caught:
        pipeline.call_sync(gate)
    assert caught.value.layer == "worker_pool"
    assert [(event.event_type, event.detail) for event in events.events] == [(EventType.BULKHEAD_REJECTED, "abandoned")]
    gate.opened.set()
    eventually(lambda: pipeline.pool.abandoned == 0)
    assert pipeline.call_sync(gate) == "opened"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_same_from_an_event_loop(backend):
    gate = Gate()
    events = EventRecorder()
    pipeline = Pipeline(TimeoutConfig(seconds=0.02, pool_size=1), listeners=[events])

    async def main():
        with pytest.raises(ResilienceTimeoutError):
            await pipeline.call(gate)
        assert events.of(EventType.TIMEOUT)[0].detail == "attempt timed out after 0.02s; function abandoned"
        with pytest.raises(BulkheadFullError):
            await pipeline.call(gate)
        gate.opened.set()
        while pipeline.pool.abandoned:
            await anyio.sleep(0.001)
        assert await pipeline.call(gate) == "opened"

    anyio.run(main, backend=backend)
    assert events.of(EventType.BULKHEAD_REJECTED)[0].detail == "abandoned"


def test_a_worker_never_waits_for_a_worker():
    """Five nested guarded calls on a pool of four: the last is refused instead of hanging until the timeout."""
    events = EventRecorder()
    pipeline = Pipeline(TimeoutConfig(seconds=10, pool_size=4), listeners=[events])

    def nested(depth):
        return pipeline.call_sync(nested, depth - 1) if depth else "bottom"

    assert pipeline.call_sync(nested, 3) == "bottom"
    with pytest.raises(BulkheadFullError, match="one of them asks for another"):
        pipeline.call_sync(nested, 4)
    assert events.of(EventType.BULKHEAD_REJECTED)[0].detail == "nested"
    eventually(lambda: len(pipeline.pool._idle) == 4)


def test_a_worker_may_wait_for_a_worker_of_another_pool():
    """But not, by way of that one, for one of its own."""
    inner = Pipeline(TimeoutConfig(seconds=10, pool_size=1))
    outer = Pipeline(TimeoutConfig(seconds=10, pool_size=4))
    at_once = threading.Barrier(4)

    def work():
        at_once.wait(10)
        return inner.call_sync(int)

    callers = [threading.Thread(target=lambda: results.append(outer.call_sync(work))) for _ in range(4)]
    results: list[int] = []
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [0] * 4

    with pytest.raises(BulkheadFullError, match="one of them asks for another"):
        inner.call_sync(lambda: outer.call_sync(lambda: inner.call_sync(int)))


def test_the_queue_for_threads_is_bounded(monkeypatch):
    monkeypatch.setattr(threads, "QUEUE_LIMIT", 2)
    pool = WorkerPool(1)
    gate = Gate()
    jobs = [submitted(pool, gate) for _ in range(3)]
    with pytest.raises(PoolExhausted) as caught:
        submitted(pool, gate)
    assert caught.value.detail == "queue full"
    gate.opened.set()
    assert all(told.wait(10) for _, told in jobs)


def test_a_thread_that_cannot_be_started_costs_nothing(monkeypatch):
    """The system has no more threads: a refusal that says nothing about the service, and all counts are as before."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    events = EventRecorder()
    pipeline = Pipeline(breaker, bulkhead, TimeoutConfig(seconds=10, pool_size=2), listeners=[events])

    def no_more(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        for _ in range(3):
            with pytest.raises(BulkheadFullError, match="no worker thread could be started: can't start new thread"):
                pipeline.call_sync(int)
    assert breaker.state.value == "closed"
    assert events.types == [EventType.BULKHEAD_REJECTED] * 3 and events.events[0].detail == "no thread"
    assert bulkhead.statistics().in_use == 0
    assert (pipeline.pool.threads, pipeline.pool.abandoned) == (0, 0)
    assert pipeline.call_sync(int) == 0


@every_runtime
async def test_context_variables_reach_the_function(lab):
    variable = contextvars.ContextVar("variable", default="unset")
    pipeline = lab.pipeline(TimeoutConfig(seconds=5))

    def read():
        variable.set(variable.get() + " and changed")
        return variable.get()

    variable.set("callers")
    call = (lambda: pipeline.call_sync(read)) if lab.blocking else (lambda: pipeline.call(read))
    assert await lab.call(call) == "callers and changed"
    assert variable.get() == "callers"


def test_the_history_of_a_stop_iteration_is_the_functions_own():
    """Neither its cause nor its context is touched by what carried it."""

    def stops():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise StopIteration from error

    with pytest.raises(StopIteration) as caught:
        Pipeline().call_sync(stops)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__context__ is caught.value.__cause__


@pytest.mark.parametrize("members", [(), (TimeoutConfig(seconds=5),), (RetryConfig(max_attempts=1), TimeoutConfig())])
def test_stop_iteration_survives(members, time):
    """Coroutines would turn it into RuntimeError on the way."""
    events = EventRecorder()
    original = StopIteration("value")

    def stops():
        raise original

    with pytest.raises(StopIteration) as caught:
        Pipeline(*members, listeners=[events]).call_sync(stops)
    assert caught.value is original
    assert all(event.error is original for event in events.events)
    assert events.types[-1] is EventType.FAILURE


@every_runtime
async def test_abandoned_work_keeps_its_permit_until_it_ends(lab):
    """Two at a time stays two at a time, though nobody waits for the functions any more."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=2))
    pipeline = lab.pipeline(bulkhead, TimeoutConfig(seconds=1))
    running = []

    def slow():
        running.append(lab.now)
        lab.time.sleep(10)
        running.pop()

    async def call():
        return pipeline.call_sync(slow) if lab.blocking else await pipeline.call(slow)

    outcomes = await lab.together(*[call] * 8)
    kinds = sorted(type(outcome).__name__ for outcome in outcomes)
    assert kinds == ["BulkheadFullError"] * 6 + ["ResilienceTimeoutError"] * 2
    assert len(running) == 2
    assert bulkhead.statistics().in_use == 2
    await lab.sleep(8.5)
    assert bulkhead.statistics().in_use == 2
    await lab.sleep(1)
    assert bulkhead.statistics().in_use == 0
    assert not running


@pytest.mark.parametrize("durations", [(4, 9), (11, 4)])
@every_runtime
async def test_a_bulkhead_around_the_retries_waits_for_every_abandoned_attempt(lab, durations):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    durations = list(durations)
    pipeline = lab.pipeline(
        bulkhead, RetryConfig(max_attempts=2, delay=1, jitter=False), CircuitBreakerConfig(), TimeoutConfig(seconds=1)
    )

    def slow():
        lab.time.sleep(durations.pop(0))

    async def call():
        return pipeline.call_sync(slow) if lab.blocking else await pipeline.call(slow)

    error = (await lab.together(call))[0]
    assert isinstance(error, ResilienceTimeoutError)
    assert lab.now == 3
    await lab.sleep(7)  # at 10: one of them has ended, the other ends at 11
    assert bulkhead.statistics().in_use == 1
    await lab.sleep(1.5)
    assert bulkhead.statistics().in_use == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_function_in_a_thread_may_run_an_event_loop_of_its_own(backend):
    """Its context is the caller's, but the caller's event loop does not run in its thread."""

    async def inner():
        await anyio.lowlevel.checkpoint()
        return "inner"

    def work():
        return anyio.run(inner, backend="asyncio"), anyio.run(inner, backend="trio")

    async def main():
        return await Pipeline(TimeoutConfig(seconds=10)).call(work)

    assert anyio.run(main, backend=backend) == ("inner", "inner")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_that_is_already_cancelled_starts_no_thread(backend):
    """What runs in a thread cannot be cancelled at its first checkpoint, so it must not begin."""
    ran = []
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))

    async def main():
        with anyio.CancelScope() as scope:
            scope.cancel()
            await Pipeline(bulkhead).call(lambda: ran.append(True))
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    real_time.sleep(0.02)
    assert not ran
    assert bulkhead.statistics().in_use == 0


def test_functions_that_end_around_the_timeout():
    """Eight callers, functions that end just before and just after: each call has one answer, each permit returns."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=8))
    pipeline = Pipeline(bulkhead, TimeoutConfig(seconds=0.002, pool_size=8))
    counts = {"ok": 0, "late": 0, "refused": 0}
    lock = threading.Lock()
    most = []

    def work(seconds):
        most.append(pipeline.pool.threads)
        real_time.sleep(seconds)
        return "ok"

    def caller(seed):
        draw = random.Random(seed)
        for _ in range(80):
            try:
                outcome = pipeline.call_sync(work, draw.uniform(0.001, 0.003))
            except ResilienceTimeoutError:
                outcome = "late"
            except BulkheadFullError:
                outcome = "refused"
            with lock:
                counts[outcome] += 1

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(30)
    assert sum(counts.values()) == 8 * 80
    assert counts["ok"] and counts["late"]
    eventually(lambda: pipeline.pool.abandoned == 0 and bulkhead.statistics().in_use == 0)
    assert max(most) <= 8
    assert not pipeline.in_flight
