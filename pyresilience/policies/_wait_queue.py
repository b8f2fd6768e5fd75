"""Those who wait in line for something: tasks of any event loop, and threads.

The owner guards the queue with its own lock. Waking happens after the lock was released.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pyresilience.runtime._protocol import Waiter

T = TypeVar("T", bound="Ticket")


class Ticket:
    """A place in line."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter

    def wake(self) -> bool:
        """Let the waiter go on; False when its event loop is closed and nobody waits there any more."""
        try:
            self.waiter.wake()
        except RuntimeError:
            return False
        return True


class WaitQueue(OrderedDict[T, None]):
    """First come, first served; leaving from the middle costs no more than from the front.

    A dictionary, so that asking whether it is empty or whom it contains runs no Python code: an interrupt cannot
    arrive in between.
    """

    def join(self, ticket: T) -> None:
        self[ticket] = None

    def join_front(self, ticket: T) -> None:
        self[ticket] = None
        self.move_to_end(ticket, last=False)

    def leave(self, ticket: T) -> None:
        if ticket in self:
            del self[ticket]

    def first(self) -> T | None:
        return next(iter(self), None)
