"""The exit code of the demo follows from four claims, each of which can fail alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyresilience_middleware.cli._load import Reply
from pyresilience_middleware.cli._verdict import Summary, percentile, summarise, verdict

BARE = Summary(requests=200, answered=100, by_fallback=0, p50=0.01, p99=1.0, upstream_calls=200)
GUARDED = Summary(requests=200, answered=120, by_fallback=30, p50=0.01, p99=1.0, upstream_calls=150)


def failing(bare=BARE, guarded=GUARDED, bare_down=40, guarded_down=20, seen_open=True):
    checks = verdict(bare, guarded, bare_down, guarded_down, seen_open=seen_open)
    assert len(checks) == 4
    return [check.claim for check in checks if not check.holds]


def test_all_claims_hold_at_their_limits():
    """Exactly 10 points more, the same p99, exactly half the calls, and the circuit seen open."""
    assert failing() == []


def test_one_answer_short_of_ten_points_is_not_enough():
    assert failing(guarded=replace(GUARDED, answered=119)) == ["answered at least 10 points more requests"]


def test_the_gain_is_in_points_of_each_ones_own_requests():
    """30 of 50 are 60 %, as many as 120 of 200, although they are fewer."""
    assert failing(guarded=replace(GUARDED, requests=50, answered=30, by_fallback=0)) == []


def test_no_rounding_decides_over_ten_points():
    """(0.8 - 0.7) * 100 is less than 10 in floating point."""
    assert (
        failing(
            bare=replace(BARE, requests=10, answered=7),
            guarded=replace(GUARDED, requests=10, answered=8, by_fallback=0),
        )
        == []
    )


def test_a_higher_p99_is_worse():
    assert failing(guarded=replace(GUARDED, p99=1.001)) == ["its p99 was no worse"]


@pytest.mark.parametrize(("bare_down", "guarded_down"), [(40, 21), (0, 0)])
def test_more_than_half_the_calls_while_down_or_nothing_to_compare_with(bare_down, guarded_down):
    assert failing(bare_down=bare_down, guarded_down=guarded_down) == [
        "sent at most half as many calls to the upstream while that was down"
    ]


def test_a_circuit_that_was_never_seen_open():
    assert failing(seen_open=False) == ["/health showed the circuit open"]


def test_no_requests_prove_nothing():
    nothing = summarise([], 0)
    assert "answered at least 10 points more requests" in failing(bare=nothing, guarded=nothing)


def test_the_share_without_fallback_is_told():
    first = verdict(BARE, GUARDED, 40, 20, seen_open=True)[0]
    assert first.seen == "60.0 % against 50.0 %; 45.0 % without the fallback"


def test_a_summary_counts_failed_requests_in_the_percentiles():
    replies = [Reply("bare", "down", number != 0, number == 1, 2.0 if number == 0 else 0.1) for number in range(10)]
    assert summarise(replies, 12) == Summary(
        requests=10, answered=9, by_fallback=1, p50=0.1, p99=2.0, upstream_calls=12
    )


def test_percentiles_are_values_that_were_measured():
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99)) == (50.0, 99.0)
    assert percentile([3.0], 99) == 3.0
    assert percentile([], 99) == 0.0
