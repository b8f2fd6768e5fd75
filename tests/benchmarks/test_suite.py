from __future__ import annotations

import time
from math import inf
from pathlib import Path

import pytest

from benchmarks.environment import Environment
from benchmarks.harness import Outcome
from benchmarks.model import Effort
from benchmarks.suite import Plan, Select, Suite
from tests.benchmarks.cases import case

EFFORT = Effort(seconds=0.0, repeats=1, heavy_repeats=1)
CASES = [case(key="first"), case(key="second")]


@pytest.fixture
def measured(monkeypatch):
    """What is measured, in order; ours is quicker each time."""
    calls = []

    def measure(self, case, effort, select):
        calls.append((case.key, select))
        ours = 10.0 - len(calls)
        peers = {"slow peer": 20.0, "quick peer": 10.0} if select is Select.ALL else {}
        return Outcome({"by hand": 2.0, "ours": ours, **peers})

    monkeypatch.setattr(Suite, "measure", measure)
    return calls


def run(**plan):
    environment = Environment(Path("python"), "3.11.7", {}, {})
    suite = Suite(peers=environment, namesake=environment, started=time.monotonic())
    return suite.run(CASES, Plan("quick", EFFORT, **{"passes": 1, "peers": 1, **plan}))


def test_one_pass_goes_through_all_cases_before_the_next(measured):
    run(passes=2, peers=2)

    assert measured == [(key, Select.ALL) for key in ("first", "second", "first", "second")]


def test_the_minimum_of_all_passes_counts(measured):
    assert run(passes=2, peers=2).outcomes["first"].figures["ours"] == 7.0


def test_later_passes_may_leave_the_peers_out(measured):
    results = run(passes=2)

    assert [select for _, select in measured] == [Select.ALL, Select.ALL, Select.OURS, Select.OURS]
    assert results.outcomes["second"].figures["quick peer"] == 10.0


def test_a_run_that_is_short_of_time_leaves_the_peers_out_and_says_so(measured):
    results = run(enough=-inf)

    assert [select for _, select in measured] == [Select.OURS, Select.OURS]
    assert results.outcomes["first"].errors["slow peer"] == "left out: the run was short of time"


def test_a_run_that_is_short_of_time_has_one_pass(measured):
    run(passes=3, last=-inf)

    assert len(measured) == len(CASES)
