"""Runs the variants of one case under callgrind. Started by `run.py --instructions`, never by hand.

Each stretch ends with `mark`, at which callgrind writes down what it has counted since the one before.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.catalogue import CASES
from benchmarks.harness import describe
from benchmarks.instructions.callgrind import LENGTHS
from benchmarks.meters import SyncCalls, expect
from benchmarks.model import Role

if TYPE_CHECKING:
    from benchmarks.model import Case, Variant


def mark() -> None:
    os.getpgid(0)  # a function of the C library that nothing else calls


def stretch_of(case: Case, variant: Variant, runner: asyncio.Runner) -> Callable[[int], None]:
    """A function that makes so many calls."""

    async def build() -> Any:
        subject = variant.build()
        return await subject if inspect.isawaitable(subject) else subject

    subject = runner.run(build())

    def calls(count: int) -> None:
        for _ in range(count):
            subject(1)

    async def awaited_calls(count: int) -> None:
        for _ in range(count):
            await subject(1)

    async def awaited() -> Any:
        return await subject(1)

    if isinstance(case.meter, SyncCalls):
        expect(subject(1))
        return calls
    expect(runner.run(awaited()))
    return lambda count: runner.run(awaited_calls(count))


def count(case: Case) -> dict[str, Any]:
    """The names in the order of the marks, three for each: before, between and after the two lengths."""
    counted: list[str] = []
    errors: dict[str, str] = {}
    with asyncio.Runner() as runner:
        for variant in case.variants:
            warm_up, *lengths = LENGTHS[variant.role is Role.PEER]
            try:
                stretch = stretch_of(case, variant, runner)
                stretch(warm_up)
            except Exception as error:
                errors[variant.name] = describe(error)
                continue
            counted.append(variant.name)
            gc.collect()
            mark()
            for length in lengths:
                stretch(length)
                mark()
    return {"counted": counted, "errors": errors}


def main() -> None:
    results = os.dup(1)  # what libraries print goes to where errors go
    os.dup2(2, 1)
    gc.disable()
    answer = count(CASES[sys.argv[1]])
    with open(results, "w") as stream:
        json.dump(answer, stream)


if __name__ == "__main__":
    main()
