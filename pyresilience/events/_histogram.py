"""Durations in bounded memory: fine buckets for percentiles, coarse ones for exposition. Pure."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds; the upper ones stand where timeouts usually do."""

_LOWEST = -20
_HIGHEST = 17
_STEPS = 64
_OVERFLOW = (_HIGHEST - _LOWEST) * _STEPS + 1


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


class DurationHistogram:
    """Any number of durations, in seconds, in some 2,400 counters.

    Each power of two from 2**-20 s (about 1 µs) to 2**17 s (about 36 h) is cut into 64 buckets of equal width. A
    percentile is the middle of the bucket it falls into, so it is off by at most 1/128 of the duration recorded. One
    that falls outside that range is the exact minimum or maximum.

    Beside these stand exact counts for the upper bounds in `bounds`, as Prometheus wants them.

    Not thread-safe: the owner guards it.
    """

    __slots__ = ("_bounds", "_coarse", "_fine", "count", "maximum", "minimum", "sum")

    def __init__(self, bounds: tuple[float, ...] = DEFAULT_BUCKETS) -> None:
        self._bounds = bounds
        self._coarse = [0] * (len(bounds) + 1)
        self._fine = array("Q", bytes(8 * (_OVERFLOW + 1)))
        self.count = 0
        self.sum = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf

    def record(self, seconds: float) -> None:
        """Count one duration. What is negative, infinite or NaN is no duration and is passed over."""
        if not 0.0 <= seconds < math.inf:
            return
        self._fine[_index(seconds)] += 1
        self._coarse[bisect_left(self._bounds, seconds)] += 1
        self.count += 1
        self.sum += seconds
        if seconds < self.minimum:
            self.minimum = seconds
        if seconds > self.maximum:
            self.maximum = seconds

    def copy(self) -> DurationHistogram:
        """The same contents, for reading without the owner's lock."""
        twin = DurationHistogram.__new__(DurationHistogram)
        twin._bounds = self._bounds
        twin._coarse = self._coarse[:]
        twin._fine = self._fine[:]
        twin.count = self.count
        twin.sum = self.sum
        twin.minimum = self.minimum
        twin.maximum = self.maximum
        return twin

    def percentiles(self, *percents: int) -> list[float]:
        """For each percent (1 to 100) the smallest duration that so many percent of all do not exceed.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.count:
            raise ValueError("percentiles of an empty histogram")
        reached = list(accumulate(self._fine))
        ranks = (-(-percent * self.count // 100) for percent in percents)
        return [self._duration(bisect_left(reached, rank)) for rank in ranks]

    def _duration(self, index: int) -> float:
        if index == 0:
            return self.minimum
        if index == _OVERFLOW:
            return self.maximum
        octave, step = divmod(index - 1, _STEPS)
        middle = math.ldexp(0.5 + (step + 0.5) / (2 * _STEPS), octave + _LOWEST + 1)
        return min(max(middle, self.minimum), self.maximum)

    def counts(self) -> list[int]:
        """How many durations fell into each bucket of `bounds`, not cumulative; the last is above them all."""
        return self._coarse[:]


def _index(seconds: float) -> int:
    """Which bucket: 0 lies below the range, `_OVERFLOW` above it."""
    mantissa, exponent = math.frexp(seconds)
    octave = exponent - _LOWEST - 1
    if octave < 0 or not mantissa:
        return 0
    if octave >= _HIGHEST - _LOWEST:
        return _OVERFLOW
    return octave * _STEPS + int((mantissa - 0.5) * 2 * _STEPS) + 1


def cumulative(bounds: tuple[float, ...], counts: list[int]) -> tuple[tuple[float, int], ...]:
    """Pairs of upper bound and how many durations do not exceed it; the last bound is `inf`."""
    return tuple(zip((*bounds, math.inf), accumulate(counts), strict=True))
