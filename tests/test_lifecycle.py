"""Process-wide matters: listeners of everything, draining, forks."""

from __future__ import annotations

import os
import threading

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    CacheConfig,
    CircuitBreakerConfig,
    EventType,
    Pipeline,
    RateLimiterConfig,
    RetryBudgetConfig,
    RetryConfig,
    enable_in_flight_tracking,
    get_in_flight_count,
    resilience_context,
    resilient,
    shutdown,
    shutdown_async,
    subscribe,
    unsubscribe,
)
from pyresilience.pipeline import _inventory as inventory
from pyresilience.testing import EventRecorder


def test_a_subscriber_hears_every_pipeline_those_to_come_included(time):
    events = EventRecorder()
    before = Pipeline(name="before")
    subscribe(events)
    try:
        before.call_sync(lambda: 1)
        Pipeline(name="after").call_sync(lambda: 1)
    finally:
        unsubscribe(events)
    before.call_sync(lambda: 1)
    assert [event.function_name for event in events.events] == ["before", "after"]
    with pytest.raises(ValueError, match="is not subscribed"):
        unsubscribe(events)
    with pytest.raises(TypeError, match="a listener must be callable"):
        subscribe(3)  # type: ignore[arg-type]


def test_a_listener_hears_only_the_types_it_names(time):
    class Successes:
        event_types = (EventType.SUCCESS,)

        def __init__(self):
            self.heard = []

        def __call__(self, event):
            self.heard.append(event.event_type)

    listener = Successes()
    pipeline = Pipeline(RetryConfig(delay=0), listeners=[listener])
    attempts = iter([OSError(), None])

    def fn():
        error = next(attempts)
        if error:
            raise error

    pipeline.call_sync(fn)
    assert listener.heard == [EventType.SUCCESS]

    class Wrong(Successes):
        event_types = ("success",)

    with pytest.raises(TypeError, match=r"event_types of .* must be a collection of EventType members only"):
        Pipeline(listeners=[Wrong()])


def test_a_listener_that_raises_is_logged_and_breaks_nothing(time, caplog):
    events = EventRecorder()

    def broken(event):
        raise ZeroDivisionError

    assert Pipeline(listeners=[broken, events]).call_sync(lambda: "ok") == "ok"
    assert events.types == [EventType.SUCCESS]
    assert caplog.records[0].levelname == "WARNING" and "failed on success" in caplog.text


@pytest.mark.parametrize("wrong", ["oops", [1, 2], 7])
def test_a_wrong_context_breaks_no_call(time, caplog, wrong):
    events = EventRecorder()
    token = resilience_context.set(wrong)
    try:
        assert Pipeline(listeners=[events]).call_sync(lambda: "ok") == "ok"
    finally:
        resilience_context.reset(token)
    assert events.events[0].context is None
    assert "resilience_context must hold a dict or None" in caplog.text


def test_shutdown_waits_for_calls_in_flight(time):
    pipeline = Pipeline()
    calls = [time.spawn(pipeline.call_sync, time.sleep, seconds) for seconds in (3, 5)]
    time.sleep(1)
    assert get_in_flight_count() == 2
    assert shutdown(wait=False) is False
    assert shutdown(timeout=2.5) is False and time.seconds == 1003.5
    assert shutdown() is True and time.seconds == 1005
    for call in calls:
        call.join()
    assert shutdown() is True
    enable_in_flight_tracking()


async def test_shutdown_in_an_event_loop_is_awaited():
    pipeline = Pipeline()
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.call, anyio.sleep, 5)
        await anyio.sleep(1)
        with pytest.raises(RuntimeError, match=r"await shutdown_async\(\)"):
            shutdown()
        assert await shutdown_async(timeout=2) is False
        assert await shutdown_async() is True
        assert anyio.current_time() - began == pytest.approx(5)


async def test_shutdown_waits_for_work_that_outlives_its_call():
    """As a response whose body still streams."""
    holds = []

    async def streaming(call, call_next):
        holds.append(call.hold())
        return await call_next(call)

    assert await Pipeline(streaming).call(anyio.sleep, 0) is None
    async with anyio.create_task_group() as group:

        @group.start_soon
        async def stream():
            await anyio.sleep(3)
            holds[0].release()

        began = anyio.current_time()
        assert await shutdown_async(timeout=1) is False
        assert await shutdown_async(timeout=10) is True
        assert anyio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("3", TypeError), (True, TypeError)]
)
def test_a_wrong_timeout_is_refused(timeout, error):
    with pytest.raises(error, match="timeout must be"):
        shutdown(timeout=timeout)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_starts_with_nothing_held():
    """Even when it was forked in the middle of a call, with locks held by another thread."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    guard = resilient(
        bulkhead=bulkhead,
        cache=CacheConfig(),
        retry=RetryConfig(),
        retry_budget=RetryBudgetConfig(),
        circuit_breaker=CircuitBreakerConfig(),
        rate_limiter=RateLimiterConfig(),
    )
    entered, leave = threading.Event(), threading.Event()

    @guard
    def hold(x):
        entered.set()
        leave.wait(10)
        return x

    thread = threading.Thread(target=hold, args=(1,))
    thread.start()
    entered.wait(10)
    held = threading.Event()

    def holder():
        with bulkhead._lock:
            held.set()
            leave.wait(10)

    holding = threading.Thread(target=holder)
    holding.start()
    held.wait(10)
    try:
        child = os.fork()
        if child == 0:
            leave.set()
            fine = get_in_flight_count() == 0 and bulkhead.statistics().in_use == 0 and hold(1) == 1
            os._exit(0 if fine else 1)
    finally:
        leave.set()
        thread.join()
        holding.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_signal_handler_may_call_and_look_while_pipelines_are_being_listed():
    """As if it had come while this thread held the lock."""
    answers = []

    def handler():
        answers.append(Pipeline()(abs)(-1))
        answers.append(get_in_flight_count())

    def interrupted():
        with inventory._lock:
            handler()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert answers == [1, 0]
