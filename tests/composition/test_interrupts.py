"""A signal handler that raises, at any instruction of a guarded call: permits, probes, flights and locks come back."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time

import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    Cache,
    CacheConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitState,
    EventType,
    FallbackConfig,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    ResilienceTimeoutError,
    RetryConfig,
    Timeout,
    TimeoutConfig,
)
from pyresilience.runtime._threads import WorkerPool
from pyresilience.testing import EventRecorder
from tests.locks import free


class Interrupted(KeyboardInterrupt):
    """As Ctrl-C, but not to be mistaken for a real one."""


class Storm:
    """Calls a function again and again, and interrupts many of the calls, each at another moment."""

    def __init__(self, longest):
        self.longest = longest
        self.armed = False
        self.hits = 0

    def __enter__(self):
        gc.collect()  # errors in finalisers of what other tests left behind are lost as well
        self.tracer = sys.gettrace()
        sys.settrace(None)  # an interrupt inside the coverage tool would leave a lock of its own held
        self.callbacks, gc.callbacks[:] = gc.callbacks[:], []  # errors in these, such as hypothesis's, are lost
        self.previous = signal.signal(signal.SIGALRM, self.strike)
        return self

    def __exit__(self, *error):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.previous)
        gc.callbacks[:] = self.callbacks
        sys.settrace(self.tracer)

    def strike(self, signum, frame):
        if self.armed and "weakref" not in frame.f_code.co_filename:  # errors in callbacks of weak references are lost
            self.armed = False
            raise Interrupted

    def call(self, fn):
        """Whether the call was interrupted."""
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, self.longest))
        try:
            self.armed = True
            fn()
            self.armed = False
        except Interrupted:
            self.hits += 1
            return True
        except RuntimeError as error:  # of `threading.Condition`, whose `wait` in `Thread.start` was interrupted
            if not isinstance(error.__context__, Interrupted):
                raise
            self.hits += 1
            return True
        finally:
            self.armed = False
        return False


draw = random.Random(3)


def storm(fn, hits, *, longest=20e-6, calm=None):
    """Go on until so many calls were interrupted; after each, `calm()` looks at what they left behind."""
    end = time.monotonic() + 50  # a storm takes a few seconds, and several times that on a slow machine
    with Storm(longest) as weather:
        while weather.hits < hits:
            if weather.call(fn) and calm is not None:
                calm()
            assert time.monotonic() < end, f"{weather.hits} of {hits}"


@pytest.mark.parametrize("history", ["fresh", "somebody waited once"])
def test_a_bulkhead_loses_no_permit(history):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=3, max_wait=10))
    if history != "fresh":
        gate = threading.Event()
        waiting = [threading.Thread(target=Pipeline(bulkhead)(gate.wait)) for _ in range(4)]
        for thread in waiting:
            thread.start()
        while not bulkhead.statistics().waiting:
            time.sleep(0.001)
        gate.set()
        for thread in waiting:
            thread.join()
    pipeline = Pipeline(bulkhead)
    guarded = pipeline(lambda: None)
    lock = bulkhead._lock

    def calm():
        assert free(lock)
        assert bulkhead.statistics().in_use == 0
        assert not pipeline.in_flight

    storm(guarded, 3000, calm=calm)


def test_a_bulkhead_in_demand_loses_no_permit():
    """Other threads wait for the permit that the interrupted call holds, and for which it waits."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=0.005))
    pipeline = Pipeline(bulkhead)
    done = threading.Event()

    def work():
        return None

    def other():
        guarded = pipeline(work)
        while not done.is_set():
            try:
                guarded()
            except BulkheadFullError:
                pass

    threads = [threading.Thread(target=other) for _ in range(2)]
    for thread in threads:
        thread.start()
    guarded = pipeline(work)

    def call():
        try:
            guarded()
        except BulkheadFullError:
            pass

    try:
        storm(call, 300, longest=100e-6)
    finally:
        done.set()
        for thread in threads:
            thread.join(10)
    statistics = bulkhead.statistics()
    assert (statistics.in_use, statistics.waiting) == (0, 0)


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("listens", [True, False])
def test_a_breaker_gives_probe_places_back(listens, fails):
    """Half-open with one place: an interrupted probe leaves it to the next call, without waiting for its lease."""
    breaker = CircuitBreaker(
        CircuitBreakerConfig(
            failure_threshold=1,
            recovery_timeout=0,
            success_threshold=10**9,
            half_open_max_calls=1,
            ignore_on=(ValueError,),
        )
    )
    breaker.record_failure()
    events = EventRecorder()
    pipeline = Pipeline(breaker, listeners=[events] if listens else [])
    lock = breaker._lock

    @pipeline
    def guarded():
        if fails:
            raise ValueError

    def call():
        events.clear()
        try:
            guarded()
        except ValueError:
            pass

    def calm():
        assert free(lock)
        assert not breaker._circuit.probes
        assert not pipeline.in_flight

    storm(call, 2000, calm=calm)
    assert breaker.state is CircuitState.HALF_OPEN


def test_a_breaker_keeps_no_lock_and_counts_no_interrupt():
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, sliding_window_size=10))
    guarded = Pipeline(breaker)(lambda: None)
    lock = breaker._lock

    def calm():
        assert free(lock)
        assert breaker.state is CircuitState.CLOSED

    storm(guarded, 2000, calm=calm)


def test_a_cache_leaves_no_flight_that_nobody_will_land():
    """The next call with those arguments would wait for it for ever."""
    cache = Cache(CacheConfig(max_size=1))
    guarded = Pipeline(cache)(lambda key: key)
    lock = cache._lock
    key = 0

    def call():
        nonlocal key
        key += 1
        guarded(key)

    def calm():
        assert free(lock)
        assert not cache._flights

    storm(call, 3000, calm=calm)


