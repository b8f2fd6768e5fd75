"""From a decision to the listeners that want to hear of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from pyresilience._promises import declares
from pyresilience.events._events import EventType, ResilienceEvent, context_now

logger = logging.getLogger("pyresilience")


class Listener(Protocol):
    """Any callable that takes one event.

    It runs in the task or thread of the call and must be quick. A listener with an attribute `event_types`, a
    collection of `EventType`, receives only those; others are not even built for it.
    """

    def __call__(self, event: ResilienceEvent, /) -> object: ...


Facts = Callable[[EventType, str, int, "BaseException | None", str, "float | None"], object]
"""Takes what an event would hold, but for the context: type, name, attempt, error, detail, duration."""

Audience = tuple[tuple[Facts, ...], tuple[Listener, ...]]
"""Who wants events of one type: listeners of ours that are content with the facts, and those who get an event."""


class DispatchTable(dict[EventType, Audience]):
    """For each event type who wants it; types nobody wants are absent.

    Attributes:
        own: the listeners of one pipeline; none in the table that all pipelines without listeners share.
        heard: whether there is anybody, as an attribute because that is what calls look at.
    """

    __slots__ = ("heard", "own")

    def __init__(self, own: tuple[Listener, ...] = ()) -> None:
        self.own = own
        self.heard = False

    def listen(self, others: tuple[Listener, ...]) -> None:
        """From now on its own listeners and `others` are heard; a reader finds each type as it was or as it will be."""
        audiences = _audiences((*self.own, *others))
        for kind in self.keys() - audiences.keys():
            del self[kind]
        self.update(audiences)
        self.heard = bool(self)


def check_listener(listener: Listener) -> None:
    """Raise TypeError for what cannot be a listener."""
    if not callable(listener):
        raise TypeError(f"a listener must be callable with one event, not {listener!r}")
    wanted: Any = getattr(listener, "event_types", None)
    if wanted is None:
        return
    if not isinstance(wanted, Collection) or not all(isinstance(kind, EventType) for kind in wanted):  # pyright: ignore[reportUnknownVariableType]
        raise TypeError(f"event_types of {listener!r} must be a collection of EventType members only, not {wanted!r}")


def check_listeners(field: str, listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners as a tuple, or TypeError."""
    if not isinstance(listeners, Iterable):
        raise TypeError(f"{field} must be an iterable of listeners, not {listeners!r}")
    checked = tuple(listeners)
    for listener in checked:
        check_listener(listener)
    return checked


def _audiences(listeners: Iterable[Listener]) -> dict[EventType, Audience]:
    table: dict[EventType, Audience] = {}
    for listener in listeners:
        wanted = getattr(listener, "event_types", None)
        take = _takes_facts(listener)
        for kind in EventType if wanted is None else wanted:
            takers, heard = table.get(kind, ((), ()))
            table[kind] = (takers, (*heard, listener)) if take is None else ((*takers, take), heard)
    return table


def _takes_facts(listener: Any) -> Facts | None:
    """What a listener of ours takes facts with. A subclass that replaces `__call__` wants to be called."""
    return listener._take_facts if declares(listener, "_take_facts") else None


def deliver(
    audience: Audience,
    kind: EventType,
    function_name: str,
    attempt: int,
    error: BaseException | None = None,
    detail: str = "",
    duration: float | None = None,
) -> None:
    """Let everybody know of one event. Who raises an `Exception` is logged and passed over."""
    takers, listeners = audience
    for take in takers:
        try:
            take(kind, function_name, attempt, error, detail, duration)
        except Exception:
            _failed(getattr(take, "__self__", take), kind, function_name)
    if not listeners:
        return
    event = ResilienceEvent(kind, function_name, attempt, error, detail, context_now(), duration)
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            _failed(listener, kind, function_name)


def _failed(listener: object, kind: EventType, function_name: str) -> None:
    logger.warning("listener %r failed on %s of %s", listener, kind.value, function_name, exc_info=True)
