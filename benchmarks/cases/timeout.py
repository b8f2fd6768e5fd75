"""Timeout: a call that is in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.cases import by_hand
from benchmarks.meters import AsyncCalls
from benchmarks.model import BARE, Bar, Case, answer, floor, library, ours, peer

SECONDS = by_hand.SECONDS


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
        floor(lambda: by_hand.call_later(answer)),
        BARE,
        ours("pyresilience", guarded),
        peer("asyncio.timeout", lambda: with_asyncio),
        peer("asyncio.wait_for", lambda: with_wait_for),
        peer("anyio.fail_after", with_anyio),
        peer("hyx", with_hyx),
        peer("interlock-cb", with_interlock),
    ),
    (Bar(1, against="asyncio.timeout"),),
)
