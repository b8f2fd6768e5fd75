from __future__ import annotations

import pytest

from benchmarks.catalogue import CASES
from benchmarks.harness import Outcome
from benchmarks.instructions import callgrind
from benchmarks.instructions.report import countable, tables
from tests.benchmarks.cases import case

GUARD = case()


def test_calls_cost_what_the_longer_stretch_has_more():
    _, short, long = callgrind.LENGTHS[False]
    _, short_peer, long_peer = callgrind.LENGTHS[True]
    shared = 5000
    counted = [10**6, shared + short * 7, shared + long * 7, 99, shared + short_peer * 30, shared + long_peer * 30]

    assert callgrind.per_call(GUARD, ["ours", "slow peer"], counted) == {"ours": 7.0, "slow peer": 30.0}


def test_marks_that_do_not_fit_the_variants_are_refused():
    with pytest.raises(ValueError, match="2 variants have 6 marks, not 5"):
        callgrind.per_call(GUARD, ["by hand", "ours"], [1, 2, 3, 4, 5])


def test_dumps_are_read_in_the_order_in_which_they_were_written(tmp_path):
    for number in range(1, 12):
        (tmp_path / f"counts.{number}").write_text(f"desc: Trigger: x\nsummary: {number * 100}\n\nfn=(1)\n")
    (tmp_path / "counts").write_text("summary: 1\n")

    assert callgrind.stretches(tmp_path / "counts") == [number * 100 for number in range(1, 12)]


def test_a_dump_without_a_summary_is_refused(tmp_path):
    (tmp_path / "counts.1").write_text("events: Ir\n")

    with pytest.raises(ValueError, match="no summary"):
        callgrind.stretches(tmp_path / "counts")


def test_without_valgrind_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(callgrind.shutil, "which", lambda _name: None)

    with pytest.raises(SystemExit, match="valgrind"):
        callgrind.required()


def test_only_cases_of_single_calls_are_counted():
    keys = {found.key for found in countable(list(CASES.values()))}

    assert {"retry_async", "retry_sync", "six_policies"} <= keys
    assert not keys & {"retry_storm", "memory_retry", "import_time"}


def test_the_table_shows_floor_ratio_and_the_best_peers():
    found = Outcome({"by hand": 1000.0, "ours": 2500.0, "slow peer": 9000.0, "quick peer": 4000.0})

    text = tables([GUARD], {"guard": found})

    assert "| 1,000 | 2,500 | 2.50 x | quick peer 4,000, slow peer 9,000 |" in text


def test_what_was_not_counted_is_named():
    assert "| not counted |" in tables([GUARD], {"guard": Outcome({"by hand": 1000.0}, {"ours": "no"})})
