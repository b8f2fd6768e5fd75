"""Interleaved repeats, of which the minimum counts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.model import Case, Effort, Runner, Variant


@dataclass(slots=True)
class Outcome:
    """What came of a case: the minimum of each variant in the case's unit, or why there is none."""

    figures: dict[str, float] = field(default_factory=dict[str, float])
    errors: dict[str, str] = field(default_factory=dict[str, str])


def measure(case: Case, wanted: Callable[[Variant], bool], effort: Effort) -> Outcome:
    """Build and measure the wanted variants of a case. One that fails is reported, and the others go on."""
    outcome = Outcome()
    repeats: dict[str, Callable[[], float]] = {}
    with asyncio.Runner() as runner:
        for variant in case.variants:
            if not wanted(variant):
                continue
            try:
                subject = _build(variant, runner.run)
                repeats[variant.name] = case.meter.prepare(subject, runner.run, effort.seconds)
            except Exception as error:
                outcome.errors[variant.name] = describe(error)
        count = effort.heavy_repeats if case.meter.heavy else effort.repeats
        with settled_heap():
            interleave(repeats, count, outcome)
    return outcome


def _build(variant: Variant, run: Runner) -> Any:
    async def build() -> Any:
        subject = variant.build()
        return await subject if inspect.isawaitable(subject) else subject

    return run(build())


def interleave(repeats: dict[str, Callable[[], float]], count: int, outcome: Outcome) -> None:
    """Measure each variant `count` times, in turns, and keep the minima.

    Every other round goes backwards, so that nobody always comes after the same neighbour. The garbage collector
    is off inside a repeat and has run before it.
    """
    for turn in range(count):
        names = list(repeats) if turn % 2 == 0 else list(reversed(repeats))
        for name in names:
            if name in outcome.errors:
                continue
            try:
                with collector_off():
                    figure = repeats[name]()
            except Exception as error:
                outcome.errors[name] = describe(error)
                outcome.figures.pop(name, None)
            else:
                outcome.figures[name] = min(figure, outcome.figures.get(name, figure))


@contextlib.contextmanager
def settled_heap() -> Generator[None]:
    """Spare the collections between the repeats from looking at all that is imported."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def collector_off() -> Generator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def merge(outcomes: Collection[Outcome]) -> Outcome:
    """The minima over several processes. A variant that was measured in any of them has no error."""
    merged = Outcome()
    for outcome in outcomes:
        for name, figure in outcome.figures.items():
            merged.figures[name] = min(figure, merged.figures.get(name, figure))
        merged.errors.update(outcome.errors)
    for name in merged.figures:
        merged.errors.pop(name, None)
    return merged


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
