"""The calls in flight of the process: each has a place as long as it lasts.

The calls of all pipelines use the same few places again and again: what a call touches here, others touched just now.
A place leads to its pipeline, weakly, and to nothing else of its call: a task that was dropped can be collected.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Iterator

    from pyresilience.pipeline._pipeline import Pipeline

SPARE = 4
"""Places made beside one that is needed."""

MOST_FREE = 1000
"""Free places of a kind from which on those beyond are dropped when somebody looks."""


class Place:
    """A place in flight.

    Attributes:
        owner: the pipeline of the call that has it; None while it is free.
    """

    __slots__ = ("owner",)

    def __init__(self) -> None:
        self.owner: weakref.ref[Pipeline] | None = None


PlaceT = TypeVar("PlaceT", bound=Place)


class Places(Generic[PlaceT]):
    """The places of one kind. Thread-safe; a finaliser or a signal handler may come at any moment.

    Attributes:
        take: a free place, whose `owner` the caller sets; IndexError when there is none.
        leave: give a place back whose owner is None again.
    """

    def __init__(self, make: Callable[[], PlaceT]) -> None:
        self._make = make
        self._all: list[PlaceT] = []
        self._free: list[PlaceT] = []
        self._lock = threading.RLock()
        self.take = self._free.pop
        self.leave = self._free.append

    def new(self) -> PlaceT:
        """For a call that found none, and some to spare: a list that gets empty would give up its memory each time."""
        fresh = [self._make() for _ in range(1 + SPARE)]
        place = fresh[0]
        del fresh[0]
        self._all += [place, *fresh]
        self._free += fresh
        return place

    def all(self) -> list[PlaceT]:
        """The taken ones and the free ones."""
        if len(self._free) > MOST_FREE:
            self._trim()
        return self._all.copy()

    def _trim(self) -> None:
        """There were more calls at once than there are now."""
        with self._lock:
            extra: set[PlaceT] = set()
            while len(self._free) > MOST_FREE:
                extra.add(self._free.pop())
            seen = self._all.copy()
            self._all[: len(seen)] = [place for place in seen if place not in extra]

    def reset_after_fork(self) -> None:
        self._lock = threading.RLock()
        for place in self._all:
            place.owner = None  # a call that goes on here has a place that counts as free


of_calls: list[Places[Any]] = []
"""In each colour of functions one kind."""

held = Places(Place)
"""Of calls that have returned while their work goes on."""


def every_place() -> Iterator[Place]:
    """One after the other. A call may move on to the last ones meanwhile, and is met there or where it was."""
    return (place for places in (*of_calls, held) for place in places.all())


def owner_of(place: Place) -> Pipeline | None:
    owner = place.owner
    return None if owner is None else owner()


def any_calls(known: list[Place]) -> bool:
    """Whether any call is in flight. `known` has places to look at first, and is brought up to date."""
    while known and owner_of(known[-1]) is None:
        known.pop()
    if not known:
        known += [place for place in every_place() if owner_of(place) is not None]
    return bool(known)


def pipelines() -> list[Pipeline]:
    """The pipeline of each call that has begun and not yet ended."""
    return [pipeline for place in every_place() if (pipeline := owner_of(place)) is not None]


def by_pipeline() -> Counter[Pipeline]:
    """How many calls have begun and not yet ended, of each pipeline."""
    return Counter(pipelines())


def reset_after_fork() -> None:
    """No call is in flight."""
    for places in (*of_calls, held):
        places.reset_after_fork()
