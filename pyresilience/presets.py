"""Keyword dictionaries for `resilient`, with values that suit a kind of upstream: `resilient(**http_policy())`.

Every value can be overridden by keyword. A preset is a starting point: the right numbers are those of your service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from pyresilience.policies.bulkhead import BulkheadConfig
from pyresilience.policies.cache import CacheConfig
from pyresilience.policies.circuit_breaker import CircuitBreakerConfig
from pyresilience.policies.fallback import FallbackConfig
from pyresilience.policies.rate_limiter import RateLimiterConfig
from pyresilience.policies.retry import RetryConfig
from pyresilience.policies.timeout import TimeoutConfig

if TYPE_CHECKING:
    from pyresilience.events._bus import Listener

C = TypeVar("C", RetryConfig, CircuitBreakerConfig, BulkheadConfig)


class Policy(TypedDict, total=False):
    """Keywords of `resilient`."""

    retry: RetryConfig
    timeout: TimeoutConfig
    circuit_breaker: CircuitBreakerConfig
    fallback: FallbackConfig
    bulkhead: BulkheadConfig
    rate_limiter: RateLimiterConfig
    cache: CacheConfig
    listeners: Iterable[Listener]


class PresetOptions(TypedDict, total=False):
    """Keywords that every preset takes.

    Attributes:
        timeout_seconds: limit of one attempt.
        max_attempts: attempts in all.
        retry_delay: seconds of backoff after the first attempt.
        circuit_failure_threshold: failures in a row that open the circuit.
        circuit_recovery_seconds: seconds that it stays open.
        max_concurrent: calls that may run at one time.
        rate_limit: calls per second, or a `RateLimiterConfig`.
        cache: True for the default cache, or a `CacheConfig`.
        fallback: a `FallbackConfig`, or what its `handler` would be.
        listeners: callables that receive each event.
        retry_on: errors worth another attempt.
    """

    timeout_seconds: float
    max_attempts: int
    retry_delay: float
    circuit_failure_threshold: int
    circuit_recovery_seconds: float
    max_concurrent: int | None
    rate_limit: int | RateLimiterConfig | None
    cache: bool | CacheConfig | None
    fallback: object
    listeners: Iterable[Listener]
    retry_on: Sequence[type[BaseException]]


def http_policy(**options: Unpack[PresetOptions]) -> Policy:
    """For HTTP APIs: 10 s, 3 attempts from 0.5 s doubling to 30 s, a circuit of 5 failures, 30 s, 2 successes."""
    return _policy(
        options,
        timeout=10.0,
        retry=RetryConfig(max_attempts=3, delay=0.5, backoff_factor=2.0, max_delay=30.0),
        circuit=CircuitBreakerConfig(failure_threshold=5, recovery_timeout=30.0, success_threshold=2),
    )


def db_policy(**options: Unpack[PresetOptions]) -> Policy:
    """For databases: 30 s, 2 attempts from 1 s, a circuit of 3 failures and 60 s, 10 calls at a time, 5 s of waiting.

    The timeout runs sync functions in a worker thread. A driver that is bound to one thread, such as `sqlite3`,
    needs `timeout=TimeoutConfig(30, in_thread=False)` in place of the preset's.
    """
    return _policy(
        options,
        timeout=30.0,
        retry=RetryConfig(max_attempts=2, delay=1.0, backoff_factor=1.5, max_delay=10.0),
        circuit=CircuitBreakerConfig(failure_threshold=3, recovery_timeout=60.0, success_threshold=1),
        bulkhead=BulkheadConfig(max_concurrent=10, max_wait=5.0),
    )


def queue_policy(**options: Unpack[PresetOptions]) -> Policy:
    """For message queues: 15 s, 5 attempts from 2 s doubling to 60 s, a circuit of 10 failures, 60 s, 3 successes."""
    return _policy(
        options,
        timeout=15.0,
        retry=RetryConfig(max_attempts=5, delay=2.0, backoff_factor=2.0, max_delay=60.0),
        circuit=CircuitBreakerConfig(failure_threshold=10, recovery_timeout=60.0, success_threshold=3),
    )


def strict_policy(**options: Unpack[PresetOptions]) -> Policy:
    """For calls that must answer fast or not at all: 5 s, one attempt, a circuit of 3 failures, 60 s, 1 success."""
    return _policy(
        options,
        timeout=5.0,
        retry=RetryConfig(max_attempts=1, jitter=False),
        circuit=CircuitBreakerConfig(failure_threshold=3, recovery_timeout=60.0, success_threshold=1),
    )


def llm_policy(
    *,
    max_calls: int = 60,
    period: float = 60.0,
    retry_on_status_codes: Sequence[int] = (429, 500, 502, 503, 504),
    retry_after_max_wait: float = 60.0,
    ignore_on: Sequence[type[BaseException]] = (),
    **options: Unpack[PresetOptions],
) -> Policy:
    """For language models behind HTTP: 60 s, 4 attempts from 1 s, `Retry-After` up to 60 s, 60 calls per 60 s.

    Args:
        max_calls: calls per `period`.
        period: seconds.
        retry_on_status_codes: status codes of results that count as failures.
        retry_after_max_wait: the longest `Retry-After` that is waited for, in seconds.
        ignore_on: terminal errors, such as a refused key or an exhausted quota, that are never retried.
        options: as for every preset.
    """
    from pyresilience.contrib.http import retry_after_delay, retry_on_status  # its patterns take time to compile

    options.setdefault("rate_limit", RateLimiterConfig(max_calls=max_calls, period=period))
    return _policy(
        options,
        timeout=60.0,
        retry=RetryConfig(
            max_attempts=4,
            delay=1.0,
            max_delay=min(max(60.0, retry_after_max_wait), 1e9),
            retry_on_result=retry_on_status(*retry_on_status_codes),
            delay_func=retry_after_delay(retry_after_max_wait),
            ignore_on=ignore_on,
        ),
        circuit=CircuitBreakerConfig(failure_threshold=5, recovery_timeout=30.0, ignore_on=ignore_on),
    )


def _policy(
    options: PresetOptions,
    *,
    timeout: float,
    retry: RetryConfig,
    circuit: CircuitBreakerConfig,
    bulkhead: BulkheadConfig | None = None,
) -> Policy:
    unknown = options.keys() - PresetOptions.__annotations__.keys()
    if unknown:
        known = ", ".join(sorted(PresetOptions.__annotations__))
        raise TypeError(f"a preset does not take {', '.join(sorted(unknown))}; it takes {known}")
    policy: Policy = {
        "timeout": TimeoutConfig(seconds=options.get("timeout_seconds", timeout)),
        "retry": _changed(
            retry,
            max_attempts=options.get("max_attempts"),
            delay=options.get("retry_delay"),
            retry_on=options.get("retry_on"),
        ),
        "circuit_breaker": _changed(
            circuit,
            failure_threshold=options.get("circuit_failure_threshold"),
            recovery_timeout=options.get("circuit_recovery_seconds"),
        ),
    }
    max_concurrent = options.get("max_concurrent", bulkhead.max_concurrent if bulkhead else None)
    if max_concurrent is not None:
        policy["bulkhead"] = _changed(bulkhead or BulkheadConfig(), max_concurrent=max_concurrent)
    rate_limit = options.get("rate_limit")
    if rate_limit is not None:
        if not isinstance(rate_limit, RateLimiterConfig):
            rate_limit = RateLimiterConfig(max_calls=rate_limit)
        policy["rate_limiter"] = rate_limit
    cache = options.get("cache")
    if cache:
        if not isinstance(cache, (bool, CacheConfig)):
            raise TypeError(f"cache must be True or a CacheConfig, not {cache!r}")
        policy["cache"] = CacheConfig() if cache is True else cache
    fallback = options.get("fallback")
    if fallback is not None:
        policy["fallback"] = fallback if isinstance(fallback, FallbackConfig) else FallbackConfig(handler=fallback)
    if "listeners" in options:
        policy["listeners"] = options["listeners"]
    return policy


def _changed(config: C, **changes: Any) -> C:
    return replace(config, **{field: value for field, value in changes.items() if value is not None})
