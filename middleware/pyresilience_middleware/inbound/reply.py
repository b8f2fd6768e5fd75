"""What the app has answered so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyresilience_middleware.inbound.types import Message, Send

REQUEST_ID = b"x-request-id"

_RESPONSE_START = ("http.response.start", "websocket.http.response.start")
_RESPONSE_END = {
    "http.response.body": "more_body",
    "http.response.zerocopysend": "more_body",
    "http.response.pathsend": "more_body",
    "http.response.trailers": "more_trailers",
    "websocket.http.response.body": "more_body",
}
_HANDSHAKE_END = ("websocket.accept", "websocket.close")


class Reply:
    """Passes on what the app sends, and remembers whether a response has started.

    Messages stay as they are, but for `x-request-id`, which the first start of an http response gets unless the app
    has set it. For a websocket the reply is the answer to the handshake.

    One is made for each request. A default on the class would cost more at each reading than storing it once.

    Attributes:
        started: a response has been begun; nobody else may begin one.
        status: the status code; 0 before there is one.
        complete: the last message of the response has been sent; only a `WatchedReply` knows.
    """

    __slots__ = ("__weakref__", "_request_id", "_send", "_trailers", "complete", "started", "status")

    def __init__(self, send: Send, request_id: bytes | None) -> None:
        self._send = send
        self._request_id = request_id
        self._trailers = False
        self.started = False
        self.status = 0
        self.complete = False

    def send(self, message: Message) -> Awaitable[None]:
        """The `send` that the app is given. What it returns is the server's own, and no coroutine around that."""
        return self._send(message if self.started else self._start(message))

    def _start(self, message: Message) -> Message:
        """Note the start of a response, if `message` is one; the message to send in its place."""
        kind = message.get("type")
        if kind in _RESPONSE_START:
            self.started = True
            status = message.get("status")
            self.status = status if isinstance(status, int) else 0
            if message.get("trailers"):
                self._trailers = True
            if kind == "http.response.start" and self._request_id is not None:
                return _with_header(message, self._request_id)
        elif kind in _HANDSHAKE_END:
            self.started = True
        return message


class WatchedReply(Reply):
    """A reply that also knows its end."""

    __slots__ = ()

    def on_complete(self) -> None:
        """Called once, after the last message has been sent."""

    def send(self, message: Message) -> Awaitable[None]:
        """The `send` that the app is given."""
        if not self.started:
            message = self._start(message)
        return self._send_last(message) if self.started and self._is_last(message) else self._send(message)

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        if not self.complete:
            self.complete = True
            self.on_complete()

    def _is_last(self, message: Message) -> bool:
        kind = message.get("type", "")
        more = _RESPONSE_END.get(kind)
        if more is None:
            return kind in _HANDSHAKE_END
        return not message.get(more) and (not self._trailers or kind == "http.response.trailers")


def _with_header(message: Message, request_id: bytes) -> Message:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
    for header in headers:
        if header and header[0].lower() == REQUEST_ID:
            break
    else:
        headers.append((REQUEST_ID, request_id))
    return {**message, "headers": headers}
