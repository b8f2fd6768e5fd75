from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.whole_path.load import WrongResponseError, complete
from benchmarks.whole_path.results import Comparison, draw, processor, rates
from benchmarks.whole_path.turn import Turn, best, quantile, summarize


def comparison():
    found = Comparison("clients", "Clients", {"bare": "bare", "pyresilience": "bare", "broken": "bare"})
    for connections in (1, 64):
        found.add("bare", connections, Turn(1000.0, 1.0, 2.0, 100.0))
        found.add("pyresilience", connections, Turn(800.0, 1.1, 4.0, 130.0))
        found.add("pyresilience", connections, Turn(900.0, 1.2, 3.0, 120.0))
    found.errors["broken"] = "no | such module"
    return found


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantile(share, value):
    assert quantile(range(1, 101), share) == value


def test_without_requests_there_is_no_quantile():
    with pytest.raises(ValueError, match="no request"):
        summarize([], 1.0, 0.5)


def test_a_turn_is_summarized():
    assert summarize([0.002, 0.001, 0.004, 0.003], seconds=2.0, processor=0.01) == Turn(2.0, 2.0, 4.0, 2500.0)


def test_the_best_of_several_turns_counts():
    turns = [Turn(100.0, 3.0, 9.0, 50.0), Turn(200.0, 4.0, 8.0, 60.0)]

    assert best(turns) == Turn(200.0, 3.0, 8.0, 50.0)


@pytest.mark.parametrize(
    ("received", "whole"),
    [
        (b"", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length:2\r\nx: y\r\n\r\nok", True),
    ],
)
def test_a_response_is_complete_with_its_last_byte(received, whole):
    assert complete(received) is whole


@pytest.mark.parametrize("head", [b"HTTP/1.1 503 Busy\r\ncontent-length: 0", b"HTTP/1.1 200 OK\r\nx: y"])
def test_any_other_response_ends_the_turn(head):
    with pytest.raises(WrongResponseError, match=r"HTTP/1\.1"):
        complete(head + b"\r\n\r\n")


def test_rates_stand_beside_the_variant_without_a_guard():
    text = rates(comparison())

    assert "| **pyresilience** | 900 (0.90 x) | 900 (0.90 x) |  | 3.00 | 3.00 |  |" in text
    assert "| bare | 1,000 | 1,000 |" in text
    assert "| broken | no \\| such module |" in text


def test_cpu_time_stands_beside_that_without_a_guard():
    text = processor(comparison())

    assert "| **pyresilience** | 120 (+20) | 120 (+20) |  |" in text
    assert "broken" not in text


def test_the_plot_has_a_bar_for_each_rate():
    drawn = draw(comparison())

    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn.count("<rect") == 4
    assert drawn.count('class="ours"') == 2
