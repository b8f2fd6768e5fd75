"""The state machine of a circuit breaker. Pure: no clock, no lock, no await; time is an argument in nanoseconds."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pyresilience.policies._windows import FAILED, SLOW, CountWindow, exact, reaches
from pyresilience.runtime._sources import NANOSECONDS

if TYPE_CHECKING:
    from pyresilience.policies.circuit_breaker import CircuitBreakerConfig


class CircuitState(StrEnum):
    """Whether calls flow, are refused, or are let through one by one to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


REFUSED = -1
NO_PROBES: dict[int, Any] = {}
"""Of all circuits that are not half-open. Nothing is ever added to it."""
MAX_OVERDUE = 1000
DEFAULT_LEASE = 30.0
"""Seconds that a probe may go unreported when neither an attempt timeout nor `recovery_timeout` says so."""


class Circuit:
    """Closed, open, half-open.

    Permits are integers from one counter. While closed all calls share the number of the period (`permit`); each
    probe of a half-open period gets a number of its own and a lease. A report with any other number belongs to an
    earlier period and is ignored.

    Three things may be read without the lock. `permit` is `REFUSED` unless the circuit is closed. `light` is the same
    number while a quick success changes nothing but the window, or else `REFUSED`. Such a success may be appended to
    `pending`, which is None without a window.
    """

    __slots__ = (
        "_config",
        "_failure_rate",
        "_lease",
        "_minimum",
        "_overdue",
        "_probe_limit",
        "_serial",
        "_slow_rate",
        "_slow_successes",
        "_successes",
        "_window",
        "failures",
        "forced",
        "light",
        "open_until",
        "pending",
        "permit",
        "probes",
        "state",
    )

    state: CircuitState
    forced: bool
    permit: int
    light: int
    failures: int
    open_until: int
    probes: dict[int, int]
    _overdue: dict[int, None]
    pending: deque[int] | None
    _window: CountWindow | None

    def __init__(self, config: CircuitBreakerConfig) -> None:
        self._config = config
        if config.sliding_window_size:
            self._failure_rate = exact(config.failure_rate_threshold)
            self._slow_rate = exact(config.slow_call_rate_threshold)
        self._minimum = config.minimum_calls or config.sliding_window_size
        self._probe_limit = config.half_open_max_calls or config.success_threshold
        self._lease = config.recovery_timeout or DEFAULT_LEASE
        self._serial = 0
        self._enter(CircuitState.CLOSED, 0)

    def set_lease(self, seconds: float) -> None:
        """How long a probe may go unreported before its place is given to another."""
        self._lease = seconds

    def reserve(self) -> int:
        """A number for a probe that is going to ask; nothing is taken yet."""
        self._serial += 1
        return self._serial

    def acquire(self, now: int, probe: int | None = None) -> tuple[int, CircuitState | None]:
        """A permit or `REFUSED`, and the state that was entered, if one was. `probe` is a number reserved for it."""
        entered = None
        if self.state is CircuitState.OPEN and not self.forced and now >= self.open_until:
            entered = self._enter(CircuitState.HALF_OPEN, now)
        if self.state is CircuitState.CLOSED:
            return self.permit, entered
        if self.state is CircuitState.OPEN or not self._has_place(now):
            return REFUSED, entered
        permit = self.reserve() if probe is None else probe
        self.probes[permit] = now + int(self._lease * NANOSECONDS)
        return permit, entered

    def _has_place(self, now: int) -> bool:
        if len(self.probes) >= self._probe_limit:
            for probe in [probe for probe, end in self.probes.items() if end <= now]:
                del self.probes[probe]
                self._overdue[probe] = None
            while len(self._overdue) > MAX_OVERDUE:
                del self._overdue[next(iter(self._overdue))]
        return len(self.probes) < self._probe_limit

    def record(self, permit: int | None, now: int, *, failed: bool, slow: bool = False) -> CircuitState | None:
        """The outcome of a call; None as permit counts for whatever state the circuit is in now."""
        if self.state is CircuitState.CLOSED and permit in (None, self.permit):
            return self._record_closed(now, failed, slow)
        if permit is None or permit in self.probes or permit in self._overdue:
            if self.state is not CircuitState.HALF_OPEN:
                return None
            return self._record_probe(permit, now, failed, slow)
        return None

    def abandon(self, permit: int) -> None:
        """The call ended without a verdict: cancelled, refused further in, or ignored."""
        self.probes.pop(permit, None)
        self._overdue.pop(permit, None)

    def _record_closed(self, now: int, failed: bool, slow: bool) -> CircuitState | None:
        self.failures = self.failures + 1 if failed else 0
        if self._window is None:
            tripped = self.failures >= self._config.failure_threshold
        else:
            self.drain()
            self._window.add(failed * FAILED | slow * SLOW)
            tripped = self._over_threshold(self._window)
        if tripped:
            return self._enter(CircuitState.OPEN, now)
        settled = self._window is None or self._window.calls >= self._minimum  # a success does not open it any more
        self.light = self.permit if settled and not failed else REFUSED
        return None

    def _over_threshold(self, window: CountWindow) -> bool:
        if window.calls < self._minimum:
            return False
        if window.failed and reaches(window.failed, window.calls, self._failure_rate):
            return True
        return bool(window.slow) and reaches(window.slow, window.calls, self._slow_rate)

    def _record_probe(self, permit: int | None, now: int, failed: bool, slow: bool) -> CircuitState | None:
        if permit is not None:
            self.abandon(permit)
        if failed:
            return self._enter(CircuitState.OPEN, now)
        self._successes += 1
        self._slow_successes += slow
        if self._successes < self._config.success_threshold:
            return None
        slow_counts = self._slow_successes > 0 and self._config.sliding_window_size > 0
        still_slow = slow_counts and reaches(self._slow_successes, self._successes, self._slow_rate)
        return self._enter(CircuitState.OPEN if still_slow else CircuitState.CLOSED, now)

    def force(self, state: CircuitState, now: int) -> CircuitState | None:
        """Enter a state by hand; open stays until it is forced closed or reset."""
        entered = None if self.state is state else state
        self._enter(state, now)
        self.forced = state is CircuitState.OPEN
        return entered

    def refuses(self, now: int) -> bool:
        """Whether `acquire` would refuse."""
        if self.state is CircuitState.OPEN:
            return self.forced or now < self.open_until
        return self.state is CircuitState.HALF_OPEN and not self._has_place(now)

    def retry_after(self, now: int) -> float:
        """Seconds after which a refused call may be let through; forced open, when to look again."""
        if self.forced:
            return float(self._config.recovery_timeout or DEFAULT_LEASE)
        until = self.open_until if self.state is CircuitState.OPEN else min(self.probes.values(), default=now)
        return max(0, until - now) / NANOSECONDS

    def drain(self) -> None:
        """Count the successes that were appended without the lock."""
        if self._window is not None:
            while self.pending:
                self._window.add(self.pending.popleft())

    def rates(self) -> tuple[int, float, float]:
        """Calls in the window, and the shares of them that failed and that were slow."""
        self.drain()
        window = self._window
        if window is None or not window.calls:
            return 0, 0.0, 0.0
        return window.calls, window.failed / window.calls, window.slow / window.calls

    def _enter(self, state: CircuitState, now: int) -> CircuitState:
        size = self._config.sliding_window_size
        self.permit = self.light = REFUSED  # first: who sees the new `pending` must not see the old period
        self._serial += 1
        self.state = state
        self.forced = False
        self.failures = 0
        self._successes = 0
        self._slow_successes = 0
        half_open = state is CircuitState.HALF_OPEN
        self.probes = {} if half_open else NO_PROBES
        self._overdue = {} if half_open else NO_PROBES  # lost their place; what they report is true all the same
        self.open_until = now + int(self._config.recovery_timeout * NANOSECONDS)
        self._window = CountWindow(size) if size else None
        self.pending = deque(maxlen=size) if size else None
        if state is CircuitState.CLOSED:
            self.permit = self._serial
            self.light = REFUSED if size else self._serial
        return state
