"""A server on a real socket that does what a script says, step by step, one step for each request."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream


@dataclass
class Received:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


Step = Callable[[ByteStream, Received], Awaitable[bool]]
"""Answers one request; true when the connection stays open."""


def reply(status: int = 200, body: bytes = b"ok", **headers: str) -> Step:
    async def step(stream: ByteStream, request: Received) -> bool:
        await stream.send(head(status, **{"content_length": str(len(body)), **headers}) + body)
        return True

    return step


def drip(chunks: int, seconds: float, ending: bytes = b"0\r\n\r\n") -> Step:
    """A chunked body, one byte every so many seconds."""

    async def step(stream: ByteStream, request: Received) -> bool:
        await stream.send(head(200, transfer_encoding="chunked"))
        for _ in range(chunks):
            await anyio.sleep(seconds)
            await stream.send(b"1\r\nx\r\n")
        await stream.send(ending)
        return True

    return step


def trickle(length: int, seconds: float) -> Step:
    """As `drip`, with a length announced."""

    async def step(stream: ByteStream, request: Received) -> bool:
        await stream.send(head(200, content_length=str(length)))
        for _ in range(length):
            await anyio.sleep(seconds)
            await stream.send(b"x")
        return True

    return step


def broken(status: int = 200) -> Step:
    """A chunked body that ends in the middle."""

    async def step(stream: ByteStream, request: Received) -> bool:
        await stream.send(head(status, transfer_encoding="chunked") + b"5\r\nhel")
        return False

    return step


def reset() -> Step:
    """A TCP reset in place of a response."""

    async def step(stream: ByteStream, request: Received) -> bool:
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return step


def silence(seconds: float = 1e6) -> Step:
    async def step(stream: ByteStream, request: Received) -> bool:
        await anyio.sleep(seconds)
        return False

    return step


def head(status: int, **headers: str) -> bytes:
    """Several values of one header are separated by a vertical bar."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    for name, values in headers.items():
        lines += [f"{name.replace('_', '-')}: {value}" for value in values.split("|")]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass
class Origin:
    script: list[Step]
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def key(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: ByteStream) -> None:
        self.connections += 1
        self.open_connections += 1
        reader = BufferedByteReceiveStream(stream)
        try:
            async with stream:
                while await self._one(stream, reader):
                    pass
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead):
            pass
        finally:
            self.open_connections -= 1

    async def _one(self, stream: ByteStream, reader: BufferedByteReceiveStream) -> bool:
        lines = (await reader.receive_until(b"\r\n\r\n", 65536)).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        request = Received(method, path, headers, b"", anyio.current_time())
        self.requests.append(request)
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.receive_until(b"\r\n", 100), 16):
                request.body += await reader.receive_exactly(size)
                await reader.receive_exactly(2)
            await reader.receive_exactly(2)
        else:
            request.body = await reader.receive_exactly(int(headers.get("content-length", 0)))
        step = self.script[min(len(self.requests), len(self.script)) - 1]
        return await step(stream, request)


@asynccontextmanager
async def origin(*script: Step) -> AsyncIterator[Origin]:
    """Serve a script in this event loop, its last step for ever."""
    server = Origin(list(script))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        yield server
        group.cancel_scope.cancel()
