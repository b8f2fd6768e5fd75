"""`resilient`: a pipeline in the standard order, from keywords."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import pyresilience  # noqa: TC001  # its names are looked up when somebody asks for the types of `ResilienceConfig`
from pyresilience.events._bus import Listener, check_listeners
from pyresilience.pipeline._pipeline import Member, Pipeline

if TYPE_CHECKING:
    from pyresilience.policies.bulkhead import Bulkhead, BulkheadConfig
    from pyresilience.policies.cache import Cache, CacheConfig
    from pyresilience.policies.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
    from pyresilience.policies.fallback import Fallback, FallbackConfig
    from pyresilience.policies.rate_limiter import RateLimiter, RateLimiterConfig
    from pyresilience.policies.retry import Retry, RetryConfig
    from pyresilience.policies.retry_budget import RetryBudget, RetryBudgetConfig
    from pyresilience.policies.timeout import Timeout, TimeoutConfig

P = ParamSpec("P")
R = TypeVar("R")

ORDER = ("fallback", "cache", "retry", "circuit_breaker", "rate_limiter", "bulkhead", "timeout")
"""The standard order, outermost first. A total timeout goes between cache and retry by itself."""

_CLASSES = {
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


def _policy(part: str) -> Any:
    return import_module(f"pyresilience.policies.{part}")


@dataclass(frozen=True)
class ResilienceConfig:
    """Everything that `resilient` takes, as one value; for `ResilienceRegistry`.

    Raises:
        TypeError: a field holds something else than its config or layer.
        ValueError: a retry budget without a retry.
    """

    retry: pyresilience.RetryConfig | pyresilience.Retry | None = None
    timeout: pyresilience.TimeoutConfig | pyresilience.Timeout | None = None
    circuit_breaker: pyresilience.CircuitBreakerConfig | pyresilience.CircuitBreaker | None = None
    fallback: pyresilience.FallbackConfig | pyresilience.Fallback | None = None
    bulkhead: pyresilience.BulkheadConfig | pyresilience.Bulkhead | None = None
    rate_limiter: pyresilience.RateLimiterConfig | pyresilience.RateLimiter | None = None
    cache: pyresilience.CacheConfig | pyresilience.Cache | None = None
    retry_budget: pyresilience.RetryBudgetConfig | pyresilience.RetryBudget | None = None
    listeners: Sequence[Listener] = field(default_factory=list[Listener])

    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # listeners need not be hashable

    def __post_init__(self) -> None:
        for part, names in _CLASSES.items():
            value = getattr(self, part)
            if value is not None and not isinstance(value, tuple(getattr(_policy(part), name) for name in names)):
                raise TypeError(f"ResilienceConfig.{part} must be a {' or '.join(names)}, not {value!r}")
        check_listeners("ResilienceConfig.listeners", self.listeners)
        if self.retry_budget is not None and self.retry is None:
            raise ValueError("ResilienceConfig.retry_budget limits retries and needs `retry` beside it")
        if self.retry_budget is not None and isinstance(self.retry, _policy("retry").Retry):
            raise ValueError("ResilienceConfig.retry_budget: give the budget to Retry(config, budget=...) instead")

    def pipeline(self, name: str | None = None) -> Pipeline:
        """A fresh pipeline in the standard order."""
        members: list[Member] = []
        for part in ORDER:
            member = getattr(self, part)
            if part == "retry" and self.retry_budget is not None:
                member = _policy("retry").Retry(member, budget=self.retry_budget)
            if member is not None:
                members.append(member)
        return Pipeline(*members, name=name, listeners=self.listeners)


@overload
def resilient(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def resilient(
    *,
    retry: RetryConfig | Retry | None = None,
    timeout: TimeoutConfig | Timeout | None = None,
    circuit_breaker: CircuitBreakerConfig | CircuitBreaker | None = None,
    fallback: FallbackConfig | Fallback | None = None,
    bulkhead: BulkheadConfig | Bulkhead | None = None,
    rate_limiter: RateLimiterConfig | RateLimiter | None = None,
    cache: CacheConfig | Cache | None = None,
    retry_budget: RetryBudgetConfig | RetryBudget | None = None,
    listeners: Iterable[Listener] = (),
    name: str | None = None,
) -> Pipeline: ...
def resilient(fn: Callable[..., Any] | None = None, /, *, name: str | None = None, **parts: Any) -> Any:
    """Guard a function, `async def` or `def`, with the policies that are named, in the standard order:

    `fallback > cache > total timeout > retry > circuit breaker > rate limiter > bulkhead > attempt timeout`

    ```python
    @resilient(retry=RetryConfig(max_attempts=3), timeout=TimeoutConfig(seconds=2))
    async def fetch(url: str) -> bytes: ...
    ```

    Bare `@resilient`, without parentheses, means the default retry. Each keyword takes a config, or a live layer to
    share its state with other functions. The object that `resilient(...)` returns is a `Pipeline`; applied to
    several functions it shares its state among them.

    Args:
        name: shown in events, health and metrics in place of the function's name.
        listeners: callables that receive each `ResilienceEvent`.

    Raises:
        TypeError: an argument is not the config or layer that its keyword asks for.
    """
    if fn is not None:
        if parts or name is not None:
            raise TypeError("resilient takes keywords or a function, not both: use @resilient(...) as a decorator")
        return ResilienceConfig(retry=_policy("retry").RetryConfig()).pipeline()(fn)
    unknown = parts.keys() - {part.name for part in fields(ResilienceConfig)}
    if unknown:
        raise TypeError(f"resilient() got unexpected keywords: {', '.join(sorted(unknown))}")
    if "listeners" in parts:
        parts["listeners"] = check_listeners("listeners", parts["listeners"])
    return ResilienceConfig(**parts).pipeline(name)
