"""What the app has answered so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Passes on what the app sends, and remembers whether a response has started and whether it is complete.

    Messages stay as they are, but for `x-request-id`, which the first start of an http response gets unless the app
    has set it. For a websocket the reply is the answer to the handshake.

    Attributes:
        started: a response has been begun; nobody else may begin one.
        complete: its last message has been sent.
        status: its status code; 0 before it has one.
        on_complete: called once, after the last message has been sent.
    """

    __slots__ = ("_request_id", "_send", "_trailers", "complete", "on_complete", "started", "status")

    def __init__(self, send: Send, request_id: bytes | None) -> None:
        self._send = send
        self._request_id = request_id
        self._trailers = False
        self.started = False
        self.complete = False
        self.status = 0
        self.on_complete: Callable[[], None] | None = None

    async def send(self, message: Message) -> None:
        """The `send` that the app is given."""
        if self.complete:
            await self._send(message)
            return
        kind = message.get("type")
        if not self.started and kind in _RESPONSE_START:
            self.started = True
            status = message.get("status")
            self.status = status if isinstance(status, int) else 0
            self._trailers = bool(message.get("trailers"))
            if kind == "http.response.start" and self._request_id is not None:
                message = _with_header(message, self._request_id)
            await self._send(message)
            return
        if kind in _HANDSHAKE_END:
            self.started = True
        await self._send(message)
        if self.started and not self.complete and self._is_last(message):
            self.complete = True
            if self.on_complete is not None:
                self.on_complete()

    def _is_last(self, message: Message) -> bool:
        kind = message.get("type", "")
        if kind in _HANDSHAKE_END:
            return True
        more = _RESPONSE_END.get(kind)
        if more is None or (self._trailers and kind != "http.response.trailers"):
            return False
        return not message.get(more)


def _with_header(message: Message, request_id: bytes) -> Message:
    headers = list(message.get("headers") or ())
    if any(header[0].lower() == REQUEST_ID for header in headers if header):
        return {**message, "headers": headers}
    return {**message, "headers": [*headers, (REQUEST_ID, request_id)]}