def test_a_rate_limiter_keeps_no_lock():
    limiter = RateLimiter(RateLimiterConfig(max_calls=10**6, period=0.001))
    guarded = Pipeline(limiter)(lambda: None)
    storm(guarded, 1000, calm=lambda: None if free(limiter._lock) else pytest.fail("locked"))


def test_a_rate_limiters_line_goes_on_after_the_interrupt_of_its_first():
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=0.0005, max_wait=10))
    guarded = Pipeline(limiter)(lambda: None)

    def calm():
        assert free(limiter._lock)
        assert not limiter._line

    storm(guarded, 500, longest=700e-6, calm=calm)


def test_the_standard_order_as_a_whole():
    """With a worker thread for each call: interrupted hand-overs, waits and answers."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=4, max_wait=1))
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=10**9))
    events = EventRecorder()
    events.event_types = [EventType.CANCELLED, EventType.SUCCESS, EventType.FALLBACK_USED]
    pipeline = Pipeline(
        FallbackConfig(handler="instead"),
        RetryConfig(max_attempts=2, delay=0),
        breaker,
        RateLimiterConfig(max_calls=10**9),
        bulkhead,
        TimeoutConfig(seconds=5, total=6, pool_size=4),
        listeners=[events],
    )
    guarded = pipeline(lambda: None)
    pool = pipeline.pool

    def settled():
        return not (bulkhead.statistics().in_use or pool.abandoned)

    def calm():
        end = time.monotonic() + 5
        while not settled():  # a function that was under way may end a moment later
            assert time.monotonic() < end, (bulkhead.statistics(), pool.abandoned, pool.threads)
            time.sleep(0.0001)
        assert not pipeline.in_flight
        assert free(pool._lock) and free(bulkhead._lock) and free(breaker._lock)
        assert pool.threads <= 4

    storm(guarded, 800, longest=150e-6, calm=calm)
    end = time.monotonic() + 5
    while len(pool._idle) < pool.threads:
        assert time.monotonic() < end
        time.sleep(0.001)
    assert guarded() is None


def test_starting_threads_may_be_interrupted():
    """Most calls need a new thread, for idle ones leave at once; the pool counts those that run, no more, no less."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=4))
    pipeline = Pipeline(bulkhead, TimeoutConfig(seconds=5, pool_size=4))

    def calm():
        pool = pipeline.pool
        end = time.monotonic() + 5
        while bulkhead.statistics().in_use or pool.abandoned or pool.threads:
            assert time.monotonic() < end, (bulkhead.statistics(), pool.abandoned, pool.threads)
            time.sleep(0.0005)
        assert not pipeline.in_flight

    pipeline.find(Timeout).pool = WorkerPool(4, idle_seconds=0.0)
    storm(lambda: pipeline.call_sync(int), 300, longest=200e-6, calm=calm)


def test_a_wait_for_the_function_can_be_interrupted():
    """The caller sees the interrupt at once; its abandoned function gives the permit back when it ends."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    events = EventRecorder()
    pipeline = Pipeline(bulkhead, TimeoutConfig(seconds=5), listeners=[events])
    gate = threading.Event()

    def work():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        gate.wait()

    with Storm(60) as weather, pytest.raises(Interrupted):
        weather.armed = True
        pipeline.call_sync(work)
    assert events.types == [EventType.CANCELLED]
    assert events.events[0].detail == "function abandoned"
    assert bulkhead.statistics().in_use == 1
    gate.set()
    end = time.monotonic() + 5
    while bulkhead.statistics().in_use:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("where", ["backoff", "queue", "turn", "function"])
def test_an_interrupt_ends_any_wait_and_is_not_changed(where):
    """`retry_on=BaseException` and a fallback for it make no difference."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=30))
    limiter = RateLimiter(RateLimiterConfig(max_calls=1, period=30, max_wait=60))
    events = EventRecorder()
    pipeline = Pipeline(
        FallbackConfig(handler="instead", fallback_on=(BaseException,)),
        RetryConfig(max_attempts=2, delay=20, jitter=False, retry_on=(BaseException,)),
        limiter,
        bulkhead,
        listeners=[events],
    )
    gate = threading.Event()
    holder = threading.Thread(target=Pipeline(bulkhead)(gate.wait))
    if where == "queue":
        holder.start()
        while not bulkhead.statistics().in_use:
            time.sleep(0.001)
    elif where == "turn":
        assert limiter.acquire()

    def work():
        if where == "backoff":
            raise ValueError
        time.sleep(20)

    with Storm(0.02) as weather:
        assert weather.call(pipeline(work))
    assert events.types == ([EventType.RETRY] if where == "backoff" else []) + [EventType.CANCELLED]
    assert isinstance(events.events[-1].error, Interrupted)
    gate.set()
    if where == "queue":
        holder.join(10)
    statistics = bulkhead.statistics()
    assert (statistics.in_use, statistics.waiting) == (0, 0)
    assert not limiter._line
    assert not pipeline.in_flight


def test_a_timeout_that_is_interrupted_is_no_timeout():
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    pipeline = Pipeline(breaker, TimeoutConfig(seconds=10, in_thread=False))
    with Storm(0.01) as weather:
        assert weather.call(pipeline(lambda: time.sleep(5)))
    assert breaker.state is CircuitState.CLOSED
    with pytest.raises(ResilienceTimeoutError):
        Pipeline(TimeoutConfig(seconds=0.01)).call_sync(time.sleep, 0.1)
