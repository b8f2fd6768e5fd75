from __future__ import annotations

import json

from benchmarks.catalogue import CASES
from benchmarks.spread import judge
from benchmarks.stability import describe, our_ratios


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
