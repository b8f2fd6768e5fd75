"""Cache: what is the same call, how long an answer is good for, and who runs when several miss."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections import OrderedDict

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyresilience import (
    AsyncResultCache,
    Cache,
    CacheConfig,
    Pipeline,
    ResilienceTimeoutError,
    ResultCache,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.policies import cache as cache_module
from pyresilience.policies._store import MISSING, ExpiringLru
from tests.lab import After, every_runtime


@every_runtime
async def test_an_equal_call_is_answered_from_the_cache_until_the_ttl(lab):
    fn = lab.function("one", "two")
    guarded = lab.pipeline(CacheConfig(ttl=10))(fn)
    assert await lab.call(guarded, 1, b=2) == "one"
    await lab.sleep(9.999)
    assert await lab.call(guarded, 1, b=2) == "one"
    await lab.sleep(0.001)
    assert await lab.call(guarded, 1, b=2) == "two"
    assert lab.events.sequence == [
        ("cache_miss", 0),
        ("success", 1),
        ("cache_hit", 0),
        ("cache_miss", 0),
        ("success", 1),
    ]


@every_runtime
async def test_a_ttl_of_zero_means_no_expiry(lab):
    fn = lab.function("one", "two")
    guarded = lab.pipeline(CacheConfig(ttl=0))(fn)
    await lab.call(guarded)
    await lab.sleep(1e9)
    assert await lab.call(guarded) == "one"


@every_runtime
async def test_the_entry_unused_for_longest_goes_first(lab):
    fn = lab.function("x")
    cache = Cache(CacheConfig(max_size=2))
    guarded = lab.pipeline(cache)(fn)
    for argument in (1, 2, 1, 3, 1, 2):
        await lab.call(guarded, argument)
    assert fn.calls == 4 and len(cache) == 2
    cache.clear()
    await lab.call(guarded, 1)
    assert fn.calls == 5


@every_runtime
async def test_two_functions_never_share_an_entry(lab):
    pipeline = lab.pipeline(CacheConfig())
    first, second = pipeline(lab.function("first")), pipeline(lab.function("second"))
    assert [await lab.call(first, 1), await lab.call(second, 1), await lab.call(first, 1)] == [
        "first",
        "second",
        "first",
    ]


@every_runtime
async def test_values_of_different_types_are_different_calls(lab):
    fn = lab.function(*range(20))
    guarded = lab.pipeline(CacheConfig())(fn)
    for arguments in ((1,), (1.0,), (True,), ("1",), (b"1",), ((1,),), ((1.0,),), (frozenset({1}),), (None,), ()):
        await lab.call(guarded, *arguments)
    assert fn.calls == 10


def test_the_way_arguments_are_passed_does_not_matter(time):
    calls = []

    @Pipeline(CacheConfig())
    def fn(a, b=2, *, c=3):
        calls.append((a, b, c))
        return len(calls)

    assert {fn(1), fn(a=1), fn(1, 2), fn(1, b=2), fn(c=3, b=2, a=1), fn(1, c=3)} == {1}
    assert fn(1, 3) == 2
    with pytest.raises(TypeError, match="missing 1 required"):
        fn()


def test_equal_repr_is_not_equality(time):
    class Twin:
        def __repr__(self):
            return "Twin()"

    @Pipeline(CacheConfig())
    def fn(value):
        return id(value)

    one, two = Twin(), Twin()
    assert fn(one) != fn(two)
    assert fn(one) == id(one)


def test_methods_are_cached_per_instance_without_keeping_it_alive(time):
    class Shop:
        calls = 0

        @Pipeline(CacheConfig())
        def price(self, item):
            type(self).calls += 1
            return item

    one, two = Shop(), Shop()
    for shop in (one, two, one, two):
        shop.price("pen")
    assert Shop.calls == 2
    watch = weakref.ref(one)
    del one, shop
    two.price("pen")
    gc.collect()
    assert watch() is None


def test_a_bound_method_is_cached_without_keeping_its_object_alive(time):
    class Shop:
        calls = 0

        def price(self):
            self.calls += 1
            return self.calls

    pipeline = Pipeline(CacheConfig())
    one, two = Shop(), Shop()
    assert [pipeline.call_sync(shop.price) for shop in (one, one, two)] == [1, 1, 1]
    assert (one.calls, two.calls) == (1, 1)
    watch = weakref.ref(one)
    del one
    gc.collect()
    assert watch() is None


def test_arguments_without_a_hash_run_uncached_with_one_warning(time):
    from pyresilience.testing import EventRecorder

    events = EventRecorder()
    calls = []

    @Pipeline(CacheConfig(), listeners=[events])
    def fn(items):
        calls.append(items)

    with pytest.warns(RuntimeWarning, match=r"calls of 'fn' .* not cached: .*CacheConfig\(key=...\)"):
        fn([1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fn([1])
    assert len(calls) == 2
    assert events.events[0].detail.startswith("not cached: ")


def test_a_key_function_decides_what_counts(time):
    calls = []

    @Pipeline(CacheConfig(key=lambda items, **_: tuple(items)))
    def fn(items, noise=0):
        calls.append(1)

    fn([1], noise=1)
    fn([1], noise=2)
    assert len(calls) == 1

    @Pipeline(CacheConfig(key=lambda items: items))
    def unhashable(items):
        return 1

    with pytest.warns(RuntimeWarning, match="not cached"):
        unhashable([])


@every_runtime
async def test_errors_and_bad_results_are_not_cached(lab):
    fn = lab.function(OSError(), "bad", "good", "never")
    guarded = lab.pipeline(CacheConfig(), RetryConfig(max_attempts=1, retry_on_result=lambda value: value == "bad"))(fn)
    assert isinstance(await lab.outcome(guarded), OSError)
    assert [await lab.call(guarded) for _ in range(3)] == ["bad", "good", "good"]


# ---------------------------------------------------------------- single flight


@every_runtime
async def test_concurrent_misses_share_one_call(lab):
    fn = lab.function(After(2, "value"))
    guarded = lab.pipeline(CacheConfig())(fn)
    assert await lab.together(*[lambda: lab.call(guarded)] * 10) == ["value"] * 10
    assert fn.calls == 1 and lab.now == 2
    hits = [event for event in lab.events.events if event.event_type == "cache_hit"]
    assert [event.detail for event in hits] == ["joined"] * 9
    assert len(lab.events.events) == 11, "one miss, one success, nine hits"


@every_runtime
async def test_followers_get_the_error_of_the_leader_and_it_does_not_grow(lab):
    fn = lab.function(After(2, OSError("down")), "fine")
    guarded = lab.pipeline(CacheConfig())(fn)
    results = await lab.together(*[lambda: lab.call(guarded)] * 10)
    assert len({id(result) for result in results}) == 1 and str(results[0]) == "down"
    depth, traceback = 0, results[0].__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert depth < 20
    assert await lab.call(guarded) == "fine"


@every_runtime
async def test_a_follower_waits_no_longer_than_the_deadline_of_its_call(lab):
    fn = lab.function(After(10, "late"))
    patient, hurried = CacheConfig(), TimeoutConfig(60, total=3)
    cache = Cache(patient)
    leader, follower = lab.pipeline(cache)(fn), lab.pipeline(cache, hurried)(fn)

    async def late():
        await lab.sleep(1)
        error = await lab.outcome(follower)
        assert isinstance(error, ResilienceTimeoutError) and lab.now == 4
        return True

    assert await lab.together(lambda: lab.call(leader), late) == ["late", True]
    assert [kind for kind, _ in lab.events.sequence] == ["cache_miss", "timeout", "failure", "success"]


@pytest.mark.parametrize("cancelled", [1, 3])
async def test_a_follower_takes_the_place_of_a_cancelled_leader(cancelled):
    """Nobody else notices, and the function runs exactly once more for each leader that went away."""
    calls = 0

    @Pipeline(CacheConfig())
    async def fn():
        nonlocal calls
        calls += 1
        await anyio.sleep(10)
        return "value"

    results = []

    async def one(patience):
        with anyio.move_on_after(patience):
            results.append(await fn())

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(one, 1 + number if number < cancelled else 1000)
            await anyio.sleep(0.01)
    assert results == ["value"] * (6 - cancelled)
    assert 2 <= calls <= 1 + cancelled


async def test_a_cancelled_follower_just_leaves():
    @Pipeline(CacheConfig())
    async def fn():
        await anyio.sleep(5)
        return "value"

    async with anyio.create_task_group() as group:
        group.start_soon(fn)
        await anyio.sleep(1)
        with anyio.move_on_after(1) as scope:
            await fn()
    assert scope.cancelled_caught
    assert await fn() == "value"


async def test_a_function_that_asks_for_itself_does_not_wait_for_itself():
    depth = 0

    @Pipeline(CacheConfig())
    async def fn():
        nonlocal depth
        depth += 1
        return await fn() if depth < 3 else "bottom"

    assert await fn() == "bottom"


@every_runtime
async def test_a_streaming_result_is_not_shared(lab):
    """A call that still holds something belongs to its caller alone."""
    holds = []

    async def streaming(call, call_next):
        result = await call_next(call)
        holds.append(call.hold())
        return result

    fn = lab.function("body")
    guarded = lab.pipeline(CacheConfig(), streaming)(fn)
    await lab.call(guarded)
    await lab.call(guarded)
    assert fn.calls == 2
    for hold in holds:
        hold.release()


# ---------------------------------------------------------------- on its own


def test_result_cache(time):
    cache = ResultCache(CacheConfig(max_size=2, ttl=5))
    cache.set("a", 1)
    assert (cache.get("a"), cache.get("b"), cache.get("b", 7), cache.size, len(cache)) == (1, None, 7, 1, 1)
    time.jump(5)
    assert cache.get("a") is None and cache.size == 0
    cache.set("a", None)
    cache.clear()
    assert cache.get("a", "gone") == "gone"


async def test_async_result_cache():
    cache = AsyncResultCache(CacheConfig(max_size=1))
    await cache.set("a", 1)
    await cache.set("b", 2)
    assert await cache.get("a") is None and await cache.get("b") == 2 and cache.size == 1
    await cache.clear()
    assert len(cache) == 0


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 4),
    ttl=st.integers(0, 5),
    steps=st.lists(st.tuples(st.sampled_from(["get", "set", "tick"]), st.integers(0, 5)), max_size=60),
)
def test_the_store_equals_a_model(size, ttl, steps):
    store = ExpiringLru(size, ttl)
    model: OrderedDict[int, int] = OrderedDict()
    born: dict[int, int] = {}
    now = 100
    for step, key in steps:
        if step == "tick":
            now += key
        elif step == "set":
            store.set(key, now, now)
            model[key] = born[key] = now
            model.move_to_end(key)
            if len(model) > size:
                model.popitem(last=False)
        else:
            alive = key in model and (ttl == 0 or now < born[key] + ttl)
            if not alive:
                model.pop(key, None)
            else:
                model.move_to_end(key)
            assert store.get(key, now) == (model[key] if alive else MISSING)
        assert len(store) == len(model) <= size


def test_keys_are_made_the_same_way_for_a_cache_that_a_layer_hides(time, monkeypatch):
    """The function's signature is looked at once, as for a cache that the pipeline knows of."""
    made = []
    keys = cache_module.CallKeys
    monkeypatch.setattr(cache_module, "CallKeys", lambda fn: made.append(fn) or keys(fn))
    cache = Cache()

    def hiding(call, call_next):
        return cache(call, call_next)

    @Pipeline(hiding)
    def double(value, by=2):
        return value * by

    assert [double(3), double(3, 2), double(value=3), double(4)] == [6, 6, 6, 8]
    assert len(cache) == 2
    assert len(made) == 1
