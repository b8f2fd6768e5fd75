"""Which pipelines the process knows, and who hears of them."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

from pyresilience import (
    CircuitBreaker,
    CircuitBreakerConfig,
    EventType,
    Pipeline,
    Retry,
    RetryConfig,
    get_in_flight_count,
    resilient,
    subscribe,
    unsubscribe,
)
from pyresilience.pipeline import _inventory as inventory
from pyresilience.policies import _lock
from pyresilience.testing import EventRecorder


@pytest.fixture
def everything():
    """Hears every pipeline of the process."""
    events = EventRecorder()
    subscribe(events)
    yield events
    unsubscribe(events)


def known(pipeline):
    return any(other is pipeline for other in inventory.pipelines())


def test_a_pipeline_that_shows_nothing_is_known_from_its_first_call():
    pipeline = Pipeline(RetryConfig())
    assert not known(pipeline)
    assert pipeline.in_flight == 0
    pipeline.call_sync(lambda: None)
    assert known(pipeline)


def test_a_pipeline_is_counted_once_by_whoever_calls_first():
    pipeline = Pipeline(RetryConfig())
    together = threading.Barrier(4)

    def call():
        together.wait()
        pipeline.call_sync(get_in_flight_count)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(other is pipeline for other in inventory.pipelines()) == 1
    assert pipeline.call_sync(lambda: pipeline.in_flight) == 1
    assert pipeline.in_flight == 0


def test_a_pipeline_is_counted_once_when_a_signal_handler_calls_it_while_it_is_being_counted(monkeypatch):
    pipeline = Pipeline(RetryConfig())

    class Weakref:
        def ref(self, thing):
            monkeypatch.undo()
            assert pipeline.call_sync(int) == 0
            return weakref.ref(thing)

    monkeypatch.setattr(inventory, "weakref", Weakref())
    assert pipeline.call_sync(int) == 0
    assert sum(other is pipeline for other in inventory.pipelines()) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pipeline(RetryConfig(), name="named"),
        lambda: Pipeline(RetryConfig(), listeners=[print]),
        lambda: Pipeline(CircuitBreaker()),
    ],
    ids=["named", "with a listener", "around a layer that others may use"],
)
def test_any_other_is_known_from_the_start(make):
    assert known(make())


def test_a_pipeline_whose_layers_somebody_has_got_is_known():
    """They may be used without it: from then on there is something to reset in a fork, and to announce."""
    assert known_after(lambda pipeline: pipeline.find(Retry))
    assert known_after(lambda pipeline: pipeline.layers)
    assert not known_after(repr)
    assert not known_after(lambda pipeline: pipeline(len))


def known_after(look):
    pipeline = Pipeline(RetryConfig())
    found = look(pipeline)
    del found
    return known(pipeline)


@pytest.mark.parametrize("struck", range(6))
def test_an_interrupted_first_call_counts_a_pipeline_once_at_the_most(struck):
    """Struck where an interrupt arrives: after the first call that `add` makes, the second and so on."""
    pipeline = Pipeline(RetryConfig())
    calls = 0

    def strike(frame, event, argument):
        nonlocal calls
        if event == "c_return" and frame.f_code is inventory.add.__code__:
            calls += 1
            if calls == struck + 1:
                raise KeyboardInterrupt

    profiler = sys.getprofile()
    sys.setprofile(strike)
    try:
        pipeline.call_sync(lambda: None)
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(profiler)
    assert 0 < calls <= struck + 1
    assert pipeline.call_sync(lambda: pipeline.in_flight) == 1
    assert sum(other is pipeline for other in inventory.pipelines()) == 1


def test_a_pipeline_that_was_called_is_forgotten_with_its_function():
    pipeline = Pipeline(RetryConfig())
    function = pipeline(lambda: None)
    function()
    alive = weakref.ref(pipeline)
    del pipeline
    assert alive() is not None
    del function
    gc.collect()
    assert alive() is None


def test_a_subscriber_hears_functions_that_were_bound_before_and_after(everything, time):
    @resilient
    def early() -> None: ...

    early()
    unsubscribe(everything)
    early()
    subscribe(everything)

    @resilient
    def late() -> None: ...

    early()
    late()
    assert [event.function_name for event in everything.events] == ["early", "early", "late"]


def test_own_listeners_are_heard_beside_those_of_the_process(time):
    own, everything = EventRecorder(), EventRecorder()
    pipeline = Pipeline(RetryConfig(), name="mine", listeners=[own])
    subscribe(everything)
    pipeline.call_sync(lambda: None)
    unsubscribe(everything)
    pipeline.call_sync(lambda: None)
    Pipeline(RetryConfig()).call_sync(lambda: None)
    assert (len(own.events), len(everything.events)) == (2, 1)


def test_a_listener_that_names_its_types_goes_with_them(time):
    class Failures:
        event_types = (EventType.FAILURE,)

        def __call__(self, event):
            raise AssertionError("not asked for")

    failures, everything = Failures(), EventRecorder()
    subscribe(failures)
    subscribe(everything)
    try:
        unsubscribe(failures)
        assert set(inventory.everybody) == set(EventType)
        unsubscribe(everything)
        assert not inventory.everybody
        subscribe(failures)
        assert set(inventory.everybody) == {EventType.FAILURE}
        subscribe(everything)
    finally:
        unsubscribe(failures)
        unsubscribe(everything)


def test_a_circuit_forced_before_the_first_call_is_heard_once(everything):
    pipeline = Pipeline(CircuitBreakerConfig())
    breaker = pipeline.find(CircuitBreaker)
    breaker.force_open()
    breaker.force_open()
    assert [(event.event_type, event.function_name, event.detail) for event in everything.events] == [
        (EventType.CIRCUIT_OPEN, "circuit_breaker", "forced")
    ]


def test_functions_of_one_pipeline_share_what_was_composed():
    pipeline = Pipeline(RetryConfig(), CircuitBreakerConfig())
    roots = [pipeline(lambda: None) for _ in range(4)]
    bindings = [root.__closure__[0].cell_contents for root in roots]
    assert len({binding.call_next for binding in bindings[1:]}) == 1
    assert [root() for root in roots] == [None] * 4


def test_a_breaker_gets_its_lock_with_its_first_failure_and_only_one(monkeypatch):
    """Both threads find that there is none; the second has to wait for the first and to take the same."""
    breaker = CircuitBreaker()
    function = Pipeline(breaker)(lambda: None)
    function()
    assert not hasattr(breaker, "_own_lock")
    made, go_on = threading.Event(), threading.Event()

    def slowly():
        made.set()
        assert go_on.wait(5)
        return threading.Lock()

    monkeypatch.setattr(_lock, "threading", SimpleNamespace(Lock=slowly))
    locks = []
    threads = [threading.Thread(target=lambda: locks.append(breaker._lock)) for _ in range(2)]
    threads[0].start()
    assert made.wait(5)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(locks) == 2
    assert locks[0] is locks[1] is breaker._lock
