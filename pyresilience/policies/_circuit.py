"""The state machine of a circuit breaker. Pure: no clock, no lock, no await; time is an argument in nanoseconds."""

from __future__ import annotations

from collections import deque
from copy import copy
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from pyresilience.policies._windows import FAILED, SLOW, CountWindow, exact, reaches
from pyresilience.runtime._sources import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyresilience.policies.circuit_breaker import CircuitBreakerConfig


class CircuitState(StrEnum):
    """Whether calls flow, are refused, or are let through one by one to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


REFUSED = -1
NO_PROBES: Mapping[int, int] = MappingProxyType({})
"""Of all circuits that are not half-open."""
MAX_OVERDUE = 1000
DEFAULT_LEASE = 30.0
"""Seconds that a probe may go unreported when neither an attempt timeout nor `recovery_timeout` says so."""
GRACE = 2.0
"""A probe has this many times its attempt timeout before its place is given away: the timeout itself reports first."""


class _Trial:
    """One half-open period.

    Attributes:
        probes: those under way, and when their lease ends.
        overdue: probes that lost their place; what they report is true all the same.
        successes, slow_successes: of the probes that were reported.
    """

    __slots__ = ("overdue", "probes", "slow_successes", "successes")

    def __init__(self) -> None:
        self.probes: dict[int, int] = {}
        self.overdue: dict[int, None] = {}
        self.successes = 0
        self.slow_successes = 0

    def has_place(self, limit: int, now: int) -> bool:
        if len(self.probes) >= limit:
            for probe in [probe for probe, end in self.probes.items() if end <= now]:
                del self.probes[probe]
                self.overdue[probe] = None
            while len(self.overdue) > MAX_OVERDUE:
                del self.overdue[next(iter(self.overdue))]
        return len(self.probes) < limit

    def abandon(self, permit: int) -> None:
        self.probes.pop(permit, None)
        self.overdue.pop(permit, None)


class _Rates(CountWindow):
    """The last calls, and the shares of them that open the circuit."""

    __slots__ = ("_failure_rate", "_slow_rate", "minimum")

    def __init__(self, config: CircuitBreakerConfig) -> None:
        super().__init__(config.sliding_window_size)
        self.minimum = config.minimum_calls or config.sliding_window_size
        self._failure_rate = exact(config.failure_rate_threshold)
        self._slow_rate = exact(config.slow_call_rate_threshold)

    def emptied(self) -> _Rates:
        """One with the same thresholds and no calls."""
        twin = copy(self)
        twin.clear()
        return twin

    def over_threshold(self) -> bool:
        if self.calls < self.minimum:
            return False
        if self.failed and reaches(self.failed, self.calls, self._failure_rate):
            return True
        return bool(self.slow) and self.too_slow(self.slow, self.calls)

    def too_slow(self, slow: int, calls: int) -> bool:
        return reaches(slow, calls, self._slow_rate)


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
        "_attempt",
        "_config",
        "_serial",
        "_trial",
        "_window",
        "failures",
        "forced",
        "light",
        "open_until",
        "pending",
        "permit",
        "state",
    )

    state: CircuitState
    forced: bool
    permit: int
    light: int
    failures: int
    open_until: int
    pending: deque[int] | None
    _trial: _Trial | None

    def __init__(self, config: CircuitBreakerConfig) -> None:
        self._config = config
        self._attempt = 0.0
        self._serial = 0
        self._window = _Rates(config) if config.sliding_window_size else None
        self._enter(CircuitState.CLOSED, 0)

    def limit_attempts(self, seconds: float) -> None:
        """An attempt inside takes that long at the most; of several limits the longest counts."""
        self._attempt = max(self._attempt, seconds)

    @property
    def lease(self) -> float:
        """Seconds that a probe may go unreported before its place is given to another."""
        config = self._config
        return config.probe_timeout or self._attempt * GRACE or config.recovery_timeout or DEFAULT_LEASE

    @property
    def probes(self) -> Mapping[int, int]:
        """The probes under way, and when their lease ends."""
        return NO_PROBES if self._trial is None else self._trial.probes

    def forget_probes(self) -> None:
        """Those under way will never be reported."""
        if self._trial is not None:
            self._trial.probes.clear()

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
        trial = self._trial
        if trial is None or not trial.has_place(self._probe_limit, now):
            return REFUSED, entered
        permit = self.reserve() if probe is None else probe
        trial.probes[permit] = now + int(self.lease * NANOSECONDS)
        return permit, entered

    @property
    def _probe_limit(self) -> int:
        return self._config.half_open_max_calls or self._config.success_threshold

    def record(self, permit: int | None, now: int, *, failed: bool, slow: bool = False) -> CircuitState | None:
        """The outcome of a call; None as permit counts for whatever state the circuit is in now."""
        if self.state is CircuitState.CLOSED and permit in (None, self.permit):
            return self._record_closed(now, failed, slow)
        trial = self._trial
        if trial is not None and (permit is None or permit in trial.probes or permit in trial.overdue):
            return self._record_probe(trial, permit, now, failed, slow)
        return None

    def abandon(self, permit: int) -> None:
        """The call ended without a verdict: cancelled, refused further in, or ignored."""
        if self._trial is not None:
            self._trial.abandon(permit)

    def _record_closed(self, now: int, failed: bool, slow: bool) -> CircuitState | None:
        self.failures = self.failures + 1 if failed else 0
        window = self._window
        if window is None:
            tripped = self.failures >= self._config.failure_threshold
        else:
            self.drain()
            window.add(failed * FAILED | slow * SLOW)
            tripped = window.over_threshold()
        if tripped:
            return self._enter(CircuitState.OPEN, now)
        settled = window is None or window.calls >= window.minimum  # a success does not open it any more
        self.light = self.permit if settled and not failed else REFUSED
        return None

    def _record_probe(
        self, trial: _Trial, permit: int | None, now: int, failed: bool, slow: bool
    ) -> CircuitState | None:
        if permit is not None:
            trial.abandon(permit)
        if failed:
            return self._enter(CircuitState.OPEN, now)
        trial.successes += 1
        trial.slow_successes += slow
        if trial.successes < self._config.success_threshold:
            return None
        window = self._window
        still_slow = (
            window is not None and trial.slow_successes > 0 and window.too_slow(trial.slow_successes, trial.successes)
        )
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
        return self._trial is not None and not self._trial.has_place(self._probe_limit, now)

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
        """Begin a period. What needs a call comes first: an interrupt finds all of the old period or all of the new."""
        trial = _Trial() if state is CircuitState.HALF_OPEN else None
        waits = int(self._config.recovery_timeout * NANOSECONDS) if state is CircuitState.OPEN else 0
        window = None if self._window is None else self._window.emptied()
        pending: deque[int] | None = None if window is None else deque(maxlen=self._config.sliding_window_size)
        self.permit = self.light = REFUSED  # before `pending`: who sees the new one must not see the old period
        self._serial += 1
        self.state = state
        self.forced = False
        self.failures = 0
        self._trial = trial
        self.open_until = now + waits
        self._window = window
        self.pending = pending
        if state is CircuitState.CLOSED:
            self.permit = self._serial
            self.light = self._serial if window is None else REFUSED
        return state
