"""How a call begins and ends: what the two roots share, and the one terminal event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyresilience.errors import ResilienceTimeoutError
from pyresilience.events._bus import deliver
from pyresilience.events._events import EventType
from pyresilience.pipeline import _inventory as inventory
from pyresilience.pipeline._in_flight import held
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import unwrap
from pyresilience.runtime._protocol import DeadlineExpired

if TYPE_CHECKING:
    from pyresilience.pipeline._call import Call
    from pyresilience.pipeline._in_flight import Place

SUCCESS = EventType.SUCCESS  # looking it up in its class costs more than telling one listener

ANSWERS = frozenset({EventType.CACHE_HIT, EventType.FALLBACK_USED, EventType.FAILURE})
"""How a call that returns a value may end, other than in `SUCCESS`."""


class _Held:
    """A call that has returned a value while its work goes on: in flight until that has ended, or was forgotten."""

    __slots__ = ("call", "place")

    def __init__(self, call: Call[Any], place: Place) -> None:
        self.call = call
        self.place: Place | None = None
        try:
            self.place = held.take()
        except IndexError:
            self.place = held.new()
        self.place.owner = place.owner
        place.owner = None  # after the other was taken: whoever looks meanwhile finds one of them

    def settle(self, error: BaseException | None) -> None:
        try:
            if error is None:
                succeeded(self.call)
            else:
                _emit_failure(self.call, error)
        finally:
            self.leave()

    def leave(self) -> None:
        place, self.place = self.place, None
        if place is not None:
            place.owner = None
            held.leave(place)
            inventory.call_ended()

    __del__ = leave


def postponed(call: Call[Any], place: Place) -> None:
    """A call returns a value, and leaves its `place`; its end comes when the work that is held has ended."""
    assert call.held is not None
    call.held.then(_Held(call, place).settle)


def succeeded(call: Call[Any]) -> None:
    """The end of a call that returns a value, whatever some layer had in mind for it."""
    ending = call.ending
    if ending is not None:
        call.ending = None
        kind, error, detail = ending
        if kind in ANSWERS:  # a refusal that some layer has answered is history
            call.emit(kind, error=error, detail=detail, attempt=0 if kind is EventType.CACHE_HIT else None)
            return
    binding = call.binding
    listeners = binding.dispatch.get(SUCCESS)
    if listeners:
        try:
            duration = (sources.now() - call.started) / sources.NANOSECONDS
        except AttributeError:  # nobody listened when it began
            duration = None
        deliver(listeners, SUCCESS, binding.name, call.attempt, None, "", duration)


def _emit_failure(call: Call[Any], error: BaseException) -> None:
    """A rejection that was announced is itself the end when the function never ran; otherwise one event follows."""
    ending, call.ending = call.ending, None
    if not isinstance(error, Exception):
        call.emit(EventType.CANCELLED, error=error, detail="function abandoned" if call.stragglers else "")
    elif ending is None or ending[1] is not error or call.ran:
        call.emit(EventType.FAILURE, error=error)


def failed(call: Call[Any], error: BaseException) -> BaseException | None:
    """End a call that raised; the error to raise instead, if another than the one that arrived."""
    instead: BaseException | None = None
    original = unwrap(error)
    try:
        if isinstance(error, DeadlineExpired):
            started = getattr(call, "started", 0)
            seconds = (error.deadline - started) / sources.NANOSECONDS if started else None
            message = f"{call.name}: a deadline around the call has passed"
            instead = original = ResilienceTimeoutError(message, seconds=seconds)
            call.emit(EventType.TIMEOUT, error=original)
        elif original is not error:
            instead = original
        if call.tokens is not None:
            call.refund()
        _emit_failure(call, original)
        return instead
    finally:
        call.held = None
        del error, instead, original  # a frame in its own traceback would be a cycle
