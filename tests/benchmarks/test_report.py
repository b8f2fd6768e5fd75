from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import plots, report
from benchmarks.harness import Outcome
from benchmarks.model import BEST_PEER, Bar, Kind
from tests.benchmarks.cases import FIGURES, case, results


def test_a_missed_bar_is_said_to_be_missed():
    text = report.summary([case(Bar(2), Bar(1, against=BEST_PEER))], results())

    assert "| ≤ 2 x floor; ≤ the best peer | **2.50 x missed**; 0.50 x ✓ | quick peer, 10.0 µs |" in text


def test_rounding_does_not_hide_by_how_little_a_bar_is_missed():
    text = report.summary([case(Bar(2.5))], results({**FIGURES, "ours": 5.004}))

    assert "**2.502 x missed**" in text


@pytest.mark.parametrize(("ours", "shown"), [(5.0, "+3.00 µs ✓"), (1.5, "-0.50 µs ✓"), (2.0, "+0.00 µs ✓")])
def test_what_is_added_to_the_floor_has_one_sign(ours, shown):
    text = report.summary([case(Bar(4, Kind.PLUS))], results({**FIGURES, "ours": ours}))

    assert f"| {shown} |" in text


def test_a_variant_of_ours_that_failed_is_in_the_summary():
    text = report.summary([case()], results({"by hand": 2.0}, errors={"ours": "ValueError: no"}))

    assert "**not measured**: ValueError: no" in text


def test_details_go_from_the_quickest_to_the_slowest():
    lines = report.details([case()], results()).splitlines()

    assert [line.split(" | ")[0] for line in lines[4:]] == [
        "| floor: a loop",
        "| **ours**",
        "| quick peer",
        "| slow peer",
    ]


def test_a_peer_that_could_not_be_measured_is_named_with_the_reason():
    text = report.details([case()], results({"by hand": 2.0}, errors={"slow peer": "No module | named slow"}))

    assert "| slow peer | - | No module \\| named slow |" in text


def test_the_package_of_our_name_is_compared_with_the_floor_of_its_own_process():
    namesake = Outcome({"by hand": 1.0, "ours": 8.0})

    text = report.details([case()], results(namesake=namesake))

    assert "| the package of our name" in text
    assert "8.00 x its own floor" in text


@pytest.mark.parametrize(
    ("bar", "shown"),
    [
        (Bar(1.25), "≤ 1.25 x floor"),
        (Bar(1, against="async-lru"), "≤ async-lru"),
        (Bar(10, Kind.PLUS), "≤ floor + 10 µs"),
        (Bar(2200, Kind.VALUE), "≤ 2,200 µs"),
    ],
)
def test_goals_are_shown_in_words(bar, shown):
    assert report.goal(bar, "µs") == shown


@pytest.mark.parametrize(
    "draw", [lambda: plots.overview([case(Bar(3))], results()), lambda: plots.bars(case(), results())]
)
def test_plots_are_well_formed_and_name_what_they_show(draw):
    drawn = draw()

    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert "quick peer" in drawn
    assert "prefers-color-scheme: dark" in drawn


def test_plots_stay_within_their_frame():
    assert plots.position(0.2) == plots.position(1) == plots.LEFT
    assert plots.position(1e6) == plots.WIDTH - plots.RIGHT


def test_what_was_not_measured_is_not_drawn():
    without = {name: figure for name, figure in FIGURES.items() if name != "ours"}

    assert "ours" not in plots.overview([case()], results(without)).replace('class="ours"', "").replace(".ours", "")
