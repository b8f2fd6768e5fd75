"""When the next call may go, by two algorithms. Pure: time is an argument, in integer nanoseconds."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Rate(Protocol):
    """How often calls may go. Not thread-safe: the owner holds a lock."""

    def take(self, now: int) -> int:
        """Take a token and return 0, or take nothing and return the nanoseconds until one is there."""
        ...

    def wait(self, now: int, ahead: int) -> int:
        """Nanoseconds until a token is there for a caller with `ahead` others before it."""
        ...

    def give_back(self, taken: int) -> None:
        """Undo the `take` of that time, whose call never ran, as far as the bound allows."""
        ...


class Gcra:
    """Token bucket as the generic cell rate algorithm (ITU-T I.371), one integer of state.

    Admits at most `floor(T / interval) + burst` calls in any window of length T, `interval` being
    `period / max_calls` rounded up to a nanosecond and `burst` `max_calls`.
    """

    __slots__ = ("_burst", "_interval", "_latest", "_refilled", "_tat")

    def __init__(self, max_calls: int, period: int) -> None:
        self._interval = -(-period // max_calls)
        self._burst = self._interval * (max_calls - 1)
        self._tat = 0  # theoretical arrival time: when the bucket will be full again
        self._latest = 0  # the last take of a bucket that was not full
        self._refilled = 0  # tokens taken before this have come back by themselves, at least in part

    def take(self, now: int) -> int:
        tat = self._tat
        if tat <= now:
            self._tat = now + self._interval
            self._refilled = now
            return 0
        wait = tat - self._burst - now
        if wait <= 0:
            if tat - self._interval < now:
                self._refilled = now
            self._tat = tat + self._interval
            self._latest = now
            return 0
        if wait > self._interval:  # only after the clock went back
            self._tat = now + self._burst + self._interval
            return self._interval
        return wait

    def wait(self, now: int, ahead: int) -> int:
        return max(0, max(self._tat, now) + ahead * self._interval - self._burst - now)

    def give_back(self, taken: int) -> None:
        # Had the token never been taken, the bucket would have been full at `_refilled` and the rest of it spilt.
        # One token given back changes what would have been since, hence no other from before now.
        if taken >= self._refilled:
            self._tat -= self._interval
            self._refilled = max(self._latest, self._refilled) + 1


class SlidingWindow:
    """Admits at most `max_calls` in any window of `period`, its beginning excluded; a ring of the last admissions."""

    __slots__ = ("_admitted", "_max_calls", "_period")

    def __init__(self, max_calls: int, period: int) -> None:
        self._max_calls = max_calls
        self._period = period
        self._admitted: deque[int] = deque(maxlen=max_calls)

    def take(self, now: int) -> int:
        wait = self.wait(now, 0)
        if wait == 0:
            self._admitted.append(now)
        return wait

    def wait(self, now: int, ahead: int) -> int:
        rounds, place = divmod(ahead, self._max_calls)
        place -= self._max_calls - len(self._admitted)
        first = self._admitted[place] + self._period if place >= 0 else now
        return max(first - now, 0) + rounds * self._period

    def give_back(self, taken: int) -> None:
        if taken in self._admitted:
            self._admitted.remove(taken)
