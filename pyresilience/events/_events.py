"""What happened: the event types and the record that listeners receive."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("pyresilience")

resilience_context: ContextVar[dict[str, Any] | None] = ContextVar("resilience_context", default=None)
"""Request-scoped metadata; a copy of it travels on every event as `event.context`."""


def context_now() -> dict[str, Any] | None:
    """A copy of the context. Anything else than a dict in it is not an error of the call, and is logged."""
    context = resilience_context.get()
    if context is None:
        return None
    if type(context) is dict:
        return context.copy()
    try:
        return dict(context)
    except (TypeError, ValueError):
        logger.warning("resilience_context must hold a dict or None, not a %s", type(context).__name__)
        return None


class EventType(StrEnum):
    """The kinds of decision a pipeline reports. The value is what logs and metrics show."""

    RETRY = "retry"
    RETRY_EXHAUSTED = "retry_exhausted"
    TIMEOUT = "timeout"
    CIRCUIT_OPEN = "circuit_open"
    CIRCUIT_HALF_OPEN = "circuit_half_open"
    CIRCUIT_CLOSED = "circuit_closed"
    FALLBACK_USED = "fallback_used"
    BULKHEAD_REJECTED = "bulkhead_rejected"
    RATE_LIMITED = "rate_limited"
    CACHE_HIT = "cache_hit"
    CACHE_MISS = "cache_miss"
    SUCCESS = "success"
    FAILURE = "failure"
    SLOW_CALL = "slow_call"
    CANCELLED = "cancelled"

    __hash__ = object.__hash__  # members are singletons; the hash of the string would be computed in Python


@dataclass(frozen=True, init=False)
class ResilienceEvent:
    """One decision of one layer, or the end of one call.

    Attributes:
        event_type: what happened.
        function_name: the name of the guarded function, or of the pipeline when it has one.
        attempt: the attempt it happened in, from 1; 0 for events outside any attempt.
        error: the exception that goes with it, if any.
        detail: tells cases of one type apart, such as `opened` and `rejected` of a circuit.
        context: a copy of `resilience_context` as it was when the event was made.
        duration: seconds that the whole call took; set on `SUCCESS`.
    """

    event_type: EventType
    function_name: str
    attempt: int = 0
    error: BaseException | None = None
    detail: str = ""
    context: dict[str, Any] | None = None
    duration: float | None = None

    # A generated frozen __init__ calls object.__setattr__ for each field and takes three times as long.
    def __init__(
        self,
        event_type: EventType,
        function_name: str,
        attempt: int = 0,
        error: BaseException | None = None,
        detail: str = "",
        context: Mapping[str, Any] | None = None,
        duration: float | None = None,
    ) -> None:
        fields = self.__dict__
        fields["event_type"] = event_type
        fields["function_name"] = function_name
        fields["attempt"] = attempt
        fields["error"] = error
        fields["detail"] = detail
        fields["context"] = context
        fields["duration"] = duration
