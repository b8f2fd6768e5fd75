"""A hit without a call: the answer is the same as with one, whoever stands around the cache and whoever listens."""

from dataclasses import dataclass

import pytest

from pyresilience import Cache, CacheConfig, EventType, Fallback, FallbackConfig, Pipeline, RateLimiter, Retry, Timeout
from pyresilience.testing import EventRecorder, VirtualTime


@dataclass
class Service:
    """Has `__eq__` and so no `__hash__`."""

    calls: int = 0

    def fetch(self, key):
        self.calls += 1
        return self.calls

    def __call__(self, key):
        return self.fetch(key)


@pytest.mark.parametrize("callee", [Service().fetch, Service()], ids=["method", "object"])
def test_a_callable_without_a_hash_is_not_cached(callee):
    guarded = Pipeline(FallbackConfig(), CacheConfig())(callee)
    with pytest.warns(RuntimeWarning, match="are not cached"):
        assert [guarded(1), guarded(1)] == [1, 2]


def test_a_subclass_with_a_call_of_its_own_is_always_asked():
    asked = []

    class Audited(Cache):
        async def __call__(self, call, call_next):
            asked.append(call.args)
            return await super().__call__(call, call_next)

    class Wrapping(Fallback):
        async def __call__(self, call, call_next):
            return "wrapped", await super().__call__(call, call_next)

    guarded = Pipeline(Audited())(abs)
    assert [guarded(-1) for _ in range(3)] == [1, 1, 1] and len(asked) == 3
    guarded = Pipeline(Wrapping(FallbackConfig()), Cache())(abs)
    assert [guarded(-1) for _ in range(3)] == [("wrapped", 1)] * 3


@pytest.mark.parametrize("kind", [RateLimiter, Timeout])
def test_a_subclass_may_return_any_awaitable_to_a_sync_function(kind):
    class Later:
        def __init__(self, awaitable):
            self.awaitable = awaitable

        def __await__(self):
            return self.awaitable.__await__()

    class Own(kind):
        def __call__(self, call, call_next):
            return Later(super().__call__(call, call_next))

    assert Pipeline(Own())(abs)(-1) == 1


def test_a_hit_is_no_call_without_listeners_and_an_event_with_them():
    ran, events = [], EventRecorder()

    def work(key):
        ran.append(key)
        return key

    silent = Pipeline(Retry(), CacheConfig())(work)  # a layer around the cache sees each call
    plain = Pipeline(FallbackConfig(handler=0), CacheConfig())(work)
    heard = Pipeline(CacheConfig(), listeners=[events])(work)
    for guarded in (silent, plain, heard):
        ran.clear()
        assert [guarded(1), guarded(1), guarded(key=1)] == [1, 1, 1] and ran == [1]
    assert events.types.count(EventType.CACHE_HIT) == 2


def test_equal_values_of_other_types_are_other_calls():
    guarded = Pipeline(CacheConfig())(lambda value: type(value))
    for _ in range(2):
        assert [guarded(value) for value in (1, True, 1.0)] == [int, bool, float]


def test_a_hit_ends_with_its_time_and_with_its_place():
    with VirtualTime() as time:
        ran = []
        guarded = Pipeline(CacheConfig(max_size=2, ttl=10))(lambda key: ran.append(key))
        for key in (1, 2, 1, 3, 1, 2):  # 1 was used after 2, so 2 made room for 3
            guarded(key)
        assert ran == [1, 2, 3, 2]
        time.sleep(10)
        guarded(2)
        assert ran[-1] == 2 and len(ran) == 5


@pytest.mark.parametrize("extra", [{}, {"keyword": 0}])
def test_the_same_arguments_are_one_call_however_they_are_passed(extra):
    ran = []

    def variadic(*values, keyword=0):
        ran.append(values)
        return sum(values)

    guarded = Pipeline(CacheConfig())(variadic)
    assert guarded(1, 2) == guarded(1, 2, **extra) == 3
    assert len(ran) == 1
