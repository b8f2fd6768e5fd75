"""A floor that does not do what the policy is for would make ours look slow for nothing."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.cases import by_hand


class Flaky:
    """Fails so many times, then answers with its arguments; an awaitable as well as a plain result."""

    def __init__(self, failures=0):
        self.failures = failures
        self.calls = 0

    def plain(self, *args, **kwargs):
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError
        return args, kwargs

    async def awaited(self, *args, **kwargs):
        return self.plain(*args, **kwargs)


ASYNC = [
    by_hand.retry,
    by_hand.breaker,
    by_hand.breaker_with_window,
    by_hand.semaphore,
    by_hand.counter,
    by_hand.rate_limit,
    by_hand.call_later,
    by_hand.asyncio_timeout,
    by_hand.cache,
    by_hand.fallback,
    by_hand.stacked,
]
SYNC = [by_hand.retry_sync, by_hand.breaker_sync, by_hand.rate_limit_sync]


@pytest.mark.parametrize("wrap", ASYNC)
def test_arguments_and_results_pass_through(wrap):
    async def call():
        return await wrap(Flaky().awaited)(1, two=2)

    assert asyncio.run(call()) == ((1,), {"two": 2})


@pytest.mark.parametrize("wrap", SYNC)
def test_arguments_and_results_pass_through_sync(wrap):
    assert wrap(Flaky().plain)(1, two=2) == ((1,), {"two": 2})


@pytest.mark.parametrize(("failures", "answered"), [(by_hand.ATTEMPTS - 1, True), (by_hand.ATTEMPTS, False)])
def test_retries_end_with_the_last_attempt(failures, answered):
    flaky, sync = Flaky(failures), Flaky(failures)

    async def call():
        return await by_hand.retry(flaky.awaited, delay=0)()

    if answered:
        assert asyncio.run(call()) == by_hand.retry_sync(sync.plain, delay=0)()
    else:
        with pytest.raises(ConnectionError):
            asyncio.run(call())
        with pytest.raises(ConnectionError):
            by_hand.retry_sync(sync.plain, delay=0)()
    assert flaky.calls == sync.calls == by_hand.ATTEMPTS


@pytest.mark.parametrize(
    ("wrap", "failures"), [(by_hand.breaker, by_hand.THRESHOLD), (by_hand.breaker_with_window, by_hand.WINDOW)]
)
def test_circuits_open(wrap, failures):
    flaky = Flaky(failures)

    async def calls():
        call = wrap(flaky.awaited)
        for _ in range(failures):
            with pytest.raises(ConnectionError):
                await call()
        with pytest.raises(by_hand.RefusedError):
            await call()

    asyncio.run(calls())
    assert flaky.calls == failures


def test_the_locked_circuit_opens():
    call = by_hand.breaker_sync(Flaky(by_hand.THRESHOLD).plain)
    for _ in range(by_hand.THRESHOLD):
        with pytest.raises(ConnectionError):
            call()

    with pytest.raises(by_hand.RefusedError):
        call()


def test_the_counter_refuses_what_is_too_much():
    async def calls():
        leave = asyncio.Event()
        call = by_hand.counter(leave.wait)
        tasks = [asyncio.create_task(call()) for _ in range(by_hand.CONCURRENT)]
        await asyncio.sleep(0)
        with pytest.raises(by_hand.RefusedError):
            await call()
        leave.set()
        await asyncio.gather(*tasks)
        await call()

    asyncio.run(calls())


def test_rate_limits_refuse_what_is_too_much(monkeypatch):
    monkeypatch.setattr(by_hand, "LIMIT", 1)
    monkeypatch.setattr(by_hand, "monotonic", lambda: 100.0)
    call, call_sync = by_hand.rate_limit(Flaky().awaited), by_hand.rate_limit_sync(Flaky().plain)

    async def calls():
        await call()
        with pytest.raises(by_hand.RefusedError):
            await call()

    asyncio.run(calls())
    call_sync()
    with pytest.raises(by_hand.RefusedError):
        call_sync()


def test_the_timeout_ends_what_takes_too_long(monkeypatch):
    monkeypatch.setattr(by_hand, "SECONDS", 0)

    async def call():
        await by_hand.call_later(asyncio.Event().wait)()

    with pytest.raises(TimeoutError):
        asyncio.run(call())


def test_the_cache_forgets_what_was_unused_for_longest_and_what_is_too_old(monkeypatch):
    now = 0.0
    monkeypatch.setattr(by_hand, "monotonic", lambda: now)
    flaky = Flaky()
    call = by_hand.cache(flaky.awaited)

    async def ran(*args, **kwargs):
        before = flaky.calls
        await call(*args, **kwargs)
        return flaky.calls > before

    async def calls():
        nonlocal now
        for key in range(by_hand.SIZE):
            assert await ran(key)
        assert not await ran(0)
        assert await ran("one more")
        assert not await ran(0)
        assert await ran(1)
        assert await ran(0, two=2)
        assert not await ran(0, two=2)
        now = by_hand.TTL
        assert await ran(0)

    asyncio.run(calls())
