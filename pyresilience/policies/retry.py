"""Retry: run the function again when an attempt failed, after a growing wait."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from math import isinf
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.errors import CallRejectedError, RateLimitExceededError
from pyresilience.events._events import EventType
from pyresilience.policies import _validate as validate
from pyresilience.policies import backoff
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import unwrap

if TYPE_CHECKING:
    from pyresilience.pipeline._call import Call, CallNext
    from pyresilience.policies.retry_budget import RetryBudget, RetryBudgetConfig
    from pyresilience.runtime._hold import Hold

R = TypeVar("R")
logger = logging.getLogger("pyresilience")

_RETRY = EventType.RETRY  # until 3.12 a function is called to find a member in its class
NOTE = "pyresilience: "
FATAL = (MemoryError, RecursionError)
_SPECIAL = (ExceptionGroup, *FATAL)


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """When to try again, and how long to wait before.

    Attributes:
        max_attempts: attempts in all, the first included.
        delay: seconds of backoff after the first attempt.
        backoff_factor: what the backoff is multiplied by after each further attempt.
        max_delay: seconds that no backoff and no `delay_func` exceeds.
        jitter: draw each wait between 10 % and 100 % of the backoff.
        retry_on: errors worth another attempt. Cancellation, `KeyboardInterrupt` and other errors that are not an
            `Exception` are never retried, `MemoryError` and `RecursionError` only when named, an exception group
            only when every error in it would be.
        retry_on_result: `(value) -> bool`, true for a value that counts as a failure. The last one is returned.
        ignore_on: errors never retried; beats `retry_on`.
        delay_func: `(attempt, error_or_result) -> seconds`; None means the normal backoff, as does an answer that
            is no number. Clamped to [0, `max_delay`]. When it raises, that is logged and the normal backoff used.
    """

    max_attempts: int = 3
    delay: float = 1.0
    backoff_factor: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True
    retry_on: Sequence[type[BaseException]] = (Exception,)
    retry_on_result: Callable[[Any], bool] | None = None
    ignore_on: Sequence[type[BaseException]] = ()
    delay_func: Callable[[int, Any], float | None] | None = None
    _: KW_ONLY

    def __post_init__(self) -> None:
        validate.integer(self, "max_attempts", 1)
        validate.number(self, "delay")
        validate.number(self, "backoff_factor", unit="")
        validate.number(self, "max_delay")
        validate.boolean(self, "jitter")
        validate.error_types(self, "retry_on")
        validate.error_types(self, "ignore_on")
        validate.function(self, "retry_on_result")
        validate.function(self, "delay_func")

    def build(self) -> Retry:
        return Retry(self)

    def backoff(self, attempt: int, u: float) -> float:
        """Seconds to wait after the `attempt`-th attempt, for a random number `u` in [0, 1)."""
        pause = backoff.exponential(self.delay, self.backoff_factor, self.max_delay, attempt)
        return backoff.jittered(pause, u) if self.jitter else pause

    def retryable(self, error: BaseException) -> bool:
        """Whether `error` is worth another attempt."""
        ignore_on: Any = self.ignore_on
        retry_on: Any = self.retry_on  # tuples, since they were checked
        if isinstance(error, ignore_on) or not isinstance(error, Exception):
            return False
        if isinstance(error, _SPECIAL):
            if isinstance(error, ExceptionGroup):
                return all(self.retryable(leaf) for leaf in error.exceptions)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType, reportUnknownArgumentType]
            return any(issubclass(kind, FATAL) and isinstance(error, kind) for kind in self.retry_on)
        return isinstance(error, retry_on)


class Retry:
    """Runs the rest of the pipeline up to `max_attempts` times.

    Before each wait it asks the budget, and whether the deadlines around the call leave room for the wait; if not,
    it gives up at once. When it gives up, the original error surfaces with a note of how many attempts were made.

    An open circuit and a full bulkhead further in are never retried. A rate limit is, when the call has a deadline
    and `retry_after` fits it.
    """

    __slots__ = ("budget", "config")

    never_suspends = True
    keyed = False

    def __init__(
        self,
        config: RetryConfig | None = None,
        *,
        budget: RetryBudget | RetryBudgetConfig | None = None,
    ) -> None:
        config = validate.config_of(RetryConfig, config)
        self.config = config
        self.budget = None if budget is None else _live_budget(budget)

    def __repr__(self) -> str:
        return f"Retry(max_attempts={self.config.max_attempts})"

    @property
    def judge(self) -> Callable[[Any], bool] | None:
        """What tells a value that counts as a failure."""
        return self.config.retry_on_result

    def reset_after_fork(self) -> None:
        if self.budget is not None:
            self.budget.reset_after_fork()

    async def __call__(self, call: Call[R], call_next: CallNext[R]) -> R:
        judge = self.config.retry_on_result
        earlier: tuple[Hold, ...] = ()
        last: BaseException | None = None
        failure: BaseException | None = None
        try:
            while True:
                try:
                    result = await call_next(call)
                except Exception as error:
                    failure = unwrap(error)
                    pause = self._after_error(call, failure)
                    if pause is None:
                        if last is not None and isinstance(error, CallRejectedError):
                            raise error from last
                        raise
                    last = failure
                else:
                    if judge is None or not judge(result):
                        return result
                    pause = self._after_result(call, result)
                    if pause is None:
                        return result
                    del result
                first = self.before_retry(call)
                if first is not None:
                    await first
                if call.stragglers:
                    earlier += call.stragglers
                await call.runtime.sleep(pause, call.deadline)
                call.next_attempt()
        finally:
            del last, failure  # their tracebacks hold this frame
            if earlier:
                call.stragglers += earlier

    def obstacle(self, call: Call[Any], error: BaseException) -> str | None:
        """Hook for layers that know more about the call: what speaks against another attempt after `error`.

        Returns:
            None for nothing; an empty string when the error is not of the kind that is retried; else the reason that
            stands in the `RETRY_EXHAUSTED` event.
        """
        return None if self.config.retryable(error) else ""

    def before_retry(self, call: Call[Any]) -> Awaitable[None] | None:
        """Hook for layers that have to put something away before the wait for another attempt."""

    def _after_error(self, call: Call[Any], error: BaseException) -> float | None:
        """Seconds to wait before the next attempt, or None when `error` has to surface."""
        if call.tokens is not None:
            call.refund()
        if isinstance(error, CallRejectedError):
            return self._after_rejection(call, error)
        obstacle = self.obstacle(call, error)
        if obstacle == "":
            return None
        pause = self._decide(call, error, error, obstacle)
        if pause is None:
            _note(error, call.attempt)
        return pause

    def _after_rejection(self, call: Call[Any], error: CallRejectedError) -> float | None:
        pause = error.retry_after
        if not isinstance(error, RateLimitExceededError) or pause is None or not self.config.retryable(error):
            return None
        left = call.remaining()
        if isinf(left) or pause >= left or call.attempt >= self.config.max_attempts:
            return None
        if self.budget is not None and not self.budget.acquire():
            return None
        if call.heard(_RETRY):
            call.emit(_RETRY, error=error, detail=f"retrying in {pause:.2f}s")
        return pause

    def _after_result(self, call: Call[Any], result: object) -> float | None:
        pause = self._decide(call, None, result, None)
        if pause is None:
            call.ending = (EventType.FAILURE, None, "")
        return pause

    def _decide(
        self, call: Call[Any], error: BaseException | None, outcome: object, obstacle: str | None
    ) -> float | None:
        if call.attempt >= self.config.max_attempts or obstacle:
            self._give_up(call, error, "" if call.attempt >= self.config.max_attempts else obstacle or "")
            return None
        pause = self._pause(call.attempt, outcome)
        left = call.runtime.remaining(call.deadline)
        if pause >= left:
            self._give_up(call, error, f"no time for a wait of {pause:.2f}s: {max(left, 0.0):.2f}s left")
            return None
        if self.budget is not None and not self.budget.acquire():
            self._give_up(call, error, "retry budget exhausted")
            return None
        if call.heard(_RETRY):
            call.emit(_RETRY, error=error, detail=f"retrying in {pause:.2f}s")
        return pause

    def _pause(self, attempt: int, outcome: object) -> float:
        config = self.config
        if config.delay_func is not None:
            try:
                hint = backoff.clamped(config.delay_func(attempt, outcome), config.max_delay)
            except Exception:
                logger.warning("delay_func %r failed; using the normal backoff", config.delay_func, exc_info=True)
            else:
                if hint is not None:
                    return hint
        return config.backoff(attempt, sources.random() if config.jitter else 0.0)

    def _give_up(self, call: Call[Any], error: BaseException | None, detail: str) -> None:
        call.emit(EventType.RETRY_EXHAUSTED, error=error, detail=detail)


def _live_budget(budget: RetryBudget | RetryBudgetConfig) -> RetryBudget:
    from pyresilience.policies.retry_budget import RetryBudget, RetryBudgetConfig

    if isinstance(budget, RetryBudgetConfig):
        return RetryBudget(budget)
    if not isinstance(budget, RetryBudget):
        raise TypeError(f"budget must be a RetryBudget or RetryBudgetConfig, not {budget!r}")
    return budget


def _note(error: BaseException, attempts: int) -> None:
    """One note of ours, replaced when the same exception object comes again."""
    note = f"{NOTE}gave up after {attempts} attempt{'s' if attempts > 1 else ''}"
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        notes[:] = [other for other in notes if not (isinstance(other, str) and other.startswith(NOTE))]  # pyright: ignore[reportUnknownVariableType]
    error.add_note(note)
