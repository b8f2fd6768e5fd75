"""The calls in flight of the process: each has a place as long as it lasts.

The calls of all pipelines use the same few places again and again: what a call touches here, others touched just now.
A place leads to its pipeline, weakly, and to nothing else of its call: a task that was dropped can be collected.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import weakref

    from pyresilience.pipeline._pipeline import Pipeline


PlaceT = TypeVar("PlaceT", bound="Place")


class Place:
    """A place in flight.

    Attributes:
        owner: the pipeline of the call that has it; None while it is free.
    """

    __slots__ = ("owner",)

    def __init__(self) -> None:
        self.owner: weakref.ref[Pipeline] | None = None
        _places.append(self)


_places: list[Place] = []
"""Those in use and the free ones, each of which may have been needed when there were more calls at once."""

SPARE = 4

free: list[Place] = []
take_place = free.pop
"""A free place, whose `owner` the caller sets; IndexError when there is none."""
leave_place = free.append
"""Give back a place whose owner is None again."""


def new_place(kind: type[PlaceT], free: list[PlaceT]) -> PlaceT:
    """For a call that found none `free`, and some to spare: a list that gets empty gives up its memory each time."""
    free.extend(kind() for _ in range(SPARE))
    return kind()


def handed_over(place: Place) -> Place:
    """Another place for the same call, which leaves `place` free."""
    try:
        other = take_place()
    except IndexError:
        other = new_place(Place, free)
    other.owner, place.owner = place.owner, None
    return other


def pipelines() -> list[Pipeline]:
    """The pipeline of each call that has begun and not yet ended."""
    owners = [owner for place in _places.copy() if (owner := place.owner) is not None]
    return [pipeline for owner in owners if (pipeline := owner()) is not None]


def by_pipeline() -> Counter[Pipeline]:
    """How many calls have begun and not yet ended, of each pipeline."""
    return Counter(pipelines())


def any_calls() -> bool:
    """Whether any call has begun and not yet ended."""
    return any((owner := place.owner) is not None and owner() is not None for place in _places.copy())


def reset_after_fork() -> None:
    """No call is in flight: one that goes on here has a place that counts as free."""
    for place in _places:
        place.owner = None
