"""Refusals and timeouts as responses: RFC 9457 problem details."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pyresilience import (
    AsyncRateLimiter,
    BulkheadFullError,
    CallRejectedError,
    CircuitOpenError,
    Pipeline,
    RateLimiter,
    RateLimitExceededError,
    ResilienceTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyresilience_middleware.inbound.types import Receive, Scope, Send

MAX_RETRY_AFTER = 2**31 - 1
TRY_AGAIN_LATER = 1013
"""The websocket close code for a refusal, where the server cannot send a response in its place."""

_TYPES = "https://iana.org/assignments/http-problem-types"


@dataclass(frozen=True, slots=True)
class Problem:
    """A response of type `application/problem+json`; an ASGI application that sends itself.

    A websocket that has not been accepted gets it as a real response where the server can do that (extension
    `websocket.http.response`), and else is closed with code 1013, try again later.
    """

    status: int
    title: str
    detail: str
    type: str = "about:blank"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    members: dict[str, Any] = field(default_factory=dict[str, Any])

    def body(self) -> bytes:
        members = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return json.dumps({**members, **self.members}).encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = "http.response"
        if scope["type"] == "websocket":
            prefix = "websocket.http.response"
            if prefix not in (scope.get("extensions") or ()):
                await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": self.title})
                return
        body = self.body()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *self.headers,
        ]
        if scope.get("method") == "HEAD":
            body = b""
        await send({"type": f"{prefix}.start", "status": self.status, "headers": headers})
        await send({"type": f"{prefix}.body", "body": body, "more_body": False})


def problem_for(error: CallRejectedError | ResilienceTimeoutError, pipeline: Pipeline | None = None) -> Problem:
    """The response for a refusal or timeout of ours.

    A rate limit is 429, any other refusal 503, a timeout 504. `Retry-After` is in whole seconds, rounded up, at
    least 1. When the rate limiter that refused is in `pipeline`, which guards the requests themselves, its quota is
    told in `RateLimit` and `RateLimit-Policy` fields. Names and states of what the app calls are never told.
    """
    if isinstance(error, ResilienceTimeoutError):
        return Problem(504, "Gateway Timeout", "The request took too long.")
    seconds = _whole_seconds(error.retry_after)
    retry = (b"retry-after", b"%d" % seconds)
    if not isinstance(error, RateLimitExceededError):
        return Problem(
            503,
            "Service Unavailable",
            _REASONS.get(type(error), "The request was refused."),
            f"{_TYPES}#temporary-reduced-capacity",
            (retry,),
        )
    headers: list[tuple[bytes, bytes]] = [retry]
    members: dict[str, Any] = {}
    limiter = None if pipeline is None else _refused_by(error, pipeline)
    if limiter is not None:
        name = _ascii(limiter.name)
        window = math.ceil(limiter.config.period)
        quota = max(1, int(limiter.config.max_calls * window / limiter.config.period))
        quoted = _quoted(name)
        headers.append((b"ratelimit-policy", b"%s;q=%d;w=%d" % (quoted, quota, window)))
        headers.append((b"ratelimit", b"%s;r=0;t=%d" % (quoted, seconds)))
        members["violated-policies"] = [name]
    return Problem(
        429,
        "Too Many Requests",
        "The request rate limit is exceeded.",
        f"{_TYPES}#quota-exceeded",
        tuple(headers),
        members,
    )


_REASONS: dict[type[CallRejectedError], str] = {
    BulkheadFullError: "The service is at capacity.",
    CircuitOpenError: "The service is recovering from failures.",
}


class StarletteLike(Protocol):
    """What `install_exception_handlers` needs of an application: Starlette and FastAPI have it."""

    def add_exception_handler(
        self, exc_class_or_status_code: type[Exception], handler: Callable[..., Awaitable[Problem]], /
    ) -> None: ...


def install_exception_handlers(app: StarletteLike) -> None:
    """Answer refusals and timeouts that endpoints raise, inside the app.

    `ResilienceMiddleware` answers them too, but only those that reach it: with these handlers the response also
    passes through the middlewares in between, and errors are answered where there is no `ResilienceMiddleware`.
    """
    app.add_exception_handler(CallRejectedError, _handle)
    app.add_exception_handler(ResilienceTimeoutError, _handle)


async def _handle(_connection: Any, error: CallRejectedError | ResilienceTimeoutError) -> Problem:
    return problem_for(error)


def _whole_seconds(retry_after: float | None) -> int:
    if retry_after is None or not retry_after > 1:
        return 1
    return math.ceil(min(retry_after, MAX_RETRY_AFTER))


def _refused_by(error: RateLimitExceededError, pipeline: Pipeline) -> RateLimiter | AsyncRateLimiter | None:
    limiters = [layer for layer in pipeline.layers if isinstance(layer, (RateLimiter, AsyncRateLimiter))]
    return next((limiter for limiter in limiters if limiter.name == error.name), None)


def _ascii(name: str) -> str:
    """A name as the characters that a structured field string may contain."""
    return "".join(character if " " <= character <= "~" else "?" for character in name)


def _quoted(name: str) -> bytes:
    return b'"%s"' % name.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")
