"""One logical call on its way through a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from pyresilience.errors import BulkheadFullError, CallRejectedError
from pyresilience.events._bus import deliver
from pyresilience.events._events import EventType
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import unwrap
from pyresilience.runtime._hold import Hold

if TYPE_CHECKING:
    import weakref
    from collections.abc import Awaitable

    from pyresilience.events._bus import DispatchTable
    from pyresilience.pipeline._pipeline import Pipeline
    from pyresilience.policies._cache_key import CallKeys
    from pyresilience.runtime._protocol import Runtime
    from pyresilience.runtime._threads import PoolExhausted

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Layer(Protocol):
    """One step of a pipeline: anything that can be called like this, such as a plain `async def`.

    It answers the call, awaits `call_next(call)` any number of times, or raises. A layer must re-raise what is not
    an `Exception` (cancellation above all) and give back what it took. It may keep no state on itself that belongs
    to one call: that stands in local variables or on `call`.
    """

    def __call__(self, call: Call[R], call_next: CallNext[R], /) -> Awaitable[R]: ...


class CallNext(Protocol[R_co]):
    """The rest of the pipeline, down to the guarded function."""

    def __call__(self, call: Call[Any], /) -> Awaitable[R_co]: ...


class Refundable(Protocol):
    """Something that took a token for an attempt and takes it back when the function never ran."""

    def refund(self, taken: int, /) -> None: ...


LayerFunction = Callable[[Any, "Call[Any]", Any], Any]
"""A layer as a plain function, whose first argument is the layer itself."""

Entry = tuple[LayerFunction, Any, Callable[["Call[Any]"], Any]]
"""The outermost layer of a pipeline: its function, the layer, and what comes after."""


class Binding:
    """What all calls of one function through one pipeline have in common.

    Attributes:
        owner, dispatch: of the pipeline; only there once it is in the inventory, from the first call on at the latest.
    """

    __slots__ = ("call_next", "dispatch", "enter", "fn", "judge", "layer", "name", "owner", "pipeline")

    owner: weakref.ref[Pipeline]
    dispatch: DispatchTable

    def __init__(
        self, pipeline: Pipeline, fn: Callable[..., Any], name: str, judge: Callable[[Any], bool] | None, entry: Entry
    ) -> None:
        self.pipeline = pipeline
        self.fn = fn
        self.name = name
        self.judge = judge
        self.enter, self.layer, self.call_next = entry


class KeyedBinding(Binding):
    """Of a pipeline with a cache, which makes a key of the arguments of a call."""

    __slots__ = ("keys",)

    def __init__(
        self, pipeline: Pipeline, fn: Callable[..., Any], name: str, judge: Callable[[Any], bool] | None, entry: Entry
    ) -> None:
        super().__init__(pipeline, fn, name, judge, entry)
        self.keys: CallKeys | None = None


class Call(Generic[R]):
    """One use of a pipeline by a caller; it contains the attempts.

    A plain mutable object, made for each call. The roots fill it in themselves: slots, because a default on the class
    costs more at each reading than storing it once, and no `__init__`, which would be one more frame on every call.
    Layers may keep things of their own on it.

    Attributes:
        attempt: the number of the current attempt, from 1.
        args, kwargs: what the function will be called with; a layer may replace them.
        deadline: when the call has to be over, in nanoseconds of the monotonic clock; only ever shrinks inwards.
        ran: the last attempt in which the function was started; 0 when it never was.
        ending: the terminal event that a layer has in mind for this call; a new run of the function revokes it.
    """

    __slots__ = (
        "__dict__",
        "args",
        "attempt",
        "binding",
        "deadline",
        "ending",
        "held",
        "kwargs",
        "ran",
        "scope",
        "started",
        "stragglers",
        "tokens",
    )

    runtime: ClassVar[Runtime]
    blocking: ClassVar[bool]

    binding: Binding
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int
    ran: int
    started: int  # in nanoseconds; only there when listeners or a deadline want to know
    deadline: float
    ending: tuple[EventType, BaseException | None, str] | None
    held: Hold | None
    stragglers: tuple[Hold, ...]
    scope: Any
    tokens: tuple[Refundable, int, Any] | None

    @property
    def name(self) -> str:
        """The name that events carry: the pipeline's, or else the function's."""
        return self.binding.name

    def remaining(self) -> float:
        """Seconds left of the call's deadline and of all deadlines around it; `inf` without any."""
        return self.runtime.remaining(self.deadline)

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Pause, on whichever runtime the call uses, when awaited. Cancellation and the call's deadline end it."""
        return self.runtime.sleep(seconds, self.deadline)

    def heard(self, kind: EventType) -> bool:
        """Whether any listener wants events of this kind; for those whose details are not for free."""
        return kind in self.binding.dispatch

    def emit(
        self, kind: EventType, *, error: BaseException | None = None, detail: str = "", attempt: int | None = None
    ) -> None:
        """Tell the listeners of a fact. Never call it while holding a lock."""
        listeners = self.binding.dispatch.get(kind)
        if listeners:
            if error is not None:
                error = unwrap(error)
            deliver(listeners, kind, self.binding.name, self.attempt if attempt is None else attempt, error, detail)

    def reject(self, kind: EventType, error: CallRejectedError, detail: str = "") -> CallRejectedError:
        """Announce that the call is refused; the layer then raises the error that this returns."""
        self.emit(kind, error=error, detail=detail)
        self.ending = (kind, error, detail)
        return error

    def pool_exhausted(self, reason: PoolExhausted) -> CallRejectedError:
        """The refusal of a call that needs a worker thread when there is none to be had."""
        error = BulkheadFullError(f"{self.name}: {reason}", layer="worker_pool", name=self.name)
        return self.reject(EventType.BULKHEAD_REJECTED, error, reason.detail)

    def hold(self) -> Hold:
        """Postpone settlement: the attempt's work goes on after its result was returned.

        Permits, verdicts and the terminal event wait until `release` of the hold has been called as often as
        `hold()` was.
        """
        if self.held is None:
            self.held = Hold()
        else:
            self.held.again()
        return self.held

    def when_settled(self, callback: Callable[[BaseException | None], None]) -> None:
        """Give something back: run `callback(error)` once no work of this call's attempts is going on any more."""
        holds = self.stragglers if self.held is None else (*self.stragglers, self.held)
        if len(holds) == 1:
            holds[0].then(callback)
            return
        together = Hold()
        together.then(callback)
        for hold in holds:
            together.again()
            hold.then(together.release)
        together.release()

    def next_attempt(self) -> None:
        """Begin another attempt; what the last one left behind is settled without this call."""
        self.attempt += 1
        self.stragglers = ()
        self.ending = None
        self.held = None
        self.tokens = None

    def forget_attempt(self) -> None:
        """A layer has dealt with the failure of an attempt: its hold and its ending are no longer the call's."""
        self.ending = None
        self.held = None
        self.tokens = None

    def refund(self) -> None:
        """Give rate tokens back if the attempt ended, refused or cancelled, before the function ran."""
        tokens, self.tokens = self.tokens, None
        if self.ran != self.attempt:
            while tokens is not None:
                limiter, taken, tokens = tokens
                limiter.refund(taken)

    def deadline_passed(self) -> bool:
        """Whether a deadline of ours, rather than the caller, is why this call is being cancelled."""
        if sources.now() >= self.deadline:
            return True
        scope = self.scope
        while scope is not None:
            if scope.cancel_called:
                return True
            scope = scope.outer
        return False
