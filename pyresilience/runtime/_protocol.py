"""The seam between policies and the outside: three ways to wait, and one way to run a function that blocks.

Every policy is written once, as `async def`. `AnyioRuntime` suspends in these methods; `BlockingRuntime` blocks the
thread instead, so that the same coroutine can be driven by a single `send(None)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyresilience.pipeline._call import Call

R = TypeVar("R")


class DeadlineExpired(BaseException):
    """The deadline of a call passed while its thread was blocked.

    Unwinds like a cancellation: layers stay neutral, and only the owner of that deadline turns it into a
    `ResilienceTimeoutError`. It never leaves the pipeline.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__(deadline)
        self.deadline = deadline


class Waiter(Protocol):
    """One task or thread that waits. It knows its home, so any thread may wake it."""

    def wake(self) -> None:
        """Let the waiter go on.

        Raises:
            RuntimeError: its event loop is closed; nobody waits there any more.
        """
        ...


NO_QUEUES: dict[Any, Any] = {}
"""What a limit has before its first timeout in an event loop; stays empty."""


class Limit(Protocol):
    """A duration that a `Timeout` layer enforces around the rest of the pipeline."""

    seconds: float
    total: bool
    queues: dict[Any, Any]

    @property
    def nanoseconds(self) -> int: ...
    @property
    def in_thread(self) -> bool: ...

    def expired(self, call: Call[Any]) -> Exception:
        """Announce the timeout and return the error to raise."""
        ...


class Runtime(Protocol):
    """How one colour of pipeline waits."""

    def waiter(self) -> Waiter:
        """A fresh waiter for the running task or thread."""
        ...

    async def wait(self, waiter: Waiter, seconds: float, deadline: float) -> bool:
        """Wait until woken (True) or until `seconds` have passed (False).

        `deadline` (nanoseconds) bounds the wait where nothing else does. On cancellation the backend's exception
        passes through; the caller has to find out whether it was woken at the same moment.
        """
        ...

    def sleep(self, seconds: float, deadline: float) -> Awaitable[None]:
        """Pause for `seconds`, or until `deadline` where nothing else enforces it."""
        ...

    def remaining(self, deadline: float) -> float:
        """Seconds left of `deadline` (nanoseconds) and of every deadline around the call; `inf` without any."""
        ...

    def stalls_event_loop(self) -> bool:
        """Whether waiting here would block a thread in which an event loop is running."""
        ...

    def bounded(self, limit: Limit, call: Call[Any], call_next: Callable[[Call[Any]], Awaitable[R]]) -> Awaitable[R]:
        """Run the rest of the pipeline with a deadline."""
        ...
