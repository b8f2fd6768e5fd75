"""What is known of a request before anybody handles it: its ids, its method and its path."""

from __future__ import annotations

import os
import random
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyresilience_middleware.inbound.types import Scope

MAX_LENGTH = 256
"""Characters of a path or method that are kept: every event of the request carries them."""

_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "WEBSOCKET"))
_ID_HEADERS = frozenset((b"x-request-id", b"x-trace-id", b"traceparent"))
_ID = re.compile(rb"[A-Za-z0-9._:@+/=-]{1,128}")
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,456})?"
)
_made_up = random.Random()  # of our own: somebody may seed the shared one, and ids must not repeat
_random_bits = _made_up.getrandbits
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_made_up.seed)
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def request_context(scope: Scope, *, trust_trace: bool = True) -> dict[str, Any]:
    """The built-in context of a request: `trace_id`, `request_id`, `method` and `path`, all fit for logs.

    The trace id is that of the current OpenTelemetry span, or else of a valid `traceparent` header, or else the
    `x-trace-id` header. The request id is the `x-request-id` header. Ids are taken only when they consist of at most
    128 characters of `[A-Za-z0-9._:@+/=-]`; of several `x-` headers the first counts, and several `traceparent` none.
    What is missing or unfit is generated. A websocket has the method `WEBSOCKET`.

    To add to it, give the middleware a function of your own:

    ```python
    def context(scope):
        return {**request_context(scope), "tenant": tenant_of(scope)}
    ```

    Args:
        scope: an ASGI scope of type `http` or `websocket`.
        trust_trace: False ignores trace ids that the client sent.
    """
    sent: list[tuple[bytes, bytes]] = []
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    for name, value in headers if isinstance(headers, list) else headers_of(scope):
        if 10 <= len(name) <= 12:  # or else it is none of ours
            header = name.lower()
            if header in _ID_HEADERS:
                sent.append((header, value))
    trace_id = _current_span() if "opentelemetry.trace" in sys.modules else None
    request_id = None
    if sent:
        request_id = _first_id(sent, b"x-request-id")
        if trace_id is None and trust_trace:
            trace_id = _trace_of(sent) or _first_id(sent, b"x-trace-id")
    if trace_id is None:
        trace_id = _random_bits(128).to_bytes(16, "big").hex()
    if request_id is None:
        request_id = _random_bits(128).to_bytes(16, "big").hex()
    method = scope.get("method") or "WEBSOCKET"
    if method not in _METHODS:
        method = printable(method)
    path = scope.get("path", "")
    if len(path) > MAX_LENGTH or not path.isprintable():
        path = printable(path)
    return {"trace_id": trace_id, "request_id": request_id, "method": method, "path": path}


def headers_of(scope: Scope) -> Iterable[tuple[bytes, bytes]]:
    """The headers of a scope. A one-way iterator, which the app could not read again, is kept as a list."""
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    if not isinstance(headers, (list, tuple)):
        headers = scope["headers"] = list(headers)
    return headers


def printable(text: str) -> str:
    """`text` with at most 256 characters, and escapes in place of those that break logs or cannot be encoded."""
    return _UNSAFE.sub(lambda unsafe: ascii(unsafe[0])[1:-1], text[:MAX_LENGTH])


def valid_id(value: object) -> bytes | None:
    """An id as a header value, or None when it is not fit to be one."""
    if not isinstance(value, str) or not value.isascii():
        return None
    encoded = value.encode("ascii")
    return encoded if _ID.fullmatch(encoded) else None


def _first_id(sent: list[tuple[bytes, bytes]], header: bytes) -> str | None:
    first = next((value for name, value in sent if name == header), b"")
    return first.decode("ascii") if _ID.fullmatch(first) else None


def _trace_of(sent: list[tuple[bytes, bytes]]) -> str | None:
    """The trace id of a W3C `traceparent`: exact for version 00, later versions may carry more at the end."""
    parents = [value for name, value in sent if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None or (match[1] == b"00" and match[3] is not None):
        return None
    return match[2].decode("ascii")


def _current_span() -> str | None:
    """The trace id of the current span. OpenTelemetry is never imported for it."""
    trace: Any = sys.modules["opentelemetry.trace"]
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else None
