"""Circuit breaker: stop calling what keeps failing, and find out by a few probes when it has recovered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from pyresilience.errors import CallRejectedError, CircuitOpenError, ResilienceTimeoutError
from pyresilience.events._events import EventType
from pyresilience.pipeline import _inventory as inventory
from pyresilience.policies import _validate as validate
from pyresilience.policies._circuit import REFUSED, Circuit, CircuitState
from pyresilience.policies._lock import make_lock
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import unwrap

if TYPE_CHECKING:
    from pyresilience.pipeline._call import Call, CallNext

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """When a circuit opens and how it closes again.

    Attributes:
        failure_threshold: failures in a row that open the circuit, when there is no window.
        recovery_timeout: seconds it stays open before probes are let through.
        success_threshold: successful probes that close it; one that fails opens it again.
        error_types: errors that count as failures; others count as successes. Our own timeouts always count.
        ignore_on: errors that count as neither; beats `error_types`.
        sliding_window_size: judge by rates over this many calls instead of failures in a row; 0: no window.
        failure_rate_threshold: share of failed calls in the window that opens the circuit, reached or passed.
        minimum_calls: calls in the window before it is judged; 0: the window's size.
        slow_call_duration: seconds above which a call is slow and `SLOW_CALL` is emitted; 0: off.
        slow_call_rate_threshold: share of slow calls in the window that opens the circuit, reached or passed.
        half_open_max_calls: probes that may be under way at one time; None: `success_threshold`.
        probe_timeout: seconds after which a probe that has not been reported gives its place to another; None: twice
            the limit of the attempt timeout inside, or else `recovery_timeout`. Its late report still counts.
    """

    failure_threshold: int = 5
    recovery_timeout: float = 30.0
    success_threshold: int = 2
    error_types: Sequence[type[BaseException]] = (Exception,)
    ignore_on: Sequence[type[BaseException]] = ()
    sliding_window_size: int = 0
    failure_rate_threshold: float = 0.5
    minimum_calls: int = 0
    slow_call_duration: float = 0.0
    slow_call_rate_threshold: float = 1.0
    _: KW_ONLY
    half_open_max_calls: int | None = None
    probe_timeout: float | None = None

    def __post_init__(self) -> None:
        validate.integer(self, "failure_threshold", 1)
        validate.number(self, "recovery_timeout")
        validate.integer(self, "success_threshold", 1)
        validate.error_types(self, "error_types")
        validate.error_types(self, "ignore_on")
        validate.integer(self, "sliding_window_size", 0)
        validate.number(self, "failure_rate_threshold", maximum=1.0, unit="")
        validate.integer(self, "minimum_calls", 0)
        if self.minimum_calls > self.sliding_window_size:
            raise ValueError(
                f"CircuitBreakerConfig.minimum_calls must be at most sliding_window_size "
                f"({self.sliding_window_size}), not {self.minimum_calls}"
            )
        validate.number(self, "slow_call_duration")
        validate.number(self, "slow_call_rate_threshold", maximum=1.0, unit="")
        if self.half_open_max_calls is not None:
            validate.integer(self, "half_open_max_calls", 1)
        if self.probe_timeout is not None:
            validate.number(self, "probe_timeout", above=True)

    def build(self) -> CircuitBreaker:
        return CircuitBreaker(self)


class CircuitMetrics(TypedDict):
    """What `CircuitBreaker.metrics` shows; the rates are those of the sliding window, 0 without one."""

    state: str
    failure_rate: float
    slow_call_rate: float
    total_calls: int


class CircuitBreaker:
    """Refuses calls with `CircuitOpenError` while the circuit is open.

    Usable as a layer and on its own (`allow_request`, `record_success`, `record_failure`). One object may be shared
    by any number of pipelines, threads and event loops.

    Refusals of other layers and cancellation by the caller say nothing about the service: they are not counted, and
    a probe that ends in one gives its place back.
    """

    __slots__ = ("_anonymous", "_circuit", "_own_lock", "_slow", "config", "name")

    never_suspends = True
    keyed = False

    _own_lock: threading.Lock

    def __init__(self, config: CircuitBreakerConfig | None = None, *, name: str = "circuit_breaker") -> None:
        config = validate.config_of(CircuitBreakerConfig, config)
        self.config = config
        self.name = name
        self._circuit = Circuit(config)
        self._slow = int(config.slow_call_duration * sources.NANOSECONDS)
        self._anonymous: deque[int] | None = None

    def __repr__(self) -> str:
        return f"CircuitBreaker({self._circuit.state.value})"

    def __reduce__(self) -> Any:
        raise TypeError("a CircuitBreaker cannot be copied or pickled: its state would be in two places")

    # ------------------------------------------------------------------ as a layer

    def attached(self, inner: tuple[Any, ...]) -> None:
        """A pipeline contains this breaker and, inside it, these layers: an attempt timeout bounds a probe."""
        limits = [limit for layer in inner if (limit := getattr(layer, "attempt_seconds", None)) is not None]
        if limits:
            self._circuit.limit_attempts(min(limits))

    @property
    def _lock(self) -> threading.Lock:
        """Made when it is first needed: while calls succeed nothing takes it."""
        try:
            return self._own_lock
        except AttributeError:
            return make_lock(self)

    async def __call__(self, call: Call[R], call_next: CallNext[R]) -> R:
        circuit = self._circuit
        permit = circuit.permit
        if permit < 0 or self._slow:
            return await self._watched(call, call_next)
        try:
            result = await call_next(call)
        except BaseException as error:
            self._settle_error(call, permit, unwrap(error), 0)
            raise
        pending = circuit.pending  # before `light`: that of a new period must not be taken for this one's
        if circuit.light != permit or call.held is not None or call.binding.judge is not None:
            self._settle_value(call, permit, result, 0)
        elif pending is not None:
            pending.append(0)
        return result

    async def _watched(self, call: Call[R], call_next: CallNext[R]) -> R:
        """A call through a circuit that is not closed, or whose slow calls count."""
        permit = self._circuit.permit
        knock = permit < 0
        if knock:
            with self._lock:
                permit = self._circuit.reserve()
        began = 0
        try:
            if knock:
                permit = self._knock(call, permit)
            if self._slow:
                began = sources.now()
            result = await call_next(call)
        except BaseException as error:
            try:
                self._settle_error(call, permit, unwrap(error), began)
            except BaseException:  # interrupted
                self._abandon(permit)
                raise
            raise
        try:
            self._settle_value(call, permit, result, began)
        except BaseException:  # interrupted, or the judge failed
            self._abandon(permit)
            raise
        return result

    def _knock(self, call: Call[Any], probe: int) -> int:
        """Ask a circuit that is not closed. `probe` is known to the caller, whatever interrupts the answer."""
        now = sources.now()
        with self._lock:
            permit, entered = self._circuit.acquire(now, probe)
            retry_after = self._circuit.retry_after(now) if permit == REFUSED else 0.0
            state = self._circuit.state.value
        self._announce(call, entered, None)
        if permit == REFUSED:
            message = f"{call.name}: circuit is {state.replace('_', '-')}; retry after {retry_after:.2f}s"
            raise call.reject(
                EventType.CIRCUIT_OPEN,
                CircuitOpenError(message, retry_after=retry_after, layer="circuit_breaker", name=self.name),
                "rejected",
            )
        return permit

    def _settle_value(self, call: Call[Any], permit: int, result: object, began: int) -> None:
        if call.held is not None:
            call.held.then(lambda error: self._released(call, permit, error, began))
            return
        judge = call.binding.judge
        self._record(call, permit, judge is not None and judge(result), None, began)

    def _released(self, call: Call[Any], permit: int, error: BaseException | None, began: int) -> None:
        if error is None:
            self._record(call, permit, False, None, began)
        else:
            self._settle_error(call, permit, error, began)

    def _settle_error(self, call: Call[Any], permit: int, error: BaseException, began: int) -> None:
        if not isinstance(error, Exception):
            if call.deadline_passed():
                self._record(call, permit, True, None, began)
            else:
                self._abandon(permit)
        elif isinstance(error, (CallRejectedError, *self.config.ignore_on)):
            self._abandon(permit)
        else:
            failed = isinstance(error, (ResilienceTimeoutError, *self.config.error_types))
            self._record(call, permit, failed, error, began)

    def _record(self, call: Call[Any], permit: int, failed: bool, error: BaseException | None, began: int) -> None:
        now = sources.now()
        slow = began > 0 and now - began > self._slow
        with self._lock:
            entered = self._circuit.record(permit, now, failed=failed, slow=slow)
        if slow:
            call.emit(EventType.SLOW_CALL, error=error, detail=f"took {(now - began) / sources.NANOSECONDS:.2f}s")
        self._announce(call, entered, error)

    def _abandon(self, permit: int) -> None:
        with self._lock:
            self._circuit.abandon(permit)

    def _announce(self, call: Call[Any], entered: CircuitState | None, error: BaseException | None) -> None:
        if entered is CircuitState.OPEN:
            call.emit(EventType.CIRCUIT_OPEN, error=error, detail="opened")
        elif entered is not None:
            call.emit(_EVENTS[entered])

    # ------------------------------------------------------------------ on its own

    @property
    def state(self) -> CircuitState:
        """The state now. An open circuit turns half-open when the next call asks, not by the clock."""
        return self._circuit.state

    @property
    def failure_count(self) -> int:
        """Failures in a row since the last success."""
        return self._circuit.failures

    @property
    def metrics(self) -> CircuitMetrics:
        with self._lock:
            calls, failed, slow = self._circuit.rates()
            return {
                "state": self._circuit.state.value,
                "failure_rate": failed,
                "slow_call_rate": slow,
                "total_calls": calls,
            }

    @property
    def refusing(self) -> bool:
        """Whether a call would be refused now. Asking takes no probe and changes nothing."""
        now = sources.now()
        with self._lock:
            return self._circuit.refuses(now)

    def allow_request(self) -> bool:
        """Whether a call may go ahead. Report it with `record_success` or `record_failure`.

        A probe that is not reported within its lease gives its place to another.
        """
        now = sources.now()
        with self._lock:
            permit, _ = self._circuit.acquire(now)
            if permit in self._circuit.probes:
                if self._anonymous is None:
                    self._anonymous = deque(maxlen=1000)
                self._anonymous.append(permit)
        return permit != REFUSED

    def record_success(self) -> None:
        """Count a success for the oldest request under way, or else for the state that the circuit is in."""
        self._record_anonymous(failed=False)

    def record_failure(self) -> None:
        """Count a failure for the oldest request under way, or else for the state that the circuit is in."""
        self._record_anonymous(failed=True)

    def _record_anonymous(self, *, failed: bool) -> None:
        now = sources.now()
        with self._lock:
            permit: int | None = None
            while self._anonymous and permit not in self._circuit.probes:
                permit = self._anonymous.popleft()
            if permit not in self._circuit.probes:
                permit = None
            self._circuit.record(permit, now, failed=failed)

    def force_open(self) -> None:
        """Refuse all calls until `force_close` or `reset`."""
        self._force(CircuitState.OPEN)

    def force_close(self) -> None:
        """Let calls flow again, with nothing counted; from then on the circuit works as usual."""
        self._force(CircuitState.CLOSED)

    def reset(self) -> None:
        """As when it was new: closed, nothing counted."""
        self._force(CircuitState.CLOSED)

    def _force(self, state: CircuitState) -> None:
        now = sources.now()
        with self._lock:
            entered = self._circuit.force(state, now)
        if entered is not None:
            inventory.announce(self, _EVENTS[entered], "forced")

    def reset_after_fork(self) -> None:
        """Probes that the parent's threads had under way will never be reported here."""
        self._own_lock = threading.Lock()
        self._circuit.forget_probes()


_EVENTS = {
    CircuitState.OPEN: EventType.CIRCUIT_OPEN,
    CircuitState.HALF_OPEN: EventType.CIRCUIT_HALF_OPEN,
    CircuitState.CLOSED: EventType.CIRCUIT_CLOSED,
}
