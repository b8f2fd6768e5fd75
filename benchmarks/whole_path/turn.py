"""What one turn of load has measured, and how far several are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median as middle_of


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        rate: requests per second.
        median: milliseconds for a request.
        p99: milliseconds that one request in a hundred exceeds.
        processor: microseconds of CPU time for a request, of the process that is looked at.
        requests: those that were answered.
    """

    rate: float
    median: float
    p99: float
    processor: float
    requests: int


def summarize(latencies: Sequence[float], seconds: float, processor: float) -> Turn:
    """From seconds per request, and of all of them together the seconds that passed and those of CPU time.

    Raises:
        ValueError: there was no request.
    """
    ordered = sorted(latencies)
    median, p99 = (quantile(ordered, share) * 1e3 for share in (0.5, 0.99))
    return Turn(len(ordered) / seconds, median, p99, processor / len(ordered) * 1e6, len(ordered))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that at least this share of all does not exceed.

    Raises:
        ValueError: there is no value.
    """
    if not ordered:
        raise ValueError("no request was answered")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Range:
    """One figure of several turns: the middle one, the least and the most."""

    middle: float
    least: float
    most: float

    def differs(self, other: Range) -> bool:
        """Whether the middles are further apart than either has turns."""
        return abs(self.middle - other.middle) > max(self.most - self.least, other.most - other.least)


def over(values: Sequence[float]) -> Range:
    return Range(middle_of(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Figures:
    """What several turns of the same load have measured, all figures of the same turns."""

    rate: Range
    p99: Range
    processor: Range
    requests: int


def figures(turns: Sequence[Turn]) -> Figures:
    return Figures(
        over([turn.rate for turn in turns]),
        over([turn.p99 for turn in turns]),
        over([turn.processor for turn in turns]),
        sum(turn.requests for turn in turns),
    )
