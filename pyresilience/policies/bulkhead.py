"""Bulkhead: a limit on how many calls run at one time."""

from __future__ import annotations

import threading
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.errors import BulkheadFullError
from pyresilience.events._events import EventType
from pyresilience.policies import _validate as validate
from pyresilience.policies._wait_queue import Ticket, WaitQueue

if TYPE_CHECKING:
    from pyresilience.pipeline._call import Call, CallNext

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class BulkheadConfig:
    """How many calls may run, and how long others may wait.

    Attributes:
        max_concurrent: permits; calls that run at one time.
        max_wait: seconds that a call may wait for a permit; 0 refuses at once, `inf` waits as long as it takes.
        max_queue: calls that may wait at one time; more are refused at once.
    """

    max_concurrent: int = 10
    max_wait: float = 0.0
    _: KW_ONLY
    max_queue: int = 1000

    def __post_init__(self) -> None:
        validate.integer(self, "max_concurrent", 1)
        validate.number(self, "max_wait", infinite=True)
        validate.integer(self, "max_queue", 0)

    def build(self) -> Bulkhead:
        return Bulkhead(self)


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A bulkhead at one moment.

    Attributes:
        limit: permits there are.
        in_use: permits taken, those of abandoned functions included.
        waiting: calls in the queue.
    """

    limit: int
    in_use: int
    waiting: int


class Permits:
    """Pure: what is free, and who waits for it. A free permit goes to the one who waits longest, never past it."""

    __slots__ = ("free", "waiters")

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.waiters: WaitQueue | None = None

    def enqueue(self, ticket: Ticket) -> None:
        if self.waiters is None:
            self.waiters = WaitQueue()
        self.waiters.join(ticket)

    def hand_on(self) -> Ticket | None:
        """A permit came back: who has it now, or None when nobody waits and it is free."""
        if not self.waiters:
            self.free += 1
            return None
        ticket = self.waiters.pop()
        ticket.granted = True
        return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Stop waiting; True when the permit had been handed over at that moment."""
        if self.waiters is not None:
            self.waiters.leave(ticket)
        return ticket.granted


class Bulkhead:
    """Refuses calls with `BulkheadFullError` when `max_concurrent` of them run and waiting is no option.

    Waiting calls are served in the order in which they came, whether they are tasks of any event loop or threads.
    A permit comes back on every ending; one whose function was abandoned in its thread, or whose response body
    still streams, comes back when that ends. A cancelled waiter leaves the queue and takes nothing with it.
    """

    __slots__ = ("_lock", "_permits", "config", "name")

    def __init__(self, config: BulkheadConfig | None = None, *, name: str = "bulkhead") -> None:
        config = BulkheadConfig() if config is None else config
        validate.config_of(BulkheadConfig, config)
        self.config = config
        self.name = name
        self._lock = threading.Lock()
        self._permits = Permits(config.max_concurrent)

    def __repr__(self) -> str:
        return f"Bulkhead(max_concurrent={self.config.max_concurrent})"

    def statistics(self) -> BulkheadStatistics:
        """What is in use now."""
        with self._lock:
            limit, permits = self.config.max_concurrent, self._permits
            return BulkheadStatistics(limit, limit - permits.free, len(permits.waiters or ()))

    async def __call__(self, call: Call[R], call_next: CallNext[R]) -> R:
        permits = self._permits
        taken = False
        ticket: Ticket | None = None
        # Between a call and the next statement an interrupt may arrive, so taking and giving back are statements
        # without calls, under the lock and inside the try; a ticket exists before anything can be granted to it.
        try:
            with self._lock:
                if permits.free > 0 and not permits.waiters:
                    permits.free -= 1
                    taken = True
            if not taken:
                ticket = Ticket(call.runtime.waiter())
                await self._wait(call, ticket)
            return await call_next(call)
        finally:
            if ticket is not None:
                taken = self._withdraw(ticket)
            if taken:
                if call.held is not None or call.stragglers:
                    call.when_settled(self._give_back)
                else:
                    heir = None
                    with self._lock:
                        if permits.waiters:
                            heir = permits.hand_on()
                        else:
                            permits.free += 1
                    if heir is not None:
                        self._wake(heir)

    async def _wait(self, call: Call[Any], ticket: Ticket) -> None:
        """Return with the permit granted, or raise."""
        config = self.config
        may_wait = config.max_wait > 0 and not call.runtime.stalls_event_loop()
        refusal = ""
        with self._lock:
            permits = self._permits
            if permits.free > 0 and not permits.waiters:
                permits.free -= 1
                ticket.granted = True
                return
            if not may_wait:
                refusal = "full"
            elif len(permits.waiters or ()) >= config.max_queue:
                refusal = "queue full"
            else:
                permits.enqueue(ticket)
        if not refusal:
            await call.runtime.wait(ticket.waiter, config.max_wait, call.deadline)
            with self._lock:
                if self._permits.withdraw(ticket):
                    return
            refusal = f"no permit within {config.max_wait:.2f}s"
        message = f"{call.name}: bulkhead of {config.max_concurrent} is full ({refusal})"
        raise call.reject(
            EventType.BULKHEAD_REJECTED, BulkheadFullError(message, layer="bulkhead", name=self.name), refusal
        )

    def _withdraw(self, ticket: Ticket) -> bool:
        with self._lock:
            return self._permits.withdraw(ticket)

    def _give_back(self, error: BaseException | None = None) -> None:
        with self._lock:
            heir = self._permits.hand_on()
        if heir is not None:
            self._wake(heir)

    def _wake(self, heir: Ticket) -> None:
        if not heir.wake():  # its event loop is closed: the permit goes to the next
            self._give_back()

    def reset_after_fork(self) -> None:
        """The parent's threads hold nothing here."""
        self._lock = threading.Lock()
        self._permits = Permits(self.config.max_concurrent)
