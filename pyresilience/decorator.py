"""`resilient`: a pipeline in the standard order, from keywords."""

from __future__ import annotations

from collections.abc import Callable  # so that types can be asked for
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from pyresilience import _standard as standard
from pyresilience.events._bus import check_listeners

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyresilience.events._bus import Listener
    from pyresilience.pipeline._pipeline import Pipeline
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
        ValueError: a retry budget without a retry.
    """
    if fn is not None:
        if parts or name is not None:
            raise TypeError("resilient takes keywords or a function, not both: use @resilient(...) as a decorator")
        return standard.compose({"retry": standard.policy("retry").RetryConfig()}, None)(fn)
    unknown = parts.keys() - {*standard.PARTS}
    if unknown:
        raise TypeError(f"resilient() got unexpected keywords: {', '.join(sorted(unknown))}")
    if "listeners" in parts:
        parts["listeners"] = check_listeners("listeners", parts["listeners"])
    standard.check("resilient", parts)
    return standard.compose(parts, name)
