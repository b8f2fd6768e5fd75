"""Ways to keep so many connections busy for a turn. Both open all of them first, which does not count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.whole_path.turn import Turn, summarize

Ask = Callable[[], Awaitable[None]]
"""Sends a request and appends its latency to the list that is shared."""

FEWEST = 400
"""Requests that a turn in rounds has at least: five such turns are enough for figures."""


async def without_pause(ask: Ask, latencies: list[float], tasks: int, seconds: float) -> Turn:
    """Each task asks again at once, from before the turn until after it; what is answered in the turn counts.

    The turn begins when there have been as many answers as tasks.

    Raises:
        Exception: whatever `ask` raises, which ends the turn.
    """
    warm = asyncio.Event()

    async def ask_on() -> None:
        while True:
            await ask()
            if len(latencies) == tasks:
                warm.set()

    running: list[asyncio.Task[Any]] = [asyncio.create_task(ask_on()) for _ in range(tasks)]
    opening = asyncio.create_task(warm.wait())
    try:
        await _first([opening, *running], None)
        before, started, processor = len(latencies), time.perf_counter(), time.process_time()
        await _first(running, seconds)
        spent, processor = time.perf_counter() - started, time.process_time() - processor
        return summarize(latencies[before:], spent, processor)
    finally:
        for task in (opening, *running):
            task.cancel()
        await asyncio.wait(running)


async def _first(running: Sequence[asyncio.Future[Any]], seconds: float | None) -> None:
    """Wait for the first that ends, or so many seconds. An error is raised."""
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def in_rounds(ask: Ask, latencies: list[float], tasks: int, seconds: float) -> Turn:
    """All ask at once, and again when all have been answered, until the time is over and there are enough requests.

    For a pool that, asked without a pause, lets some wait for many seconds and answers others again and again.

    Raises:
        Exception: whatever `ask` raises, which ends the turn.
    """

    async def ask_all() -> None:
        await asyncio.gather(*(ask() for _ in range(tasks)))

    await ask_all()
    latencies.clear()
    started, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() < started + seconds or len(latencies) < FEWEST:
        await ask_all()
    return summarize(latencies, time.perf_counter() - started, time.process_time() - processor)
