"""Rate limiter: so many calls in so much time."""

from __future__ import annotations

import threading
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.errors import RateLimitExceededError
from pyresilience.events._events import EventType
from pyresilience.policies import _validate as validate
from pyresilience.policies._lock import let_go
from pyresilience.policies._rates import Gcra, Rate, SlidingWindow
from pyresilience.policies._wait_queue import Ticket, WaitQueue
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import BlockingRuntime, drive

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyresilience.pipeline._call import Call, CallNext
    from pyresilience.runtime._protocol import Runtime

R = TypeVar("R")

ALGORITHMS: dict[str, type[Gcra] | type[SlidingWindow]] = {"token_bucket": Gcra, "sliding_window": SlidingWindow}


@dataclass(frozen=True, slots=True)
class RateLimiterConfig:
    """How many calls in which time, and how long others may wait.

    Attributes:
        max_calls: calls per `period`; also the burst that a rested limiter admits at once.
        period: seconds.
        max_wait: seconds that a call may wait for its turn; 0 refuses at once, `inf` waits as long as it takes.
        algorithm: `token_bucket` admits at most `floor(T * max_calls / period) + max_calls` calls in any window of T
            seconds, so up to twice `max_calls` in one period; `sliding_window` never more than `max_calls` in any
            window of `period`, for strict quotas.
        max_queue: calls that may wait at one time; more are refused at once.
    """

    max_calls: int = 10
    period: float = 1.0
    max_wait: float = 0.0
    _: KW_ONLY
    algorithm: str = "token_bucket"
    max_queue: int = 1000

    def __post_init__(self) -> None:
        validate.integer(self, "max_calls", 1)
        validate.number(self, "period", above=True)
        validate.number(self, "max_wait", infinite=True)
        validate.choice(self, "algorithm", tuple(ALGORITHMS))
        validate.integer(self, "max_queue", 0)

    def build(self) -> RateLimiter:
        return RateLimiter(self)


