"""Timeout: a deadline for one attempt, or for the whole call."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.errors import ResilienceTimeoutError
from pyresilience.events._events import EventType
from pyresilience.policies import _validate as validate
from pyresilience.runtime._protocol import NO_QUEUES
from pyresilience.runtime._sources import NANOSECONDS
from pyresilience.runtime._threads import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from pyresilience.pipeline._call import Call, CallNext

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TimeoutConfig:
    """How long an attempt and a whole call may take. `inf` means no limit.

    Attributes:
        seconds: the limit of one attempt, or of whatever the layer stands around.
        per_attempt: False makes `seconds` the limit of the whole call, retries and waits included.
        pool_size: worker threads for sync functions guarded with this config; None shares a pool of 32.
        total: seconds for the whole call, beside the limit of an attempt.
        in_thread: False runs a sync function that is called synchronously in the caller's thread. The deadline is then
            enforced only between attempts and in waits, because a function cannot be interrupted; it may ask
            `remaining_time()`. For functions that must stay in one thread, such as those that use a `sqlite3`
            connection. A sync function that is awaited runs in a worker thread in any case.
    """

    seconds: float = 30.0
    per_attempt: bool = True
    pool_size: int | None = None
    _: KW_ONLY
    total: float | None = None
    in_thread: bool = True

    def __post_init__(self) -> None:
        validate.number(self, "seconds", above=True, infinite=True)
        validate.boolean(self, "per_attempt")
        validate.boolean(self, "in_thread")
        if self.pool_size is not None:
            validate.integer(self, "pool_size", 1)
        if self.total is not None:
            validate.number(self, "total", above=True, infinite=True)

    def build(self) -> Timeout:
        return Timeout(self)


class _Limited:
    """Runs the rest of the pipeline with a deadline; see `Timeout`."""

    __slots__ = ()

    forwards = True  # a plain function that returns a coroutine, its own or that of the next layer
    keyed = False

    config: TimeoutConfig
    seconds: float
    total = False
    pool: WorkerPool | None
    queues: dict[Any, Any]

    @property
    def nanoseconds(self) -> int:
        """The limit; only where there is one."""
        return int(self.seconds * NANOSECONDS)

    @property
    def in_thread(self) -> bool:
        """Whether a sync function runs in a worker thread."""
        return self.config.in_thread

    @property
    def only_bounds(self) -> bool:
        """Whether a call of this does no more than ask the runtime for a deadline."""
        return self.seconds != inf

    def __call__(self, call: Call[R], call_next: CallNext[R]) -> Awaitable[R]:
        if self.seconds == inf:
            return call_next(call)
        return call.runtime.bounded(self, call, call_next)

    def expired(self, call: Call[Any]) -> ResilienceTimeoutError:
        what = "call" if self.total else "attempt"
        detail = f"{what} timed out after {self.seconds:.2f}s"
        error = ResilienceTimeoutError(f"{call.name}: {detail}", seconds=self.seconds)
        call.emit(EventType.TIMEOUT, error=error, detail=f"{detail}; function abandoned" if call.stragglers else detail)
        return error


class TotalTimeout(_Limited):
    """Enforces the deadline of the whole call, which was fixed when the call entered the pipeline.

    A pipeline makes it from `TimeoutConfig(total=...)` and puts it outside every layer but fallback and cache.
    """

    __slots__ = ("config", "pool", "queues", "seconds")

    never_suspends = True

    total = True

    def __init__(self, timeout: Timeout, seconds: float) -> None:
        self.config = timeout.config
        self.seconds = seconds
        self.pool = timeout.pool
        self.queues = NO_QUEUES

    @property
    def total_nanoseconds(self) -> int:
        return self.nanoseconds

    def __repr__(self) -> str:
        return f"TotalTimeout({self.seconds:g}s)"


class Timeout(_Limited):
    """Cancels the rest of the pipeline when `seconds` have passed, and raises `ResilienceTimeoutError`.

    An async function is cancelled at the deadline, through an anyio scope. A sync function runs in a daemon worker
    thread; at the deadline it is abandoned, never interrupted, and keeps its permits until it ends.

    A value that arrives after the deadline, or from a function that held up the event loop beyond it, is a timeout
    too. Cancellation by the caller passes through and is never turned into a timeout.
    """

    __slots__ = ("config", "pool", "queues", "seconds")

    never_suspends = True

    def __init__(self, config: TimeoutConfig | None = None) -> None:
        config = validate.config_of(TimeoutConfig, config)
        self.config = config
        self.seconds = config.seconds
        self.pool = None if config.pool_size is None else WorkerPool(config.pool_size)
        self.queues = NO_QUEUES

    @property
    def only_total(self) -> bool:
        """Whether attempts have no limit of their own."""
        return not self.config.per_attempt

    def total_layers(self) -> tuple[TotalTimeout, ...]:
        """A new layer that limits a whole call, if this one asks for it; each pipeline has its own."""
        whole = self.config.seconds if self.only_total else inf
        if self.config.total is not None:
            whole = min(whole, self.config.total)
        return () if whole == inf else (TotalTimeout(self, whole),)

    @property
    def attempt_seconds(self) -> float | None:
        """The limit of one attempt, if this layer sets one."""
        return None if self.only_total or self.seconds == inf else self.seconds

    def __repr__(self) -> str:
        return f"Timeout({self.seconds:g}s)"
