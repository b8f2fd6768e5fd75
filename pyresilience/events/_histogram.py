"""Durations in bounded memory: fine buckets for percentiles, coarse ones for exposition. Pure."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds; the upper ones stand where timeouts usually do."""

_LOWEST = -20
_HIGHEST = 17
_STEPS = 64
_LENGTH = (_HIGHEST - _LOWEST) * _STEPS + 1
_EDGES = tuple(math.ldexp(1 + step % _STEPS / _STEPS, _LOWEST + step // _STEPS) for step in range(_LENGTH))


def check_buckets(owner: str, buckets: Iterable[float]) -> tuple[float, ...]:
    """Upper bounds in seconds, without the last one that is always infinite.

    Raises:
        TypeError: a bound is not a number.
        ValueError: there is no finite bound, or they do not increase from one to the next.
    """
    bounds = tuple(buckets)
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            raise TypeError(f"{owner}.buckets must be numbers of seconds, not {bound!r}")
    finite = bounds[:-1] if bounds and bounds[-1] == math.inf else bounds
    ascending = all(lower < upper for lower, upper in pairwise(finite))
    if not finite or not ascending or not all(map(math.isfinite, finite)):
        raise ValueError(f"{owner}.buckets must be increasing, finite numbers of seconds, at least one, not {bounds!r}")
    return tuple(map(float, finite))


@lru_cache(maxsize=16)
def _scale(bounds: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Where each fine bucket but the first begins, and into which coarse bucket each of them falls."""
    cuts = tuple(math.nextafter(bound, math.inf) for bound in bounds)  # a coarse bucket has its upper bound in it
    edges = tuple(sorted({*_EDGES, *cuts}))
    return edges, (0, *(bisect_right(cuts, edge) for edge in edges))


class DurationHistogram:
    """Any number of durations, in seconds, in some 2,400 counters.

    Each power of two from 2**-20 s (about 1 µs) to 2**17 s (about 36 h) is cut into 64 buckets of equal width. A
    percentile is the middle of the bucket it falls into, so it is off by at most 1/128 of the duration recorded. One
    that falls outside that range is the exact minimum or maximum.

    Beside these stand exact counts for the upper bounds in `bounds`, as Prometheus wants them. The fine buckets
    are cut there too, so that finding one bucket finds both.

    Not thread-safe: the owner guards it.
    """

    __slots__ = ("_coarse", "_coarse_of", "_edges", "_fine", "maximum", "minimum", "sum")

    def __init__(self, bounds: tuple[float, ...] = DEFAULT_BUCKETS) -> None:
        self._edges, self._coarse_of = _scale(bounds)
        self._coarse = [0] * (len(bounds) + 1)
        self._fine = array("Q", bytes(8 * len(self._coarse_of)))
        self.sum = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self._coarse)

    def record(self, seconds: float) -> bool:
        """Count one duration. What is negative, infinite or NaN is no duration and is passed over: False."""
        if not self.minimum <= seconds <= self.maximum and not self._widen(seconds):
            return False
        bucket = bisect_right(self._edges, seconds)
        self._fine[bucket] += 1
        self._coarse[self._coarse_of[bucket]] += 1
        self.sum += seconds
        return True

    def _widen(self, seconds: float) -> bool:
        """Let the range recorded reach to `seconds`; False if that is no duration."""
        if not 0.0 <= seconds < math.inf:
            return False
        self.minimum = min(self.minimum, seconds)
        self.maximum = max(self.maximum, seconds)
        return True

    def copy(self) -> DurationHistogram:
        """The same contents, for reading without the owner's lock."""
        twin = DurationHistogram.__new__(DurationHistogram)
        twin._edges = self._edges
        twin._coarse_of = self._coarse_of
        twin._coarse = self._coarse[:]
        twin._fine = self._fine[:]
        twin.sum = self.sum
        twin.minimum = self.minimum
        twin.maximum = self.maximum
        return twin

    def percentiles(self, *percents: int) -> list[float]:
        """For each percent (1 to 100) the smallest duration that so many percent of all do not exceed.

        Raises:
            ValueError: nothing was recorded.
        """
        reached = list(accumulate(self._fine))
        count = reached[-1]
        if not count:
            raise ValueError("percentiles of an empty histogram")
        ranks = (-(-percent * count // 100) for percent in percents)
        return [self._duration(bisect_left(reached, rank)) for rank in ranks]

    def _duration(self, bucket: int) -> float:
        """The middle of a bucket, as near as durations came to it."""
        edges = self._edges
        if bucket == 0 or edges[bucket - 1] < _EDGES[0]:
            return self.minimum
        if bucket == len(edges) or edges[bucket] > _EDGES[-1]:
            return self.maximum
        middle = (edges[bucket - 1] + edges[bucket]) / 2
        return min(max(middle, self.minimum), self.maximum)

    def counts(self) -> list[int]:
        """How many durations fell into each bucket of `bounds`, not cumulative; the last is above them all."""
        return self._coarse[:]


def cumulative(bounds: tuple[float, ...], counts: list[int]) -> tuple[tuple[float, int], ...]:
    """Pairs of upper bound and how many durations do not exceed it; the last bound is `inf`."""
    return tuple(zip((*bounds, math.inf), accumulate(counts), strict=True))
