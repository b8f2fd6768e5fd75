"""The server that clients ask: answers every request at once, and costs as little as Python can."""

from __future__ import annotations

import asyncio
from typing import cast

from benchmarks.whole_path.processes import SERVER, announce, loopback, obey_parent, pin

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
END_OF_HEAD = b"\r\n\r\n"


class Origin(asyncio.Protocol):
    """Requests without a body."""

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *heads, self.rest = (self.rest + data).split(END_OF_HEAD)
        if heads:
            self.transport.write(ANSWER * len(heads))


async def serve() -> None:
    listener = loopback()
    server = await asyncio.get_running_loop().create_server(Origin, sock=listener, backlog=2048)
    announce(listener)
    await server.serve_forever()


if __name__ == "__main__":
    pin(SERVER)
    obey_parent()
    asyncio.run(serve())
