"""The fault script is a pure function of the seed."""

from __future__ import annotations

import pytest

from pyresilience_middleware.cli._faults import (
    DOWN,
    ERRORS,
    HEALTHY,
    QUICK,
    RECOVERING,
    SCRIPT,
    SLOW,
    SLOWNESS,
    Answer,
    answer_to,
)

REQUESTS = 1000


def answers(seed, phase, call=1):
    return [answer_to(seed, phase, number, call, requests=REQUESTS) for number in range(REQUESTS)]


def failed(script):
    return sum(answer.status != 200 for answer in script) / len(script)


def test_a_seed_repeats_the_script_and_another_one_does_not():
    """Also for each single answer, in whatever order they are asked for."""
    assert answers(1, ERRORS) == answers(1, ERRORS)
    assert answers(1, ERRORS) != answers(2, ERRORS)
    assert answers(1, ERRORS)[::-1] == [
        answer_to(1, ERRORS, n, 1, requests=REQUESTS) for n in reversed(range(REQUESTS))
    ]


def test_the_script_is_the_same_on_every_machine_and_in_every_process():
    """It must depend neither on the hash seed of the process nor on the clock."""
    script = "".join("x" if answer.status != 200 else "." for answer in answers(7, ERRORS)[:40])
    assert script == "..x.....xx.......xxx..xx...x....x..xx..."


def test_a_retry_is_a_new_draw():
    assert answers(1, ERRORS, call=1) != answers(1, ERRORS, call=2)
    assert failed(answers(1, ERRORS, call=2)) == pytest.approx(0.3, abs=0.05)


def test_each_phase_does_what_its_name_says():
    assert set(answers(1, HEALTHY)) == {Answer(200, QUICK)}
    assert set(answers(1, DOWN)) == {Answer(503, QUICK)}
    assert failed(answers(1, ERRORS)) == pytest.approx(0.3, abs=0.05)
    assert failed(answers(1, SLOWNESS)) == 0
    late = [answer for answer in answers(1, SLOWNESS) if answer.delay != QUICK]
    assert len(late) / REQUESTS == pytest.approx(0.3, abs=0.05)
    assert all(SLOW[0] <= answer.delay <= SLOW[1] for answer in late)


def test_recovery_is_gradual_and_complete():
    script = answers(1, RECOVERING)
    assert failed(script[:200]) > 0.4
    assert failed(script[-200:]) < 0.2
    assert script[-1].status == 200
    assert RECOVERING.error_share(1.0) == 0


def test_the_upstream_is_healthy_before_it_fails_and_recovers_last():
    assert SCRIPT[0] is HEALTHY
    assert SCRIPT[-2:] == (DOWN, RECOVERING)
