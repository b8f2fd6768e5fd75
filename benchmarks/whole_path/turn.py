"""What one turn of load has measured, and what counts of several."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        rate: requests per second.
        median: milliseconds for a request.
        p99: milliseconds that one request in a hundred exceeds.
        processor: microseconds of CPU time for a request, of the process that is looked at.
    """

    rate: float
    median: float
    p99: float
    processor: float


def summarize(latencies: Sequence[float], seconds: float, processor: float) -> Turn:
    """From seconds per request, and of all of them together the seconds that passed and those of CPU time.

    Raises:
        ValueError: there was no request.
    """
    ordered = sorted(latencies)
    median, p99 = (quantile(ordered, share) * 1e3 for share in (0.5, 0.99))
    return Turn(len(ordered) / seconds, median, p99, processor / len(ordered) * 1e6)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that at least this share of all does not exceed.

    Raises:
        ValueError: there is no value.
    """
    if not ordered:
        raise ValueError("no request was answered")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def best(turns: Collection[Turn]) -> Turn:
    """The highest rate, and the least of everything else, each of any turn."""
    return Turn(
        rate=max(turn.rate for turn in turns),
        median=min(turn.median for turn in turns),
        p99=min(turn.p99 for turn in turns),
        processor=min(turn.processor for turn in turns),
    )
