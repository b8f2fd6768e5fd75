from __future__ import annotations

import json

import pytest

from benchmarks.harness import Outcome
from benchmarks.model import BEST_PEER, Bar, Kind, Role
from benchmarks.results import (
    baseline_of,
    best_peer,
    confirmed,
    lacking,
    load_baseline,
    minor,
    ratios,
    regressions,
    save_baseline,
    verdicts,
)
from tests.benchmarks.cases import FIGURES, case, results, variant

GUARD = case()


def test_ratios_are_multiples_of_the_floor():
    assert ratios(GUARD, Outcome(FIGURES)) == {"by hand": 1.0, "ours": 2.5, "slow peer": 10.0, "quick peer": 5.0}


def test_without_a_floor_there_are_no_ratios():
    assert ratios(GUARD, Outcome({"ours": 5.0})) == {}


def test_the_best_peer_is_the_quickest_that_was_measured():
    assert best_peer(GUARD, Outcome(FIGURES)) == "quick peer"
    assert best_peer(GUARD, Outcome({"ours": 1.0, "slow peer": 20.0})) == "slow peer"
    assert best_peer(GUARD, Outcome({"ours": 1.0})) is None


@pytest.mark.parametrize(
    ("bar", "score", "reached"),
    [
        (Bar(2.5), 2.5, True),
        (Bar(2.4), 2.5, False),
        (Bar(1, against=BEST_PEER), 0.5, True),
        (Bar(0.2, against="slow peer"), 0.25, False),
        (Bar(3, Kind.PLUS), 3.0, True),
        (Bar(2, Kind.PLUS), 3.0, False),
        (Bar(0, Kind.PLUS, "quick peer"), -5.0, True),
        (Bar(5, Kind.VALUE), 5.0, True),
        (Bar(4, Kind.VALUE), 5.0, False),
    ],
    ids=repr,
)
def test_verdict(bar, score, reached):
    [verdict] = verdicts(case(bar), Outcome(FIGURES))

    assert (verdict.variant, verdict.score, verdict.reached) == ("ours", score, reached)


def test_no_verdict_where_the_reference_was_not_measured():
    assert verdicts(case(Bar(1, against="slow peer"), Bar(3)), Outcome({"ours": 5.0})) == []


@pytest.mark.parametrize(("ours", "worse"), [(4.0, False), (5.0, False), (6.25, False), (6.3, True)])
def test_a_ratio_may_be_worse_than_the_baseline_by_a_quarter(ours, worse):
    found = regressions([GUARD], results({**FIGURES, "ours": ours}).outcomes, {"guard": {"ours": 2.5}})

    assert bool(found) is worse


def test_a_slower_machine_is_no_regression():
    slower = {name: figure * 3 for name, figure in FIGURES.items()}

    assert regressions([GUARD], results(slower).outcomes, {"guard": {"ours": 2.5}}) == []


@pytest.mark.parametrize("figures", [{"by hand": 2.0}, {"ours": 5.0}], ids=["ours missing", "floor missing"])
def test_what_could_not_be_measured_is_a_regression(figures):
    [found] = regressions([GUARD], results(figures).outcomes, {"guard": {"ours": 2.5}})

    assert str(found) == "guard, ours: was 2.50 x floor, was not measured now"


def test_a_regression_says_how_much():
    [found] = regressions([GUARD], results({**FIGURES, "ours": 10.0}).outcomes, {"guard": {"ours": 2.5}})

    assert str(found) == "guard, ours: 5.00 x floor, was 2.50 (+100%, allowed +25%)"


def test_a_case_that_the_baseline_does_not_know_is_no_regression():
    assert regressions([GUARD], results().outcomes, {}) == []


def test_cases_that_were_not_asked_for_are_not_checked():
    assert regressions([], results().outcomes, {"guard": {"ours": 0.1}}) == []


@pytest.mark.parametrize("known", [{}, {"guard": {"other": 1.0}}], ids=["a new case", "a new variant"])
def test_what_a_committed_file_does_not_hold_is_named(known):
    assert lacking([GUARD], known) == ["guard: ours"]


def test_nothing_is_named_of_what_a_committed_file_holds():
    assert lacking([GUARD], {"guard": {"ours": 2.5}}) == []


SLOW, FINE = Outcome({**FIGURES, "ours": 10.0}), Outcome(FIGURES)


def check(*outcomes):
    """The regressions of the first outcome that stay in the ones that are measured after it."""
    remaining = iter(outcomes)

    def again(_cases):
        outcome = next(remaining, None)
        return None if outcome is None else {"guard": outcome}

    return confirmed([GUARD], {"guard": next(remaining)}, {"guard": {"ours": 2.5}}, again), len(list(remaining))


def test_what_is_worse_each_time_is_a_regression():
    found, left = check(SLOW, SLOW, SLOW)

    assert [regression.variant for regression in found] == ["ours"]
    assert left == 0


def test_what_is_worse_only_for_a_moment_is_no_regression():
    assert check(SLOW, SLOW, FINE, SLOW) == ([], 1)


def test_what_is_fine_is_not_measured_again():
    assert check(FINE, SLOW) == ([], 1)


def test_another_variant_that_is_slow_the_second_time_is_no_regression():
    """Only what was suspected is looked at, or each round would add its own noise."""
    pair = case(variants=[variant("by hand", Role.FLOOR), variant("a", Role.OURS), variant("b", Role.OURS)])
    first, second = (Outcome({"by hand": 1.0, "a": a, "b": b}) for a, b in ((9.0, 1.0), (1.0, 9.0)))

    assert confirmed([pair], {"guard": first}, {"guard": {"a": 1.0, "b": 1.0}}, lambda _: {"guard": second}) == []


def test_a_baseline_holds_our_ratios_and_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "baseline.json"

    save_baseline(path, minor("3.11.7"), "these floors", baseline_of([GUARD], results()))

    assert load_baseline(path, "these floors") == ("3.11", {"guard": {"ours": 2.5}})


@pytest.mark.parametrize("content", [{"floors": "others"}, {}], ids=["other floors", "unknown floors"])
def test_a_baseline_of_other_floors_is_refused(tmp_path, content):
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"python": "3.11", "ratios": {"guard": {"ours": 2.5}}, **content}))

    with pytest.raises(SystemExit, match=r"the floors have changed since the baseline.*--write-baseline"):
        load_baseline(path, "these floors")


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_without_a_readable_baseline_a_check_ends_with_what_to_do(tmp_path, content):
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(SystemExit, match=r"no baseline in baseline\.json.*--write-baseline"):
        load_baseline(path, "")


def test_results_are_saved_as_json(tmp_path):
    path = tmp_path / "results.json"

    results(errors={"slow peer": "gone"}).save(path)

    content = json.loads(path.read_text())
    assert content["cases"]["guard"]["here"] == {"figures": FIGURES, "errors": {"slow peer": "gone"}}
