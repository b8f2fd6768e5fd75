from __future__ import annotations

import asyncio
import gc

import pytest

from benchmarks.harness import Outcome, interleave, measure, merge
from benchmarks.meters import MOST_CALLS, AsyncCalls, Memory, Storm, SyncCalls, calls_for
from benchmarks.model import Effort, Role, Variant, WrongAnswerError
from tests.benchmarks.cases import Scripted, case, variant

EFFORT = Effort(seconds=0.0001, repeats=3, heavy_repeats=1)


def everything(_variant):
    return True


def test_the_minimum_of_all_repeats_counts():
    variants = (variant("by hand", Role.FLOOR, [3.0, 1.0, 2.0]), variant("ours", Role.OURS, [4.0, 6.0, 5.0]))

    assert measure(case(variants=variants), everything, EFFORT).figures == {"by hand": 1.0, "ours": 4.0}


def test_variants_take_turns_and_every_other_round_goes_backwards():
    meter = Scripted()
    variants = [variant(name, Role.PEER, [1.0] * 3) for name in ("a", "b", "c")]

    measure(case(variants=variants, meter=meter), everything, EFFORT)

    assert "".join(meter.order) == "abccbaabc"


def test_a_heavy_meter_repeats_less():
    meter = Scripted(heavy=True)

    measure(case(variants=[variant("a", Role.PEER, [1.0])], meter=meter), everything, EFFORT)

    assert meter.order == ["a"]


def test_only_what_is_wanted_is_built():
    def not_wanted():
        raise AssertionError

    variants = [variant("ours", Role.OURS, [1.0] * 3), Variant("peer", Role.PEER, not_wanted)]

    outcome = measure(case(variants=variants), lambda variant: variant.role is Role.OURS, EFFORT)

    assert outcome == Outcome({"ours": 1.0}, {})


def test_a_peer_that_is_not_installed_is_reported_and_the_others_are_measured():
    def absent():
        raise ModuleNotFoundError("No module named 'absent'")

    variants = [Variant("absent", Role.PEER, absent), variant("ours", Role.OURS, [1.0] * 3)]

    outcome = measure(case(variants=variants), everything, EFFORT)

    assert outcome.figures == {"ours": 1.0}
    assert outcome.errors == {"absent": "ModuleNotFoundError: No module named 'absent'"}


def test_a_variant_that_fails_in_the_middle_loses_its_figure_and_its_turns():
    meter = Scripted()
    variants = [
        variant("broken", Role.PEER, [1.0, ValueError("no more\nand a second line")]),
        variant("ours", Role.OURS, [2.0] * 3),
    ]

    outcome = measure(case(variants=variants, meter=meter), everything, EFFORT)

    assert outcome == Outcome({"ours": 2.0}, {"broken": "ValueError: no more"})
    assert meter.order.count("broken") == 2


def test_an_async_build_runs_in_the_loop_that_measures():
    loops = []

    async def build():
        loops.append(asyncio.get_running_loop())

        async def subject(value):
            loops.append(asyncio.get_running_loop())
            return value

        return subject

    outcome = measure(case(variants=[Variant("ours", Role.OURS, build)], meter=AsyncCalls()), everything, EFFORT)

    assert outcome.errors == {}
    assert len(set(loops)) == 1


@pytest.mark.parametrize("failing", [False, True])
def test_the_collector_is_off_in_a_repeat_and_on_afterwards(failing):
    seen = []

    def repeat():
        seen.append(gc.isenabled())
        if failing:
            raise ValueError
        return 1.0

    interleave({"a": repeat}, 1, Outcome())

    assert seen == [False]
    assert gc.isenabled()


def test_merging_keeps_the_minima_and_forgets_errors_of_what_was_measured_elsewhere():
    first = Outcome({"a": 2.0, "b": 5.0}, {"c": "ImportError: c"})
    second = Outcome({"a": 1.0}, {"b": "killed", "c": "ImportError: c"})

    assert merge([first, second]) == Outcome({"a": 1.0, "b": 5.0}, {"c": "ImportError: c"})


def test_a_repeat_has_as_many_calls_as_fill_its_time():
    assert calls_for(0.01, per_call=0.0001) == 100
    assert calls_for(0.01, per_call=5.0) == 10
    assert calls_for(10.0, per_call=0.0) == MOST_CALLS


async def _wrong(_value):
    return None


@pytest.mark.parametrize(
    ("meter", "subject"),
    [
        (AsyncCalls(), _wrong),
        (SyncCalls(), lambda value: None),
        (Storm(tasks=1), _wrong),
        (Memory(functions=1), lambda fn: _wrong),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_guard_that_swallows_the_answer_is_not_measured(meter, subject):
    with asyncio.Runner() as runner, pytest.raises(WrongAnswerError, match="returned None"):
        meter.prepare(subject, runner.run, 0.0001)


def test_memory_is_what_stays_for_each_function():
    """A guard that keeps a kilobyte more is seen to keep a kilobyte more."""
    kept = []

    def lean(fn):
        return fn

    def fat(fn):
        kept.append(bytearray(1024))
        return fn

    with asyncio.Runner() as runner:
        lean_figure, fat_figure = (Memory(functions=50).prepare(guard, runner.run, 0.0)() for guard in (lean, fat))

    assert 1000 < fat_figure - lean_figure < 1300
