"""Servers and load in processes of their own, each on its core, none of which outlives the run."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.places import our_variables

if TYPE_CHECKING:
    from benchmarks.environment import Environment

ANSWER_TIMEOUT = 30
TURN_TIMEOUT = 60
SERVER, LOAD = 0, -1
"""Which of the cores a process gets, of those that it may use."""


def pin(which: int) -> None:
    """Keep this process on one core, where the system allows that and there are several."""
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[which]})


def obey_parent() -> None:
    """Tell the CPU time of this process for every line of standard input, and end it with that.

    The end of the parent closes the input as well, so that this process never outlives it.
    """

    def watch() -> None:
        for _ in sys.stdin:
            print(time.process_time(), flush=True)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def announce(listener: socket.socket) -> None:
    print(listener.getsockname()[1], flush=True)


def loopback() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=2048)


@dataclass(slots=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int

    def processor(self) -> float:
        """Seconds of CPU time so far.

        Raises:
            RuntimeError: it has ended.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except OSError as error:
            raise RuntimeError("the server has ended") from error
        return float(_line(self.process))


@contextlib.contextmanager
def server(environment: Environment, module: str, *arguments: str) -> Generator[Server]:
    """A server while it is needed.

    Raises:
        RuntimeError: it did not start.
    """
    process = subprocess.Popen(
        [str(environment.python), "-m", module, *arguments],
        env=our_variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process, int(_line(process)))
    finally:
        process.kill()
        with contextlib.suppress(OSError):  # a line that it did not read any more
            process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints.

    Raises:
        RuntimeError: it ended, or did not print one in time and was ended for that.
    """
    assert process.stdout is not None and process.stderr is not None
    timer = threading.Timer(ANSWER_TIMEOUT, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    if not line:
        raise RuntimeError((process.stderr.read().strip().splitlines() or ["it ended"])[-1])
    return line


def measured(environment: Environment, module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What a process that makes load has measured.

    Raises:
        RuntimeError: it failed, or took too long.
    """
    command = [str(environment.python), "-m", module, *arguments]
    try:
        done = subprocess.run(
            command,
            env=our_variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took more than {TURN_TIMEOUT} s") from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
