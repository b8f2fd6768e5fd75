"""Talking to an ASGI application without a server."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import anyio


def http_scope(path: str = "/", method: str = "GET", headers: Any = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": headers if hasattr(headers, "__next__") else list(headers),
        "client": None,
        "server": None,
        **more,
    }


def websocket_scope(path: str = "/", **more: Any) -> dict[str, Any]:
    scope = {**http_scope(path), "type": "websocket", "scheme": "ws", "subprotocols": [], **more}
    del scope["method"]
    return scope


@dataclass
class Reply:
    messages: list[Any] = field(default_factory=list)

    @property
    def starts(self) -> list[Any]:
        return [message for message in self.messages if message["type"].endswith("response.start")]

    @property
    def status(self) -> int:
        (start,) = self.starts
        return start["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.starts[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def talk(app: Any, scope: dict[str, Any], inbound: Any = ()) -> Reply:
    """One conversation; when the inbound messages are used up, `receive` waits for ever."""
    reply = Reply()
    waiting = list(inbound)

    async def receive() -> Any:
        if not waiting:
            await anyio.sleep(math.inf)
        return waiting.pop(0)

    async def send(message: Any) -> None:
        reply.messages.append(message)

    await app(scope, receive, send)
    return reply


async def get(app: Any, path: str = "/", headers: Any = (), method: str = "GET", **more: Any) -> Reply:
    return await talk(app, http_scope(path, method, headers, **more))


async def respond(send: Any, status: int = 200, body: bytes = b"ok", headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers everything."""
    await respond(send)
