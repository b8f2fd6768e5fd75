"""The last N outcomes, and how many of them failed or were slow."""

from __future__ import annotations

from collections import deque

FAILED = 1
SLOW = 2


class CountWindow:
    """Pure: a ring of the last `size` outcomes with running totals; each step is O(1)."""

    __slots__ = ("_ring", "_size", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        self._ring: deque[int] = deque()
        self.failed = 0
        self.slow = 0

    @property
    def calls(self) -> int:
        return len(self._ring)

    def add(self, outcome: int) -> None:
        """`outcome` combines `FAILED` and `SLOW`; 0 is a quick success."""
        if len(self._ring) == self._size:
            oldest = self._ring.popleft()
            self.failed -= oldest & FAILED
            self.slow -= oldest >> 1
        self._ring.append(outcome)
        self.failed += outcome & FAILED
        self.slow += outcome >> 1


def exact(rate: float) -> tuple[int, int]:
    """A rate as the decimal fraction that was written down, so that comparing with it involves no rounding."""
    from fractions import Fraction  # takes longer to import than most of this package

    fraction = Fraction(str(rate))
    return fraction.numerator, fraction.denominator


def reaches(part: int, whole: int, rate: tuple[int, int]) -> bool:
    """`part / whole >= rate`, exactly."""
    numerator, denominator = rate
    return part * denominator >= numerator * whole
