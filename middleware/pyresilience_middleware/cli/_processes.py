"""Child processes that never outlive the demo."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from anyio.abc import Process

STARTUP = 10.0
GRACE = 2.0


class DemoError(Exception):
    """The demo could not be run to its end."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running server process."""

    url: str
    pid: int


@asynccontextmanager
async def server(module: str, *arguments: str) -> AsyncGenerator[Child]:
    """Run a module that calls `serve`, in a process of its own, for as long as the block lasts.

    At the end of the block, cancelled or not, the end of its stdin asks the process to stop; it is killed when it
    has not stopped after two seconds. Where there are process groups it is in another one than its parent: Ctrl-C
    in a terminal reaches the parent only.

    Raises:
        DemoError: the process ended before it was ready, or was not ready within ten seconds.
    """
    command = [sys.executable, "-m", module, *arguments]
    process = await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None, start_new_session=True)
    try:
        yield Child(f"http://127.0.0.1:{await _port_of(process, module)}", process.pid)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


async def _port_of(process: Process, module: str) -> int:
    assert process.stdout is not None
    lines = BufferedByteReceiveStream(process.stdout)
    try:
        with anyio.fail_after(STARTUP):
            return int(await lines.receive_until(b"\n", 100))
    except (anyio.EndOfStream, anyio.IncompleteRead):
        raise DemoError(f"{module} ended before it was ready, with exit code {await process.wait()}") from None
    except TimeoutError:
        raise DemoError(f"{module} was not ready within {STARTUP:g} seconds") from None


async def _stop(process: Process) -> None:
    assert process.stdin is not None
    await process.stdin.aclose()
    with anyio.move_on_after(GRACE):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()
