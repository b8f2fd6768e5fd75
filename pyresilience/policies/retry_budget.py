"""Retry budget: a bucket of tokens that limits the extra load which retries put on a failing service."""

from __future__ import annotations

import threading
from dataclasses import KW_ONLY, dataclass

from pyresilience.policies import _validate as validate
from pyresilience.runtime import _sources as sources


@dataclass(frozen=True, slots=True)
class RetryBudgetConfig:
    """A bucket that starts full.

    Attributes:
        max_retries: tokens in a full bucket; each retry takes one.
        refill_rate: tokens that come back per second.
    """

    max_retries: int = 100
    refill_rate: float = 10.0
    _: KW_ONLY

    def __post_init__(self) -> None:
        validate.integer(self, "max_retries", 1)
        validate.number(self, "refill_rate", above=True, unit=" per second")


class TokenBucket:
    """Pure: time is an argument, in nanoseconds."""

    __slots__ = ("_per_nanosecond", "_size", "_stamp", "_tokens")

    def __init__(self, size: int, per_second: float, now: int) -> None:
        self._size = float(size)
        self._per_nanosecond = per_second / sources.NANOSECONDS
        self._tokens = self._size
        self._stamp = now

    def level(self, now: int) -> float:
        if now > self._stamp:
            self._tokens = min(self._size, self._tokens + (now - self._stamp) * self._per_nanosecond)
            self._stamp = now
        return self._tokens

    def take(self, now: int) -> bool:
        if self.level(now) < 1.0:
            return False
        self._tokens -= 1.0
        return True


class RetryBudget:
    """Shared by as many functions, threads and event loops as you like.

    Give it to `resilient(retry_budget=...)` or `Retry(config, budget=...)`. A retry that finds no token is not
    made: the last error surfaces at once.
    """

    def __init__(self, config: RetryBudgetConfig | None = None) -> None:
        config = validate.config_of(RetryBudgetConfig, config)
        self.config = config
        self._lock = threading.Lock()
        self._bucket = TokenBucket(config.max_retries, config.refill_rate, sources.now())

    def acquire(self) -> bool:
        """Take a token for one retry; False when there is none. Never waits."""
        now = sources.now()
        with self._lock:
            return self._bucket.take(now)

    @property
    def available(self) -> int:
        """Whole tokens in the bucket now."""
        now = sources.now()
        with self._lock:
            return int(self._bucket.level(now))

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RetryBudget(available={self.available} of {self.config.max_retries})"
