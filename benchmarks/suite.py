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
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome, merge
from benchmarks.model import Case, Effort, Role
from benchmarks.results import CaseResult, Results

if TYPE_CHECKING:
    from benchmarks.environment import Environment

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("worker.py")
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
        enough: seconds after which the peers of the cases that are left are left out; None: never.
    """

    mode: str
    effort: Effort
    passes: int
    enough: float | None = None


FULL = Plan("full", Effort(seconds=0.015, repeats=9, heavy_repeats=2), passes=3)
QUICK = Plan("quick", Effort(seconds=0.004, repeats=7, heavy_repeats=2), passes=1, enough=35)


@dataclass(frozen=True, slots=True)
class Suite:
    peers: Environment
    namesake: Environment
    started: float

    def run(self, cases: Sequence[Case], plan: Plan) -> Results:
        """Measure the cases; one pass goes through all of them before the next begins."""
        before = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        here: dict[str, list[Outcome]] = {case.key: [] for case in cases}
        namesake: dict[str, list[Outcome]] = {case.key: [] for case in cases}
        for turn in range(plan.passes):
            for case in cases:
                late = plan.enough is not None and time.monotonic() - self.started > plan.enough
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
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if ours:
            variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "middleware")])
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
