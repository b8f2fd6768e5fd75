"""The floors: what a competent developer writes by hand, as decorators for any function.

They take whatever arguments the function takes, and do what the policy is for on its happy path and its unhappy one.
They leave out events, errors that say when to come back, and everything else that a library adds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

Function = Callable[..., Awaitable[Any]]
SyncFunction = Callable[..., Any]

ATTEMPTS = 3
THRESHOLD = 5
RECOVERY = 30.0
WINDOW = 100
RATE = 0.5
CONCURRENT = 10
LIMIT = 10**9
PERIOD = 1.0
SECONDS = 30.0
SIZE = 256
TTL = 300.0
KEYWORDS = object()
"""Stands in a key between positional arguments and those given by name."""


class RefusedError(Exception):
    """One of the wrappers did not let the call through."""


def retry(fn: Function, delay: float = 1.0) -> Function:
    async def call(*args: Any, **kwargs: Any) -> Any:
        attempt = 1
        while True:
            try:
                return await fn(*args, **kwargs)
            except Exception:
                if attempt >= ATTEMPTS:
                    raise
                await asyncio.sleep(delay)
                attempt += 1

    return call


def retry_sync(fn: SyncFunction, delay: float = 1.0) -> SyncFunction:
    def call(*args: Any, **kwargs: Any) -> Any:
        attempt = 1
        while True:
            try:
                return fn(*args, **kwargs)
            except Exception:
                if attempt >= ATTEMPTS:
                    raise
                time.sleep(delay)
                attempt += 1

    return call


def breaker(fn: Function) -> Function:
    failures = 0
    opened_until = 0.0

    async def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures, opened_until
        if failures >= THRESHOLD and monotonic() < opened_until:
            raise RefusedError
        try:
            result = await fn(*args, **kwargs)
        except RefusedError:
            raise
        except Exception:
            failures += 1
            if failures >= THRESHOLD:
                opened_until = monotonic() + RECOVERY
            raise
        failures = 0
        return result

    return call


def breaker_with_window(fn: Function) -> Function:
    outcomes: deque[bool] = deque(maxlen=WINDOW)
    opened_until = 0.0

    async def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal opened_until
        if opened_until and monotonic() < opened_until:
            raise RefusedError
        try:
            result = await fn(*args, **kwargs)
        except Exception:
            outcomes.append(False)
            if len(outcomes) == WINDOW and outcomes.count(False) >= RATE * WINDOW:
                opened_until = monotonic() + RECOVERY
                outcomes.clear()
            raise
        outcomes.append(True)
        return result

    return call


def breaker_sync(fn: SyncFunction) -> SyncFunction:
    failures = 0
    opened_until = 0.0
    lock = threading.Lock()

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures, opened_until
        with lock:
            if failures >= THRESHOLD and monotonic() < opened_until:
                raise RefusedError
        try:
            result = fn(*args, **kwargs)
        except Exception:
            with lock:
                failures += 1
                if failures >= THRESHOLD:
                    opened_until = monotonic() + RECOVERY
            raise
        with lock:
            failures = 0
        return result

    return call


def semaphore(fn: Function) -> Function:
    permits = asyncio.Semaphore(CONCURRENT)

    async def call(*args: Any, **kwargs: Any) -> Any:
        async with permits:
            return await fn(*args, **kwargs)

    return call


def counter(fn: Function) -> Function:
    """A bulkhead that lets nobody wait."""
    running = 0

    async def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal running
        if running >= CONCURRENT:
            raise RefusedError
        running += 1
        try:
            return await fn(*args, **kwargs)
        finally:
            running -= 1

    return call


def rate_limit(fn: Function) -> Function:
    interval = PERIOD / LIMIT
    tolerance = PERIOD
    arrival = 0.0

    async def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal arrival
        now = monotonic()
        due = (arrival if arrival > now else now) + interval
        if due - now > tolerance:
            raise RefusedError
        arrival = due
        return await fn(*args, **kwargs)

    return call


def rate_limit_sync(fn: SyncFunction) -> SyncFunction:
    interval = PERIOD / LIMIT
    tolerance = PERIOD
    arrival = 0.0
    lock = threading.Lock()

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal arrival
        with lock:
            now = monotonic()
            due = (arrival if arrival > now else now) + interval
            if due - now > tolerance:
                raise RefusedError
            arrival = due
        return fn(*args, **kwargs)

    return call


def call_later(fn: Function) -> Function:
    """A timeout from the event loop's own parts."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = task.get_loop().call_later(SECONDS, expire)
        try:
            return await fn(*args, **kwargs)
        except asyncio.CancelledError:
            if expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    return call


def asyncio_timeout(fn: Function) -> Function:
    async def call(*args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(SECONDS):
            return await fn(*args, **kwargs)

    return call


def cache(fn: Function) -> Function:
    """Bounded, with an expiry; what was unused for longest goes first. Concurrent misses each run the function."""
    entries: OrderedDict[tuple[Any, ...], tuple[float, Any]] = OrderedDict()

    async def call(*args: Any, **kwargs: Any) -> Any:
        key = (*args, KEYWORDS, *sorted(kwargs.items())) if kwargs else args
        try:
            expiry, result = entries[key]
            if monotonic() < expiry:
                entries.move_to_end(key)
                return result
        except KeyError:
            pass
        result = await fn(*args, **kwargs)
        entries[key] = monotonic() + TTL, result
        entries.move_to_end(key)
        if len(entries) > SIZE:
            entries.popitem(last=False)
        return result

    return call


def fallback(fn: Function) -> Function:
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await fn(*args, **kwargs)
        except Exception:
            return 0

    return call


SIX = (asyncio_timeout, counter, rate_limit, breaker, retry, fallback)
"""From the inside out."""


def stacked(fn: Function) -> Function:
    for wrap in SIX:
        fn = wrap(fn)
    return fn
