"""The standard order: a pipeline from the keywords of `resilient`, which are the fields of `ResilienceConfig`.

Apart from both, as making that dataclass takes a tenth of what importing a guarded function does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyresilience.pipeline._pipeline import Member, Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

ORDER = ("fallback", "cache", "retry", "circuit_breaker", "rate_limiter", "bulkhead", "timeout")
"""The standard order, outermost first. A total timeout goes between cache and retry by itself."""

CLASSES = {
    "retry": ("RetryConfig", "Retry"),
    "timeout": ("TimeoutConfig", "Timeout"),
    "circuit_breaker": ("CircuitBreakerConfig", "CircuitBreaker"),
    "fallback": ("FallbackConfig", "Fallback"),
    "bulkhead": ("BulkheadConfig", "Bulkhead"),
    "rate_limiter": ("RateLimiterConfig", "RateLimiter"),
    "cache": ("CacheConfig", "Cache"),
    "retry_budget": ("RetryBudgetConfig", "RetryBudget"),
}
"""What each keyword takes. The module of that name is imported when a value for it is given."""

PARTS = (*CLASSES, "listeners")


def policy(part: str) -> Any:
    """The module of a policy."""
    return import_module(f"pyresilience.policies.{part}")


def check(owner: str, parts: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for what cannot be in a pipeline; `owner` begins the message."""
    for part, names in CLASSES.items():
        value = parts.get(part)
        if value is not None and not isinstance(value, tuple(getattr(policy(part), name) for name in names)):
            raise TypeError(f"{owner}.{part} must be a {' or '.join(names)}, not {value!r}")
    retry, budget = parts.get("retry"), parts.get("retry_budget")
    if budget is not None and retry is None:
        raise ValueError(f"{owner}.retry_budget limits retries and needs `retry` beside it")
    if budget is not None and isinstance(retry, policy("retry").Retry):
        raise ValueError(f"{owner}.retry_budget: give the budget to Retry(config, budget=...) instead")


def compose(parts: Mapping[str, Any], name: str | None) -> Pipeline:
    """A fresh pipeline of parts that were checked."""
    members: list[Member] = []
    for part in ORDER:
        member = parts.get(part)
        if part == "retry" and parts.get("retry_budget") is not None:
            member = policy("retry").Retry(member, budget=parts["retry_budget"])
        if member is not None:
            members.append(member)
    return Pipeline(*members, name=name, listeners=parts.get("listeners", ()))
