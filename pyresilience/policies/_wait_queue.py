"""Those who wait in line for something: tasks of any event loop, and threads.

The owner guards the queue with its own lock. Waking happens after the lock was released.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyresilience.runtime._protocol import Waiter


class Ticket:
    """A place in line. `granted` is written under the owner's lock by whoever hands something on."""

    __slots__ = ("granted", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.granted = False

    def wake(self) -> bool:
        """Let the waiter go on; False when its event loop is closed and nobody waits there any more."""
        try:
            self.waiter.wake()
        except RuntimeError:
            return False
        return True


class WaitQueue:
    """First come, first served; leaving from the middle costs no more than from the front."""

    __slots__ = ("_tickets",)

    def __init__(self) -> None:
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._tickets

    def join(self, ticket: Ticket) -> None:
        self._tickets[ticket] = None

    def join_front(self, ticket: Ticket) -> None:
        self._tickets[ticket] = None
        self._tickets.move_to_end(ticket, last=False)

    def leave(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket, None)

    def first(self) -> Ticket | None:
        return next(iter(self._tickets), None)

    def pop(self) -> Ticket:
        return self._tickets.popitem(last=False)[0]
