"""Bulkhead: a limit on how many calls run at one time."""

from __future__ import annotations

import threading
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.errors import BulkheadFullError
from pyresilience.events._events import EventType
from pyresilience.policies import _validate as validate
from pyresilience.policies._lock import let_go
from pyresilience.policies._wait_queue import Ticket, WaitQueue

if TYPE_CHECKING:
    from pyresilience.pipeline._call import Call, CallNext
    from pyresilience.runtime._protocol import Waiter

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


class Claim(Ticket):
    """A permit that a call has from the start, or waits for. Written under the bulkhead's lock."""

    __slots__ = ("granted", "heir")

    def __init__(self, waiter: Waiter | None = None) -> None:
        if waiter is not None:
            self.waiter = waiter
        self.granted = waiter is None
        self.heir: Claim | None = None


class Permits:
    """Pure: what is free, and who waits for it. A free permit goes to the one who waits longest, never past it.

    An interrupt may arrive after any call, so what belongs together are statements without calls.
    """

    __slots__ = ("free", "waiters")

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.waiters: WaitQueue[Claim] | None = None

    def enqueue(self, claim: Claim) -> None:
        if self.waiters is None:
            self.waiters = WaitQueue()
        self.waiters.join(claim)

    def give_back(self, claim: Claim) -> None:
        """End a claim; `claim.heir` has the permit then, unless nobody waited. Doing it twice changes nothing."""
        waiters = self.waiters
        if not claim.granted:
            if waiters and claim in waiters:
                del waiters[claim]
        elif waiters:
            for heir in waiters:
                claim.granted = False
                claim.heir = heir
                heir.granted = True
                del waiters[heir]
                break
        else:
            claim.granted = False
            self.free += 1


class Bulkhead:
    """Refuses calls with `BulkheadFullError` when `max_concurrent` of them run and waiting is no option.

    Waiting calls are served in the order in which they came, whether they are tasks of any event loop or threads.
    A permit comes back on every ending; one whose function was abandoned in its thread, or whose response body
    still streams, comes back when that ends. A cancelled waiter leaves the queue and takes nothing with it.
    """

    __slots__ = ("_lock", "_permits", "config", "name")

    never_suspends = True
    keyed = False

    def __init__(self, config: BulkheadConfig | None = None, *, name: str = "bulkhead") -> None:
        config = validate.config_of(BulkheadConfig, config)
        self.config = config
        self.name = name
        self._lock = threading.RLock()
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
        claim: Claim | None = None
        # Between a call and the next statement an interrupt may arrive, so taking and giving back are statements
        # without calls, under the lock and inside the try; a claim exists before anything can be granted to it.
        lock = self._lock
        try:
            try:
                lock.acquire()
                if permits.free > 0 and not permits.waiters:
                    permits.free -= 1
                    taken = True
                lock.release()
            except BaseException:
                let_go(lock)
                raise
            if not taken:
                claim = Claim(call.runtime.waiter())
                await self._wait(call, permits, claim)
            return await call_next(call)
        finally:
            lock = self._lock  # another one after a fork
            try:
                if taken and call.held is None and not call.stragglers:
                    lock.acquire()
                    if not permits.waiters:
                        permits.free += 1
                        taken = False
                    lock.release()
                if taken or claim is not None:
                    claim = claim or Claim()
                    self._settle(call, permits, claim)
            except BaseException:  # interrupted: what was done is not done again
                let_go(lock)
                if taken or claim is not None:
                    self._settle(call, permits, claim or Claim())
                raise

    async def _wait(self, call: Call[Any], permits: Permits, claim: Claim) -> None:
        """Return with the permit granted, or raise."""
        config = self.config
        may_wait = config.max_wait > 0 and not call.runtime.stalls_event_loop()
        refusal = ""
        with self._lock:
            if permits.free > 0 and not permits.waiters:
                permits.free -= 1
                claim.granted = True
                return
            if not may_wait:
                refusal = "full"
            elif len(permits.waiters or ()) >= config.max_queue:
                refusal = "queue full"
            else:
                permits.enqueue(claim)
        if not refusal:
            await call.runtime.wait(claim.waiter, config.max_wait, call.deadline)
            with self._lock:
                if claim.granted:
                    return
                permits.give_back(claim)
            refusal = f"no permit within {config.max_wait:.2f}s"
        message = f"{call.name}: bulkhead of {config.max_concurrent} is full ({refusal})"
        raise call.reject(
            EventType.BULKHEAD_REJECTED, BulkheadFullError(message, layer="bulkhead", name=self.name), refusal
        )

    def _settle(self, call: Call[Any], permits: Permits, claim: Claim) -> None:
        """Give the permit back, now or when the work of the call has ended."""
        if claim.granted and (call.held is not None or call.stragglers):
            call.when_settled(lambda error: self._give_back(permits, claim))
        else:
            self._give_back(permits, claim)

    def _give_back(self, permits: Permits, claim: Claim) -> None:
        heir: Claim | None = claim
        while heir is not None:
            with self._lock:
                permits.give_back(heir)
            heir = heir.heir
            if heir is not None and heir.wake():  # or else its event loop is closed: the permit goes to the next
                return

    def reset_after_fork(self) -> None:
        """The parent's threads hold nothing here."""
        self._lock = threading.RLock()
        self._permits = Permits(self.config.max_concurrent)
