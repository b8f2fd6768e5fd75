"""What the server processes of the demo have in common."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HOST = "127.0.0.1"


def serve(app: ASGIApp) -> None:
    """Serve on a free loopback port, told in one line on stdout, until stdin ends.

    stdin is a pipe to which nobody writes. Its end says that the parent has closed it or is gone, however it went,
    so that this process never outlives it.
    """
    # asyncio turns off Nagle's algorithm only where the protocol is spelled out; with it answers take 40 ms more.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((HOST, 0))
    listener.listen()  # from here on early connections wait instead of being refused
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_level="critical",
        timeout_keep_alive=60,  # longer than clients keep a connection: none is closed just when it is used again
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])


def _stop_with_stdin(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    server.should_exit = True
