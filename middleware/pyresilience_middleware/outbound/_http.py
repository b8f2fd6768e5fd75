"""The rules of HTTP that all clients share: what may be sent again, what failed, and what is passed on."""

from __future__ import annotations

import re
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from pyresilience import CallRejectedError, EventType, ResilienceTimeoutError, resilience_context
from pyresilience.contrib.http import retry_after, retry_on_status
from pyresilience.runtime import _sources as sources

if TYPE_CHECKING:
    from pyresilience import Call

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""Methods that may be sent again even if the server has already acted on them."""

RETRIED_STATUSES = retry_on_status(429, 502, 503, 504)
SERVER_ERRORS = 500
"""From this status on a response is the server's failure. A 429 is not: it is alive, and says so."""

DEADLINE_HEADER = "x-request-timeout-ms"
DEADLINE_MARGIN = 0.01
"""Seconds less than what is left are passed on, so that the answer of a server that gives up still arrives."""

PASSED_ON = {
    "x-request-id": ("request_id", re.compile(r"[A-Za-z0-9._:@+/=-]{1,128}")),
    "traceparent": ("traceparent", re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")),
}
"""Headers that come from `resilience_context`: the key there, and what is fit to be sent."""

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class UnsuccessfulResponse(Exception):
    """A response that counts as a failure: stands in events, and never leaves the client.

    Attributes:
        status_code: of the response.
        headers: of the response.
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(self, status_code: int, headers: Any, retry_after: float | None) -> None:
        super().__init__(status_code, headers, retry_after)
        self.status_code = status_code
        self.headers = headers
        self.retry_after = retry_after

    def __str__(self) -> str:
        wait = "" if self.retry_after is None else f", retry after {self.retry_after:g}s"
        return f"status {self.status_code}{wait}"


@dataclass(frozen=True, slots=True)
class ErrorKinds:
    """What the exceptions of a client library mean.

    Attributes:
        not_sent: nothing of the request has reached the server; any method may be sent again.
        local: the client's own limits; they say nothing about the server.
        misuse: the request itself is wrong and will be so the next time.
    """

    not_sent: tuple[type[Exception], ...]
    local: tuple[type[Exception], ...]
    misuse: tuple[type[Exception], ...]


class Headers(Protocol):
    """The part of a case-insensitive header mapping that is needed here."""

    def get(self, key: str, /) -> str | None: ...

    def __contains__(self, key: object, /) -> bool: ...


class Body(Protocol):
    """The body of a response that may still be streaming; it holds the call until it ends."""

    async def end(self, error: BaseException | None) -> None:
        """Close it, if it is open, and settle the call. Later calls do nothing."""
        ...


class Exchange(ABC):
    """One request on its way through the pipeline of its host, and the response to its current attempt.

    A client library derives a class of its own; the layers know only this one.
    """

    def __init__(self, kinds: ErrorKinds, method: str, headers: Headers, wish: bool | None) -> None:
        self.kinds = kinds
        self.method = method
        self.headers = headers
        self.wish = wish
        self.response: Any = None
        self.body: Body | None = None

    @abstractmethod
    def prepare(self, call: Call[Any]) -> None:
        """Make ready what this attempt will send."""

    @abstractmethod
    def attach(self, response: Any, call: Call[Any]) -> Body | None:
        """Let the body of a response hold the call; None when nothing of it is outstanding."""

    @abstractmethod
    def replayable(self) -> bool:
        """Whether the same body can be sent a second time."""

    def receive(self, response: Any, call: Call[Any]) -> Any:
        """Take charge of a response. Those that are the server's failure are raised."""
        self.response = response
        self.body = self.attach(response, call)
        if response.status_code >= SERVER_ERRORS:
            raise self.failure()
        return response

    def failure(self) -> UnsuccessfulResponse:
        """The current response as an error."""
        headers = self.response.headers
        return UnsuccessfulResponse(self.response.status_code, headers, retry_after(headers))

    def release(self) -> Any:
        """Give the current response away; from now on its owner has to close it."""
        response, self.response, self.body = self.response, None, None
        return response

    async def discard(self, error: BaseException | None = None) -> None:
        """Close the current response, if there is one: nobody will get to see it."""
        body, self.body = self.body, None
        if body is not None:
            try:
                await body.end(error)
            except Exception:  # a connection that is already broken is closed enough
                pass

    def may_repeat(self, error: Exception) -> bool:
        """Whether sending the request again after `error` can do no harm, and some good."""
        if self.wish is False or isinstance(error, self.kinds.misuse) or certificate_was_refused(error):
            return False
        return self.wish is True or self.idempotent or self.never_sent(error)

    def never_sent(self, error: Exception) -> bool:
        return isinstance(error, (*self.kinds.not_sent, CallRejectedError))

    @property
    def idempotent(self) -> bool:
        return self.method in IDEMPOTENT or bool(self.headers.get("idempotency-key"))


def certificate_was_refused(error: BaseException) -> bool:
    """Whether a TLS certificate is at the bottom of it: client libraries report it like a refused connection."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        if isinstance(current, ssl.SSLCertVerificationError):
            return True
        seen.add(id(current))
        pending += (current.__cause__, current.__context__)
    return False


def retry_wish(override: object) -> bool | None:
    """What a request itself says about being sent again: its `resilience` setting, `{"retry": bool}`.

    Raises:
        TypeError: it is something else.
        ValueError: it has other keys.
    """
    if override is None:
        return None
    if not isinstance(override, dict):
        raise TypeError(f"the request extension 'resilience' must be a dict, not {override!r}")
    settings: dict[Any, Any] = dict(override)  # pyright: ignore[reportUnknownArgumentType]
    wish = settings.pop("retry", None)
    if settings:
        raise ValueError(f"the request extension 'resilience' has only the key 'retry', not {next(iter(settings))!r}")
    if wish is not None and not isinstance(wish, bool):
        raise TypeError(f"'retry' in the request extension 'resilience' must be True or False, not {wish!r}")
    return wish


def headers_to_pass_on(call: Call[Any], given: Headers) -> dict[str, str]:
    """What the server should know of this call: the ids of its context and the milliseconds it has left.

    Ids that the request already has stay; of two deadlines the shorter one is sent.
    """
    headers: dict[str, str] = {}
    context = resilience_context.get() or {}
    for header, (key, fit) in PASSED_ON.items():
        value = context.get(key)
        if isinstance(value, str) and header not in given and fit.fullmatch(value):
            headers[header] = value
    left = call.remaining()
    if left != inf:
        milliseconds = max(int((left - DEADLINE_MARGIN) * 1000), 1)
        stated = given.get(DEADLINE_HEADER) or ""
        if re.fullmatch(r"[0-9]{1,10}", stated):
            milliseconds = min(milliseconds, int(stated))
        headers[DEADLINE_HEADER] = str(milliseconds)
    return headers


def body_timed_out(call: Call[Any]) -> ResilienceTimeoutError:
    """Announce that the total timeout has passed while the body was read, and return the error to raise."""
    seconds = (call.binding.pipeline.total or 0) / sources.NANOSECONDS
    detail = f"call timed out after {seconds:.2f}s"
    error = ResilienceTimeoutError(f"{call.name}: {detail} while reading the body", seconds=seconds)
    call.emit(EventType.TIMEOUT, error=error, detail=f"{detail}; reading the body")
    return error


def host_key(scheme: str, host: str, port: int | None) -> tuple[str, str]:
    """`scheme://host:port`, which tells hosts apart, and `host:port`, which events show."""
    if ":" in host:
        host = f"[{host}]"
    port = port or DEFAULT_PORTS.get(scheme)
    authority = host if port is None else f"{host}:{port}"
    return f"{scheme}://{authority}", authority
