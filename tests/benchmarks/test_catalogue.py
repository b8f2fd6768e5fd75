from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import pytest

from benchmarks import floors
from benchmarks.catalogue import CASES
from benchmarks.environment import read_pins
from benchmarks.meters import AsyncCalls, SyncCalls
from benchmarks.model import BEST_PEER, Role
from benchmarks.results import lacking, load_baseline
from benchmarks.spread import load_stability
from tests.docs.pages import ROOT

TIMED = [case for case in CASES.values() if isinstance(case.meter, (AsyncCalls, SyncCalls))]
BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_case_has_one_floor_and_distinct_names(case):
    names = [variant.name for variant in case.variants]

    assert len(case.names(Role.FLOOR)) == 1
    assert case.names(Role.OURS)
    assert len(set(names)) == len(names)
    assert {bar.against for bar in case.bars} <= {None, BEST_PEER, *names}


@pytest.mark.parametrize("case", TIMED, ids=lambda case: case.key)
def test_what_we_write_by_hand_and_what_we_guard_answers(case):
    """The meter refuses a subject that does not return what the guarded function returns."""
    with asyncio.Runner() as runner:
        for variant in case.variants:
            if variant.role in (Role.FLOOR, Role.OURS):

                async def build(variant=variant):
                    return variant.build()

                case.meter.prepare(runner.run(build()), runner.run, 0.0001)


def unknown(found: Mapping[str, Iterable[str]]) -> list[str]:
    """What a committed file holds of cases and variants that are no more."""
    ours = {key: case.names(Role.OURS) for key, case in CASES.items()}
    return [f"{key}: {name}" for key, names in found.items() for name in names if name not in ours.get(key, ())]


def test_the_baseline_covers_every_variant_of_ours():
    _, baseline = load_baseline(BENCHMARKS / "baseline.json", floors.digest(CASES.values()))
    missing = lacking(CASES.values(), baseline)

    assert not missing, f"run.py --write-baseline has to measure: {', '.join(missing)}"
    assert not unknown(baseline), f"run.py --write-baseline drops: {', '.join(unknown(baseline))}"


def test_every_variant_of_ours_is_known_to_be_steady_or_not():
    stability = load_stability(BENCHMARKS / "stability.json")
    missing = lacking(CASES.values(), stability)

    assert not missing, f"stability.py has to judge: {', '.join(missing)}"
    assert not unknown(stability), f"stability.py drops: {', '.join(unknown(stability))}"
    assert any(found.checked for named in stability.values() for found in named.values())


@pytest.mark.parametrize("name", ["peers.txt", "namesake.txt"])
def test_every_peer_is_pinned(name):
    assert read_pins((BENCHMARKS / name).read_text())


@pytest.mark.parametrize("line", ["hyx", "hyx>=1", "a==1==2"])
def test_a_requirement_that_is_not_pinned_is_refused(line):
    with pytest.raises(ValueError, match="must be pinned as name==version"):
        read_pins(f"# peers\n\nhyx==0.0.2  # the first\n{line}\n")
