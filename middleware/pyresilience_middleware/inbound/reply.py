"""What the app has answered so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    """

    __slots__ = ("__weakref__", "_request_id", "_send", "started")

    def __init__(self, send: Send, request_id: bytes | None) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False

    async def send(self, message: Message) -> None:
        """The `send` that the app is given. What is never awaited has not been sent."""
        send = self._send
        await send(message if self.started else self._start(message))

    def _start(self, message: Message) -> Message:
        """Note the start of a response, if `message` is one; the message to send in its place."""
        kind = message.get("type")
        if kind != "http.response.start":
            self.started = kind in _RESPONSE_START or kind in _HANDSHAKE_END
            return message
        self.started = True
        if self._request_id is None:
            return message
        headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
        for header in headers:
            if header and header[0].lower() == REQUEST_ID:
                break
        else:
            headers.append((REQUEST_ID, self._request_id))
        return {**message, "headers": headers}


class WatchedReply(Reply):
    """A reply that also knows its end.

    Attributes:
        status: the status code; 0 before there is one.
        complete: the last message of the response has been sent.
    """

    __slots__ = ("_trailers", "complete", "status")

    def __init__(self, send: Send, request_id: bytes | None) -> None:
        super().__init__(send, request_id)
        self._trailers = False
        self.complete = False
        self.status = 0

    def on_complete(self) -> None:
        """Called once, after the last message has been sent."""

    async def send(self, message: Message) -> None:
        """The `send` that the app is given."""
        if not self.started:
            message = self._start(message)
            if message.get("type") in _RESPONSE_START:
                status = message.get("status")
                self.status = status if isinstance(status, int) else 0
                self._trailers = bool(message.get("trailers"))
        last = self.started and self._is_last(message)
        send = self._send
        await send(message)
        if last and not self.complete:
            self.complete = True
            self.on_complete()

    def _is_last(self, message: Message) -> bool:
        kind = message.get("type", "")
        more = _RESPONSE_END.get(kind)
        if more is None:
            return kind in _HANDSHAKE_END
        return not message.get(more) and (not self._trailers or kind == "http.response.trailers")
