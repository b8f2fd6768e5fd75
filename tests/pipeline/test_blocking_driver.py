"""How a sync call runs its coroutine: by a parked generator in its place, and both are used again."""

import gc
import threading
import weakref

import pytest

from pyresilience import BulkheadConfig, Pipeline, ResilienceError, Retry, RetryConfig
from pyresilience.pipeline import _blocking_root as root
from pyresilience.pipeline._blocking_root import DrivingPlaces
from pyresilience.pipeline._in_flight import SPARE


class Value:
    """Something that can be referred to weakly."""


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """The free places of sync calls; none yet."""
    places = DrivingPlaces()
    monkeypatch.setattr(root, "places", places)
    monkeypatch.setattr(root, "take_place", places.take)
    monkeypatch.setattr(root, "leave_place", places.leave)
    monkeypatch.setattr(root, "leave_spoiled", places.leave_spoiled)
    return places._free


def test_one_driver_serves_call_after_call(free):
    guarded = Pipeline(RetryConfig())(abs)
    assert guarded(0) == 0
    places = free.copy()
    drivers = [place.drive for place in free]
    assert [guarded(-number) for number in range(5)] == [0, 1, 2, 3, 4]
    assert free == places and len(free) == 1 + SPARE
    assert [place.drive for place in free] == drivers


def test_calls_within_calls_have_drivers_of_their_own(free):
    pipeline = Pipeline(RetryConfig())

    @pipeline
    def countdown(number):
        return 0 if number == 0 else 1 + countdown(number - 1)

    assert countdown(7) == 7
    places = set(free)
    assert 8 <= len(places) == len(free) == len({place.drive for place in places}) <= 8 + SPARE
    assert countdown(7) == 7
    assert set(free) == places


def test_a_parked_driver_keeps_neither_result_nor_arguments():
    gc.disable()
    try:
        guarded = Pipeline(RetryConfig())(lambda value: value)
        value = Value()
        gone = weakref.ref(value)
        assert guarded(value) is value
        del value
        assert gone() is None
    finally:
        gc.enable()


def test_an_exception_ends_the_driver_and_nothing_else(free):
    @Pipeline(RetryConfig(max_attempts=1))
    def picky(number):
        if number < 0:
            raise ValueError(number)
        return number

    assert picky(1) == 1
    place, used = free[-1], free[-1].drive
    with pytest.raises(ValueError, match="-1"):
        picky(-1)
    assert place not in free
    assert [picky(number) for number in range(3)] == [0, 1, 2]
    while free:
        with pytest.raises(ValueError, match="-1"):
            picky(-1)
    assert picky(2) == 2
    assert root.places._all.count(place) == 1 and len(root.places._all) == 1 + SPARE
    assert used not in {place.drive for place in free}


def test_a_place_whose_driver_cannot_be_made_anew_is_not_lost(free, monkeypatch):
    @Pipeline(RetryConfig(max_attempts=1))
    def picky(number):
        return 1 // number

    def fail():
        while free or not root.places._spoiled:
            with pytest.raises(ZeroDivisionError):
                picky(0)

    def no_memory():
        raise MemoryError

    fail()
    spoiled = root.places._spoiled.copy()
    with monkeypatch.context() as patch:
        patch.setattr(root, "new_driver", no_memory)
        with pytest.raises(MemoryError):
            picky(1)
    assert root.places._spoiled == spoiled
    assert [picky(1) for _ in range(3)] == [1, 1, 1]


def test_a_hook_that_suspends_in_a_layer_derived_from_ours_is_found():
    class Pause:
        def __await__(self):
            yield "anything"

    class Pausing(Retry):
        async def before_retry(self, call):
            await Pause()

    def work():
        raise ConnectionError

    guarded = Pipeline(BulkheadConfig(), Pausing(RetryConfig(delay=0)))(work)
    for _ in range(2):
        with pytest.raises(ResilienceError, match="Pausing suspended"):
            guarded()


def test_a_layer_that_suspends_is_named_and_its_driver_not_used_again(free):
    class Pause:
        def __await__(self):
            yield "anything"

    async def impatient(call, call_next):
        await Pause()
        return await call_next(call)

    @Pipeline(RetryConfig(), impatient)
    def work():
        return 1

    for _ in range(2):
        with pytest.raises(ResilienceError, match="impatient suspended"):
            work()
    assert len(free) == 1 + SPARE - 2
    assert Pipeline(RetryConfig())(abs)(-1) == 1


def test_a_driver_may_be_used_by_another_thread_than_the_one_that_made_it(free):
    guarded = Pipeline(RetryConfig())(abs)
    assert guarded(-1) == 1
    answers = []
    for number in (2, 3):
        thread = threading.Thread(target=lambda number=number: answers.append(guarded(-number)))
        thread.start()
        thread.join()
    assert answers == [2, 3] and len(free) == 1 + SPARE


def test_an_error_raised_while_another_is_handled_has_that_one_as_its_context():
    @Pipeline(RetryConfig(max_attempts=1))
    def failing():
        raise KeyError("inner")

    with pytest.raises(KeyError) as caught:
        try:
            raise OSError("outer")
        except OSError:
            failing()
    assert isinstance(caught.value.__context__, OSError)
