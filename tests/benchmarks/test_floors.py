"""A check that compares ratios to different floors would find regressions where there are none, and miss others."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import floors
from benchmarks.cases import by_hand
from benchmarks.catalogue import CASES
from benchmarks.model import Role
from tests.benchmarks.cases import case

KNOWN = {part.__name__.rpartition(".")[2] for part in (*floors.MODULES, *floors.ELSEWHERE)}
GUARD = case()


def test_the_same_floors_have_the_same_digest():
    assert floors.digest([GUARD]) == floors.digest([GUARD])
    assert len(floors.digest([GUARD])) == 12


@pytest.mark.parametrize(
    "other",
    [dataclasses.replace(GUARD, floor="another loop"), dataclasses.replace(GUARD, key="other")],
    ids=["described otherwise", "another case"],
)
def test_another_floor_has_another_digest(other):
    assert floors.digest([other]) != floors.digest([GUARD])


@pytest.mark.parametrize("parts", ["MODULES", "ELSEWHERE"])
def test_other_code_has_another_digest(monkeypatch, parts):
    before = floors.digest([GUARD])
    monkeypatch.setattr(floors, parts, (by_hand.retry,))

    assert floors.digest([GUARD]) != before


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_digest_covers_the_floor_of_every_case(case):
    [build] = [variant.build for variant in case.variants if variant.role is Role.FLOOR]
    if build is str:  # the import of nothing
        return
    names = {build.__name__, build.__module__.rpartition(".")[2], *build.__code__.co_names}

    assert names & KNOWN
