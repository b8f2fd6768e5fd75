"""Errors that pyresilience raises.

```text
Exception
└── ResilienceError
    ├── CallRejectedError            the call was refused; carries retry_after
    │   ├── CircuitOpenError
    │   ├── BulkheadFullError
    │   └── RateLimitExceededError
    └── ResilienceTimeoutError       also a TimeoutError
```

Errors of the guarded function are never wrapped: when retries run out, the original error surfaces.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BulkheadFullError",
    "CallRejectedError",
    "CircuitOpenError",
    "RateLimitExceededError",
    "ResilienceError",
    "ResilienceTimeoutError",
]


class ResilienceError(Exception):
    """Base of every error that pyresilience itself raises while guarding a call."""

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message)
        self.__dict__.update(details)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[ResilienceError], args: tuple[Any, ...], state: dict[str, Any]) -> ResilienceError:
    """Unpickle an error whose constructor takes keyword-only arguments."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class CallRejectedError(ResilienceError):
    """A layer refused the call before the function ran.

    A rejection says nothing about the guarded service: circuit breakers do not count it.

    Attributes:
        retry_after: seconds after which the same call may succeed, or None when that cannot be known.
        layer: the kind of the layer that refused, such as `circuit_breaker`.
        name: the name of that layer.
    """

    retry_after: float | None = None
    layer: str = ""
    name: str = ""

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, layer: str = "", name: str = "", **details: Any
    ) -> None:
        super().__init__(message, retry_after=retry_after, layer=layer, name=name, **details)


class CircuitOpenError(CallRejectedError):
    """The circuit is open, or half-open with all probes taken."""


class BulkheadFullError(CallRejectedError):
    """No permit was free within `max_wait`, the queue was full, or all worker threads are abandoned."""


class RateLimitExceededError(CallRejectedError):
    """The rate limit admits the call only after `retry_after` seconds, which is more than `max_wait`."""


class ResilienceTimeoutError(ResilienceError, TimeoutError):
    """A deadline set by pyresilience has passed.

    Attributes:
        seconds: the limit that was exceeded.
    """

    seconds: float | None = None

    def __init__(self, message: str = "", *, seconds: float | None = None, **details: Any) -> None:
        super().__init__(message, seconds=seconds, **details)