class _Limiter:
    """The layer and the line of those who wait for a token; see `RateLimiter`.

    Only the first in line watches the clock; when it has gone, it wakes the next. Everybody else also wakes when
    its turn should have come by the first estimate: if those ahead are late by then (their event loop stands still
    or is gone), they are passed over.
    """

    __slots__ = ("_line", "_lock", "_rate", "config", "name")

    forwards = True  # a plain function that returns a coroutine, its own or that of the next layer
    keyed = False

    def __init__(self, config: RateLimiterConfig | None = None, *, name: str = "rate_limiter") -> None:
        config = validate.config_of(RateLimiterConfig, config)
        self.config = config
        self.name = name
        self._lock = threading.RLock()
        self._rate: Rate = ALGORITHMS[config.algorithm](
            config.max_calls, max(1, round(config.period * sources.NANOSECONDS))
        )
        self._line: WaitQueue[Ticket] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.max_calls} per {self.config.period:g}s)"

    @property
    def available(self) -> bool:
        """Whether a call would be admitted at once. Takes nothing."""
        with self._lock:
            return not self._line and self._rate.wait(sources.now(), 0) == 0

    def __call__(self, call: Call[R], call_next: CallNext[R]) -> Awaitable[R]:
        lock = self._lock
        try:
            lock.acquire()
            now = sources.now()
            wait = 1 if self._line else self._rate.take(now)
            lock.release()
        except BaseException:
            let_go(lock)
            raise
        if wait:
            return self._delayed(call, call_next)
        call.tokens = (self, now, call.tokens)
        return call_next(call)

    async def _delayed(self, call: Call[R], call_next: CallNext[R]) -> R:
        retry_after, taken = await self._turn(call.runtime, call.deadline)
        if retry_after:
            message = f"{call.name}: more than {self.config.max_calls} calls per {self.config.period:g}s"
            detail = f"retry after {retry_after:.2f}s"
            raise call.reject(
                EventType.RATE_LIMITED,
                RateLimitExceededError(
                    f"{message}; {detail}", retry_after=retry_after, layer="rate_limiter", name=self.name
                ),
                detail,
            )
        call.tokens = (self, taken, call.tokens)
        return await call_next(call)

    def refund(self, taken: int) -> None:
        """The call that took a token at `taken` never ran."""
        with self._lock:
            self._rate.give_back(taken)
        self._wake_first()

    async def _turn(self, runtime: Runtime, deadline: float) -> tuple[float, int]:
        """Take a token, after waiting in line if that is allowed: 0 and the time. Else the seconds to wait, and 0."""
        ticket = Ticket(runtime.waiter())
        allowed = min(self.config.max_wait * sources.NANOSECONDS, runtime.remaining(deadline) * sources.NANOSECONDS)
        stalls = runtime.stalls_event_loop()
        try:
            with self._lock:
                line = self._line
                if line is None:
                    line = self._line = WaitQueue()
                now = sources.now()
                wait = self._rate.wait(now, len(line))
                if wait == 0 and not line:
                    self._rate.take(now)
                    return 0.0, now
                if wait > allowed or stalls or len(line) >= self.config.max_queue:
                    return max(wait, 1) / sources.NANOSECONDS, 0
                line.join(ticket)
            return 0.0, await self._stand_in(line, ticket, now + wait, runtime, deadline)
        finally:
            try:
                self._leave(ticket)
            except BaseException:  # interrupted
                self._leave(ticket)
                raise

    async def _stand_in(
        self, line: WaitQueue[Ticket], ticket: Ticket, expected: int, runtime: Runtime, deadline: float
    ) -> int:
        """Wait for the ticket's turn and take a token; the time when that was."""
        while True:
            with self._lock:
                now = sources.now()
                if ticket not in line:  # passed over for being late
                    line.join_front(ticket)
                if line.first() is not ticket and now >= expected:
                    while line.first() is not ticket:
                        line.popitem(last=False)
                if line.first() is ticket:
                    wait = self._rate.take(now)
                    if wait == 0:
                        return now
                else:
                    wait = expected - now
            await runtime.wait(ticket.waiter, wait / sources.NANOSECONDS, deadline)

    def _leave(self, ticket: Ticket) -> None:
        if self._line:
            with self._lock:
                self._line.leave(ticket)
            self._wake_first()

    def _wake_first(self) -> None:
        """Let the one who is first now look at the clock."""
        while self._line:
            with self._lock:
                first = self._line.first()
            if first is None or first.wake():
                return
            with self._lock:  # its event loop is closed
                self._line.leave(first)

    def reset_after_fork(self) -> None:
        """The parent's waiters are not here."""
        self._lock = threading.RLock()
        self._line = None


class RateLimiter(_Limiter):
    """Refuses calls with `RateLimitExceededError` when they come too fast and waiting is no option.

    Calls that wait are served in the order in which they came, whether they are tasks of any event loop or threads.
    A cancelled waiter takes nothing, and those behind it move up. A call that a layer further in refuses before the
    function ran gives its token back.

    As a layer it serves sync and async functions; on its own `acquire` blocks. `AsyncRateLimiter` is the same with
    an `acquire` to await.
    """

    __slots__ = ()

    never_suspends = True

    def acquire(self) -> bool:
        """Take a token, blocking up to `max_wait` seconds; False when it would take longer.

        In a thread that runs an event loop it does not wait at all.
        """
        return drive(self._turn(_BLOCKING, inf))[0] == 0.0


class AsyncRateLimiter(_Limiter):
    """A `RateLimiter` whose `acquire` is awaited."""

    __slots__ = ()

    never_suspends = True

    async def acquire(self) -> bool:
        """Take a token, waiting up to `max_wait` seconds; False when it would take longer.

        When cancelled it takes nothing.
        """
        from pyresilience.runtime._anyio import AnyioRuntime

        return (await self._turn(AnyioRuntime(), inf))[0] == 0.0


_BLOCKING: Any = BlockingRuntime()
