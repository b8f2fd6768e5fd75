"""Runs the cases: each in processes of its own, several times over, ours and the package of the same name in turns."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome, merge
from benchmarks.model import Case, Effort, Role
from benchmarks.places import HERE, bare_variables, our_variables
from benchmarks.results import CaseResult, Results

if TYPE_CHECKING:
    from benchmarks.environment import Environment

WORKER = HERE / "worker.py"
WORKER_TIMEOUT = 300


class Select(StrEnum):
    """Which variants a worker measures."""

    ALL = "all"
    OURS = "ours"
    """Those of ours, and what they are compared with by hand."""
    DOCUMENTED = "documented"
    """The floor, and those that use only the documented API that another package of our name shares."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How thoroughly to measure.

    Attributes:
        passes: how often each case gets new processes.
        peers: passes in which the peers are measured, too.
        enough: seconds after which the peers of the cases that are left are left out.
        last: seconds after which no further pass begins.
    """

    mode: str
    effort: Effort
    passes: int
    peers: int
    enough: float = inf
    last: float = inf


# Many short repeats: one that is shorter than a time slice of the scheduler is often left alone by busy neighbours.
FULL = Plan("full", Effort(seconds=0.002, repeats=60, heavy_repeats=3), passes=3, peers=3)
QUICK = Plan("quick", Effort(seconds=0.0005, repeats=40, heavy_repeats=3), passes=2, peers=1, enough=28, last=38)


@dataclass(frozen=True, slots=True)
class Suite:
    peers: Environment
    namesake: Environment
    started: float

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def run(self, cases: Sequence[Case], plan: Plan) -> Results:
        """Measure the cases; one pass goes through all of them before the next begins."""
        before = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        here: dict[str, list[Outcome]] = {case.key: [] for case in cases}
        namesake: dict[str, list[Outcome]] = {case.key: [] for case in cases}
        for turn in range(plan.passes):
            if turn and self.spent > plan.last:
                break
            for case in cases:
                late = turn >= plan.peers or self.spent > plan.enough
                print(f"  {turn + 1}/{plan.passes} {case.title}", file=sys.stderr, flush=True)
                here[case.key].append(self.measure(case, plan.effort, Select.OURS if late else Select.ALL))
                if not late and any(variant.documented for variant in case.variants):
                    namesake[case.key].append(self.measure(case, plan.effort, Select.DOCUMENTED))
        after = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return Results(
            python=self.peers.version,
            system=f"{platform.system()} {platform.machine()}",
            processors=os.cpu_count() or 0,
            load=(before, after),
            mode=plan.mode,
            pins={**self.peers.pins, **self.namesake.pins},
            missing={**self.peers.missing, **self.namesake.missing},
            cases={
                case.key: CaseResult(case.meter.unit, _complete(case, merge(here[case.key])), merge(namesake[case.key]))
                for case in cases
            },
        )

    def measure(self, case: Case, effort: Effort, select: Select) -> Outcome:
        """One process. When it fails, so has every variant that it was to measure."""
        ours = select is not Select.DOCUMENTED
        environment = self.peers if ours else self.namesake
        variables = our_variables() if ours else bare_variables()
        command = [str(environment.python), str(WORKER), case.key, "--select", select]
        command += ["--seconds", str(effort.seconds), "--repeats", str(effort.repeats)]
        command += ["--heavy-repeats", str(effort.heavy_repeats)]
        try:
            done = subprocess.run(
                command, env=variables, capture_output=True, text=True, timeout=WORKER_TIMEOUT, check=False
            )
            if done.returncode == 0:
                return Outcome(**json.loads(done.stdout))
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            reason = f"took more than {WORKER_TIMEOUT} s"
        names = [variant.name for variant in case.variants if ours or variant.documented]
        return Outcome(errors=dict.fromkeys(names, reason))

    def again(self, cases: Sequence[Case], effort: Effort) -> dict[str, Outcome]:
        """Measure only our variants of some cases, in new processes."""
        return {case.key: self.measure(case, effort, Select.OURS) for case in cases}


def _complete(case: Case, outcome: Outcome) -> Outcome:
    """Name the peers that were not even tried."""
    for name in case.names(Role.PEER):
        if name not in outcome.figures:
            outcome.errors.setdefault(name, "left out: the run was short of time")
    return outcome
