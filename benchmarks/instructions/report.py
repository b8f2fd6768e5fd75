"""Counts the cases whose unit is a call, and writes JSON and a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.instructions.callgrind import count, required
from benchmarks.meters import AsyncCalls, SyncCalls
from benchmarks.model import Case, Role
from benchmarks.page import INSTRUCTIONS, publish, table
from benchmarks.places import HERE, PAGE
from benchmarks.report import times
from benchmarks.results import ratios

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.harness import Outcome


def countable(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if type(case.meter) in (AsyncCalls, SyncCalls)]  # not those on trio


def run(cases: Sequence[Case], environment: Environment, *, write: bool) -> str:
    """Count the cases; what the tables show is also written, if so wished.

    Raises:
        SystemExit: valgrind is not there.
    """
    required()
    cases = countable(cases)
    outcomes: dict[str, Outcome] = {}
    for index, case in enumerate(cases):
        print(f"  {index + 1}/{len(cases)} {case.title}", file=sys.stderr, flush=True)
        outcomes[case.key] = count(case, environment)
    content = f"CPython {environment.version}.\n\n{tables(cases, outcomes)}"
    if write:
        results = {"python": environment.version, "cases": {key: asdict(found) for key, found in outcomes.items()}}
        (HERE / "instructions.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        publish(PAGE, content, INSTRUCTIONS)
    return content


def tables(cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> str:
    rows: list[list[str]] = []
    for case in cases:
        outcome = outcomes[case.key]
        factors = ratios(case, outcome)
        peers = [f"{name} {outcome.figures[name]:,.0f}" for name in quickest_peers(case, outcome)]
        floor = [outcome.figures[name] for name in case.names(Role.FLOOR) if name in outcome.figures]
        for name in case.names(Role.OURS):
            variant = name.removeprefix("pyresilience").removeprefix(", ")
            value = outcome.figures.get(name)
            shown = "not counted" if value is None else f"{value:,.0f}"
            ratio = times(factors[name]) if name in factors else ""
            rows.append([case.title, variant, f"{floor[0]:,.0f}" if floor else "", shown, ratio, ", ".join(peers)])
    return table(["case", "", "floor", "ours", "x floor", "the two best peers"], rows)


def quickest_peers(case: Case, outcome: Outcome) -> list[str]:
    measured = [name for name in case.names(Role.PEER) if name in outcome.figures]
    return sorted(measured, key=outcome.figures.__getitem__)[:2]
