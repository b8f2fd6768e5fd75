"""Timeout: a call that is in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.meters import AsyncCalls
from benchmarks.model import Bar, Case, answer, floor, library, ours, peer

SECONDS = 30.0


def by_hand() -> Callable[[int], Awaitable[int]]:
    async def call(value: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = task.get_loop().call_later(SECONDS, expire)
        try:
            return await answer(value)
        except asyncio.CancelledError:
            if expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    return call


def guarded() -> Any:
    from pyresilience import TimeoutConfig, resilient

    return resilient(timeout=TimeoutConfig(seconds=SECONDS))(answer)


async def with_asyncio(value: int) -> int:
    async with asyncio.timeout(SECONDS):
        return await answer(value)


async def with_wait_for(value: int) -> int:
    return await asyncio.wait_for(answer(value), SECONDS)


def with_anyio() -> Callable[[int], Awaitable[int]]:
    fail_after = library("anyio").fail_after

    async def call(value: int) -> int:
        with fail_after(SECONDS):
            return await answer(value)

    return call


def with_hyx() -> Any:
    return library("hyx.timeout").timeout(SECONDS)(answer)


def with_interlock() -> Any:
    interlock = library("interlock")
    return interlock.Pipeline(interlock.TimeoutStrategy(SECONDS))(answer)


TIMEOUT = Case(
    "timeout_async",
    "Timeout, async",
    "call_later and cancel",
    AsyncCalls(),
    (
        floor(by_hand),
        ours("pyresilience", guarded),
        peer("asyncio.timeout", lambda: with_asyncio),
        peer("asyncio.wait_for", lambda: with_wait_for),
        peer("anyio.fail_after", with_anyio),
        peer("hyx", with_hyx),
        peer("interlock-cb", with_interlock),
    ),
    (Bar(1, against="asyncio.timeout"),),
)
