from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.whole_path.load import WrongResponseError, complete
from benchmarks.whole_path.results import Comparison, draw, tables
from benchmarks.whole_path.turn import Range, Turn, figures, quantile, summarize


def turn(rate, p99=2.0, processor=100.0, requests=1000):
    return Turn(rate, 1.0, p99, processor, requests)


def comparison():
    names = ("bare", "pyresilience", "as quick", "rare", "broken")
    found = Comparison("clients", "Clients", (1, 64), dict.fromkeys(names, "bare"))
    for rate in (990.0, 1000.0, 1010.0):
        found.add("bare", 64, turn(rate))
        found.add("pyresilience", 64, turn(rate - 200, p99=rate / 500, processor=rate / 10 + 20))
        found.add("as quick", 64, turn(rate - 10, processor=101.0))
        found.add("rare", 64, turn(rate, requests=600))
    found.errors["broken"] = "no | such module"
    return found


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantile(share, value):
    assert quantile(range(1, 101), share) == value


def test_without_requests_there_is_no_quantile():
    with pytest.raises(ValueError, match="no request"):
        summarize([], 1.0, 0.5)


def test_a_turn_is_summarized():
    assert summarize([0.002, 0.001, 0.004, 0.003], seconds=2.0, processor=0.01) == Turn(2.0, 2.0, 4.0, 2500.0, 4)


def test_all_figures_are_of_the_same_turns():
    found = figures([turn(100.0, p99=9.0), turn(300.0, p99=8.0), turn(200.0, p99=30.0)])

    assert (found.rate, found.p99, found.requests) == (Range(200.0, 100.0, 300.0), Range(9.0, 8.0, 30.0), 3000)


@pytest.mark.parametrize(("other", "differs"), [(Range(111, 109, 113), True), (Range(109, 108, 110), False)])
def test_a_difference_must_exceed_the_spread_of_both(other, differs):
    own = Range(100, 95, 105)

    assert own.differs(other) is differs
    assert other.differs(own) is differs


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


@pytest.mark.parametrize(
    "row",
    [
        "| bare | 1,000 (990 to 1,010) |  | 2.00 (2.00 to 2.00) | 100 (100 to 100) |  |",
        "| **pyresilience** | 800 (790 to 810) | 0.80 x | 2.00 (1.98 to 2.02) | 120 (119 to 121) | +20 |",
        "| as quick | 990 (980 to 1,000) | within the spread | 2.00 (2.00 to 2.00) | 101 (101 to 101) | +1 |",
        "| rare | fewer than 2,000 requests |  |  |  |  |",
        "| broken | no \\| such module |  |  |  |  |",
    ],
)
def test_each_variant_stands_beside_the_one_without_a_guard(row):
    assert row in tables(comparison())


def test_a_variant_that_is_not_asked_for_so_many_connections_has_no_row():
    one, _ = tables(comparison()).split("\n\n")

    assert "pyresilience" not in one


def test_the_plot_has_a_bar_for_each_rate():
    drawn = draw(comparison())

    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn.count("<rect") == 3
    assert drawn.count('class="ours"') == 1
