"""Fallback: what is answered, and when not."""

from __future__ import annotations

import anyio
import pytest

from pyresilience import (
    BulkheadConfig,
    CacheConfig,
    FallbackConfig,
    Pipeline,
    ResilienceError,
    ResilienceTimeoutError,
    RetryConfig,
    TimeoutConfig,
)
from tests.lab import After, every_runtime


@every_runtime
async def test_a_value_or_a_function_of_the_error_answers(lab):
    fn = lab.function(OSError("down"))
    assert await lab.call(lab.pipeline(FallbackConfig("default"))(fn)) == "default"
    assert await lab.call(lab.pipeline(FallbackConfig(lambda error: str(error).upper()))(fn)) == "DOWN"
    assert lab.events.sequence == [("fallback_used", 1)] * 2
    assert str(lab.events.events[0].error) == "down"


@every_runtime
async def test_without_a_handler_nothing_is_caught(lab):
    error = await lab.outcome(lab.pipeline(FallbackConfig())(lab.function(OSError("down"))))
    assert str(error) == "down"
    assert lab.events.sequence == [("failure", 1)]


@every_runtime
async def test_only_its_error_types_are_answered(lab):
    guarded = lab.pipeline(FallbackConfig("x", fallback_on=(OSError,)))(lab.function(KeyError("k"), OSError()))
    assert isinstance(await lab.outcome(guarded), KeyError)
    assert await lab.call(guarded) == "x"


@every_runtime
async def test_refusals_and_total_timeouts_are_answered_too(lab):
    fallback = FallbackConfig(lambda error: type(error).__name__)
    guarded = lab.pipeline(fallback, BulkheadConfig(max_concurrent=1))(lab.function(After(1, "ok")))
    assert sorted(await lab.together(*[lambda: lab.call(guarded)] * 2)) == ["BulkheadFullError", "ok"]
    timed = lab.pipeline(fallback, RetryConfig(), TimeoutConfig(60, total=2))(lab.function(After(5)))
    assert await lab.call(timed) == "ResilienceTimeoutError"


@every_runtime
async def test_a_handler_that_raises_keeps_the_original_as_context(lab):
    original = OSError("down")

    def broken(error):
        raise KeyError("broken")

    error = await lab.outcome(lab.pipeline(FallbackConfig(broken))(lab.function(original)))
    assert isinstance(error, KeyError) and error.__context__ is original
    assert lab.events.sequence == [("failure", 1)]
    assert lab.events.events[0].error is error


@every_runtime
async def test_a_handler_that_raises_after_a_refusal_ends_in_failure(lab):
    def broken(error):
        raise error

    pipeline = lab.pipeline(FallbackConfig(broken), BulkheadConfig(max_concurrent=1))
    guarded = pipeline(lab.function(After(1)))
    await lab.together(*[lambda: lab.call(guarded)] * 2)
    assert [kind for kind, _ in lab.events.sequence] == ["bulkhead_rejected", "failure", "success"]


@every_runtime
async def test_a_fallback_is_never_cached(lab):
    fn = lab.function(OSError(), "real")
    guarded = lab.pipeline(FallbackConfig("plan b"), CacheConfig())(fn)
    assert [await lab.call(guarded) for _ in range(3)] == ["plan b", "real", "real"]
    assert fn.calls == 2


async def test_an_async_handler_is_awaited():
    async def handler(error):
        await anyio.sleep(1)
        return "later"

    @Pipeline(FallbackConfig(handler))
    async def fn():
        raise OSError

    assert await fn() == "later"


async def test_a_handler_that_returns_an_awaitable_is_awaited():
    async def inner():
        return "inner"

    @Pipeline(FallbackConfig(lambda error: inner()))
    async def fn():
        raise OSError

    assert await fn() == "inner"


async def test_an_async_handler_has_a_limit_of_its_own():
    async def handler(error):
        await anyio.sleep(100)

    @Pipeline(FallbackConfig(handler, timeout=3))
    async def fn():
        raise OSError("down")

    began = anyio.current_time()
    with pytest.raises(ResilienceTimeoutError, match=r"fallback timed out after 3.00s") as caught:
        await fn()
    assert anyio.current_time() - began == pytest.approx(3)
    assert str(caught.value.__context__) == "down"


def test_an_async_handler_is_refused_for_a_sync_function(time):
    async def handler(error):
        return 1

    with pytest.raises(TypeError, match="Fallback cannot guard the sync function 'fn': its handler is an async"):

        @Pipeline(FallbackConfig(handler))
        def fn():
            return 1


def test_a_handler_of_a_sync_function_that_returns_an_awaitable_is_an_error(time):
    async def inner():
        return "inner"

    @Pipeline(FallbackConfig(lambda error: inner()))
    def fn():
        raise OSError

    with pytest.raises(ResilienceError, match="returned an awaitable"):
        fn()


async def test_cancellation_is_not_answered():
    @Pipeline(FallbackConfig("plan b", fallback_on=(BaseException,)))
    async def fn():
        await anyio.sleep(100)

    with anyio.move_on_after(1) as scope:
        await fn()
    assert scope.cancelled_caught
