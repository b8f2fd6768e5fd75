"""From a decision to the listeners that want to hear of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from pyresilience._promises import declares
from pyresilience.events._events import EventType, ResilienceEvent, resilience_context

logger = logging.getLogger("pyresilience")


class Listener(Protocol):
    """Any callable that takes one event.

    It runs in the task or thread of the call and must be quick. A listener with an attribute `event_types`, a
    collection of `EventType`, receives only those; others are not even built for it.
    """

    def __call__(self, event: ResilienceEvent, /) -> object: ...


Count = Callable[[EventType, str, "float | None"], object]
Audience = tuple[tuple[Count, ...], tuple[Listener, ...]]
"""Who wants events of one type: those who count them, and those who listen."""


class DispatchTable(dict[EventType, Audience]):
    """For each event type who wants it; types nobody wants are absent."""

    __slots__ = ("own",)

    def __init__(self, own: tuple[Listener, ...] = ()) -> None:
        self.own = own

    def listen(self, others: tuple[Listener, ...]) -> None:
        """From now on its own listeners and `others` are heard; a reader finds each type as it was or as it will be."""
        audiences = _audiences((*self.own, *others))
        for kind in self.keys() - audiences.keys():
            del self[kind]
        self.update(audiences)


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
        count = _count_of(listener)
        for kind in EventType if wanted is None else wanted:
            counts, heard = table.get(kind, ((), ()))
            table[kind] = (counts, (*heard, listener)) if count is None else ((*counts, count), heard)
    return table


def _count_of(listener: Any) -> Count | None:
    """What a listener of ours that only counts does so with. A subclass that replaces `__call__` wants to be called."""
    return listener._count_without_event if declares(listener, "_count_without_event") else None


def _copied(context: Any) -> dict[str, Any] | None:
    """A snapshot of the context; a wrong value must not break the call."""
    try:
        return dict(context)
    except (TypeError, ValueError):
        logger.warning("resilience_context must hold a dict or None, not a %s", type(context).__name__)
        return None


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
    counts, listeners = audience
    for count in counts:
        try:
            count(kind, function_name, duration)
        except Exception:
            _failed(getattr(count, "__self__", count), kind, function_name)
    if not listeners:
        return
    context = resilience_context.get()
    if context is not None:
        context = context.copy() if type(context) is dict else _copied(context)
    event = ResilienceEvent(kind, function_name, attempt, error, detail, context, duration)
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            _failed(listener, kind, function_name)


def _failed(listener: object, kind: EventType, function_name: str) -> None:
    logger.warning("listener %r failed on %s of %s", listener, kind.value, function_name, exc_info=True)
