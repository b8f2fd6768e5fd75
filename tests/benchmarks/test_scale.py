from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import asdict
from xml.etree import ElementTree

import pytest

from benchmarks import lines
from benchmarks.scale import memory, threads, waiters
from benchmarks.scale.curve import Curve, from_json, minima
from benchmarks.scale.report import describe
from benchmarks.scale.studies import STUDIES


def curve(key="pipelines", *, logarithmic=True):
    found = Curve(key, "Cost", "things", "µs", ["ours"], logarithmic)
    for x, y in ((1, 2.0), (10, 2.5), (1000, 3.0)):
        found.add("ours", x, y)
        found.add("by hand", x, y / 2)
    return found


def test_growth_is_the_last_figure_as_a_multiple_of_the_first():
    assert curve().growth("ours") == 1.5


def test_a_curve_survives_json():
    assert from_json(json.loads(json.dumps(asdict(curve())))) == curve()


def test_a_repeat_that_fails_fails_the_study():
    def broken():
        raise ValueError("no")

    with pytest.raises(RuntimeError, match="ours: ValueError: no"):
        minima({"ours": broken}, 1)


@pytest.mark.parametrize(
    ("highest", "steps"),
    [
        (1.0, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (3.9, [0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]),
        (74.2, [0, 10, 20, 30, 40, 50, 60, 70, 80]),
        (0.013, [0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.014]),
    ],
)
def test_the_axis_goes_from_zero_in_round_steps(highest, steps):
    assert lines.round_steps(highest) == steps


def test_a_logarithmic_axis_gives_each_factor_the_same_room():
    found = curve()
    one, ten, thousand = (lines.position(x, found) for x in (1, 10, 1000))

    assert thousand - ten == pytest.approx(2 * (ten - one))
    assert lines.LEFT < one < thousand < lines.RIGHT


def test_a_linear_axis_has_at_most_eleven_marks():
    found = Curve("memory", "Memory", "calls", "", [], logarithmic=False)
    for x in range(21):
        found.add("blocks", x / 2, 1.0)

    assert lines.marks(found) == [float(x) for x in range(11)]


def test_the_plot_is_well_formed_and_names_its_lines():
    drawn = lines.draw(curve())

    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn.count("<polyline") == 2
    assert 'class="mine"' in drawn and 'class="theirs"' in drawn and "by hand" in drawn


@pytest.mark.parametrize("guard", waiters.GUARDS.values(), ids=waiters.GUARDS)
def test_permits_go_out_in_order_and_wake_one_each(guard):
    _, wake_ups = asyncio.run(waiters.queue_up(guard, 50))

    assert wake_ups == 1.0


def test_a_queue_that_is_not_first_come_first_served_fails_the_study():
    def unfair(work):
        queue, holding = [], False

        async def call(number):
            nonlocal holding
            if holding:
                turn = asyncio.get_running_loop().create_future()
                queue.append(turn)
                await turn
            holding = True
            await work(number)
            if queue:
                queue.pop().set_result(None)

        return call

    with pytest.raises(RuntimeError, match="waited longest"):
        asyncio.run(waiters.queue_up(unfair, 3))


def test_the_study_of_memory_samples_both_sizes():
    found = memory.measure(calls=1000, warm_up=200)

    assert [len(points) for points in found.series.values()] == [memory.SAMPLES + 1] * 2
    assert "million calls" in memory.says(found)


def test_every_study_has_a_place_on_the_page():
    assert list(STUDIES) == ["pipelines", "hosts", "waiters", "listeners", "threads", "memory"]
    found = memory.measure(calls=1000, warm_up=200)

    assert describe([found]).startswith(f"### {found.title}\n\n![{found.title}](assets/benchmarks-scale-memory.svg)")


def rates(two):
    alone = [90.0, 100.0, 110.0]
    return threads.drawn(
        {(name, count): alone if count == 1 else two for name in (threads.BREAKER, threads.LIMITER) for count in (1, 2)}
    )


def test_the_middle_of_the_repeats_is_drawn_each_beside_one_thread_of_the_same_repeat():
    assert rates([200.0, 30.0, 55.0]).series[threads.BREAKER] == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize(("two", "no_worse"), [([70.0, 92.0, 99.0], True), ([40.0, 80.0, 105.0], False)])
def test_threads_are_no_worse_only_within_the_spread_of_one(two, no_worse):
    assert ("no worse than one thread" in threads.says(rates(two))) is no_worse


def test_a_rate_counts_the_calls_of_all_threads(monkeypatch):
    """Each thread begins at 0 and ends at 2 by a clock that says so."""
    clock = threading.local()

    def tick():
        clock.now = getattr(clock, "now", -2.0) + 2.0
        return clock.now

    monkeypatch.setattr(time, "perf_counter", tick)

    assert threads.calls_per_second(lambda _: None, threads=3, calls=10) == 15.0


def test_a_thread_that_fails_fails_the_study(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    with pytest.raises(RuntimeError, match="a thread failed"):
        threads.calls_per_second(lambda _: 1 // 0, threads=2, calls=1)
