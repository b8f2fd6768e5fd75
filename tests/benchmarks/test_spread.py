from __future__ import annotations

import json
import math

import pytest

from benchmarks.catalogue import CASES
from benchmarks.spread import (
    Steadiness,
    checked_only,
    combined,
    describe,
    false_alarms,
    judge,
    load_stability,
    our_ratios,
    save_stability,
    spread,
)


def runs(*ratios, variant="ours"):
    return [{"guard": {variant: ratio}} for ratio in ratios]


def judged(quiet, loaded=()):
    return judge(runs(*quiet), runs(*loaded))["guard"]["ours"]


def test_spread_is_the_largest_divided_by_the_smallest():
    assert spread([2.0, 3.0, 2.5]) == 1.5
    assert math.isinf(spread([2.0]))


def test_false_alarms_are_counted_for_each_pair_of_runs():
    assert false_alarms([1.0, 1.25]) == 0
    assert false_alarms([1.0, 1.26]) == 1
    assert false_alarms([1.0, 1.0, 1.3]) == 2


@pytest.mark.parametrize(
    ("quiet", "loaded", "checked"),
    [
        ([2.0, 2.2], [2.4], True),
        ([2.0, 2.45], [], False),
        ([2.0, 2.1], [2.6], False),
        ([2.0, 2.1], [1.5], False),
        ([2.0], [2.0], False),
    ],
    ids=["steady", "not even when quiet", "an alarm under load", "an alarm after load", "one run says nothing"],
)
def test_only_steady_ratios_are_checked(quiet, loaded, checked):
    assert judged(quiet, loaded).checked is checked


def test_a_variant_that_one_run_could_not_measure_is_not_checked():
    stability = judge([*runs(2.0, 2.0), {"guard": {}}], [])

    assert not stability["guard"]["ours"].checked


def test_a_check_judges_only_what_is_steady():
    stability = judge([{"guard": {"steady": 2.0, "wild": 1.0}}, {"guard": {"steady": 2.0, "wild": 2.0}}], [])

    assert checked_only({"guard": {"steady": 2.0, "wild": 1.5, "new": 1.0}, "other": {"ours": 1.0}}, stability) == {
        "guard": {"steady": 2.0},
        "other": {},
    }


def test_verdicts_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "stability.json"
    stability = judge(runs(2.0, 2.1), runs(2.2))

    save_stability(path, {"quiet": 2, "loaded": 1}, stability)

    assert load_stability(path) == stability


@pytest.mark.parametrize("content", [None, "", "[]", '{"variants": {"guard": {"ours": {}}}}'])
def test_without_readable_verdicts_a_check_ends_with_what_to_do(tmp_path, content):
    path = tmp_path / "stability.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(SystemExit, match=r"nothing in stability\.json.*benchmarks/stability\.py"):
        load_stability(path)


def test_runs_from_before_a_case_was_there_say_which_one_they_lack():
    run = {"retry_async": {"pyresilience": 2.0}}

    text = describe(2, 0, judge([run, run], []))

    assert "1 of 1 ratios are checked" in text
    assert "no run has measured them: " in text and "trio_storm: pyresilience" in text


def test_runs_of_all_cases_lack_nothing():
    run = {key: dict.fromkeys((v.name for v in case.variants), 2.0) for key, case in CASES.items()}

    assert "no run has measured" not in describe(2, 0, judge([run, run], []))


def test_a_case_that_is_no_more_is_left_out(tmp_path):
    figures = {"here": {"figures": {"by hand": 1.0, "pyresilience": 2.0, "hyx": 3.0}, "errors": {}}}
    path = tmp_path / "quiet-0.json"
    path.write_text(json.dumps({"cases": {"retry_async": figures, "gone": figures}}))

    assert our_ratios(path) == {"retry_async": {"pyresilience": 2.0}}


def test_two_series_are_as_steady_as_the_worse_of_them():
    calm, wild = judge(runs(2.0, 2.1), runs(2.2)), judge(runs(2.0, 3.0), runs(2.1))
    new = {"new": calm["guard"]}

    together = combined(wild, {**calm, **new})

    assert together["guard"]["ours"] == Steadiness(quiet=1.5, loaded=1.5, alarms=2, checked=False)
    assert combined(calm, calm)["guard"]["ours"].checked
    assert together["new"]["ours"].checked
