"""Composable async resilience layers for Python services."""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from pyresilience.config import ResilienceConfig
    from pyresilience.decorator import resilient
    from pyresilience.errors import (
        BulkheadFullError,
        CallRejectedError,
        CircuitOpenError,
        RateLimitExceededError,
        ResilienceError,
        ResilienceTimeoutError,
    )
    from pyresilience.events._bus import Listener
    from pyresilience.events._events import EventType, ResilienceEvent, resilience_context
    from pyresilience.events._json_log import JsonEventLogger
    from pyresilience.events._metrics import MetricsCollector
    from pyresilience.health import health_check
    from pyresilience.pipeline._call import Call, CallNext, Layer
    from pyresilience.pipeline._context import remaining_time
    from pyresilience.pipeline._inventory import (
        enable_in_flight_tracking,
        get_in_flight_count,
        shutdown,
        shutdown_async,
        subscribe,
        unsubscribe,
    )
    from pyresilience.pipeline._pipeline import Pipeline
    from pyresilience.policies._circuit import CircuitState
    from pyresilience.policies.bulkhead import Bulkhead, BulkheadConfig
    from pyresilience.policies.cache import Cache, CacheConfig
    from pyresilience.policies.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
    from pyresilience.policies.fallback import Fallback, FallbackConfig
    from pyresilience.policies.rate_limiter import AsyncRateLimiter, RateLimiter, RateLimiterConfig
    from pyresilience.policies.result_cache import AsyncResultCache, ResultCache
    from pyresilience.policies.retry import Retry, RetryConfig
    from pyresilience.policies.retry_budget import RetryBudget, RetryBudgetConfig
    from pyresilience.policies.timeout import Timeout, TimeoutConfig
    from pyresilience.presets import db_policy, http_policy, llm_policy, queue_policy, strict_policy
    from pyresilience.registry import ResilienceRegistry
    from pyresilience.runtime._hold import Hold

__version__ = "0.1.0"

__all__ = [
    "AsyncRateLimiter",
    "AsyncResultCache",
    "Bulkhead",
    "BulkheadConfig",
    "BulkheadFullError",
    "Cache",
    "CacheConfig",
    "Call",
    "CallNext",
    "CallRejectedError",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitOpenError",
    "CircuitState",
    "EventType",
    "Fallback",
    "FallbackConfig",
    "Hold",
    "JsonEventLogger",
    "Layer",
    "Listener",
    "MetricsCollector",
    "Pipeline",
    "RateLimitExceededError",
    "RateLimiter",
    "RateLimiterConfig",
    "ResilienceConfig",
    "ResilienceError",
    "ResilienceEvent",
    "ResilienceRegistry",
    "ResilienceTimeoutError",
    "ResultCache",
    "Retry",
    "RetryBudget",
    "RetryBudgetConfig",
    "RetryConfig",
    "Timeout",
    "TimeoutConfig",
    "__version__",
    "db_policy",
    "enable_in_flight_tracking",
    "get_in_flight_count",
    "health_check",
    "http_policy",
    "llm_policy",
    "queue_policy",
    "remaining_time",
    "resilience_context",
    "resilient",
    "shutdown",
    "shutdown_async",
    "strict_policy",
    "subscribe",
    "unsubscribe",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "config": ("ResilienceConfig",),
    "decorator": ("resilient",),
    "errors": (
        "BulkheadFullError",
        "CallRejectedError",
        "CircuitOpenError",
        "RateLimitExceededError",
        "ResilienceError",
        "ResilienceTimeoutError",
    ),
    "events._bus": ("Listener",),
    "events._events": (
        "EventType",
        "ResilienceEvent",
        "resilience_context",
    ),
    "events._json_log": ("JsonEventLogger",),
    "events._metrics": ("MetricsCollector",),
    "health": ("health_check",),
    "pipeline._call": (
        "Call",
        "CallNext",
        "Layer",
    ),
    "pipeline._context": ("remaining_time",),
    "pipeline._inventory": (
        "enable_in_flight_tracking",
        "get_in_flight_count",
        "shutdown",
        "shutdown_async",
        "subscribe",
        "unsubscribe",
    ),
    "pipeline._pipeline": ("Pipeline",),
    "policies._circuit": ("CircuitState",),
    "policies.bulkhead": (
        "Bulkhead",
        "BulkheadConfig",
    ),
    "policies.cache": (
        "Cache",
        "CacheConfig",
    ),
    "policies.circuit_breaker": (
        "CircuitBreaker",
        "CircuitBreakerConfig",
    ),
    "policies.fallback": (
        "Fallback",
        "FallbackConfig",
    ),
    "policies.rate_limiter": (
        "AsyncRateLimiter",
        "RateLimiter",
        "RateLimiterConfig",
    ),
    "policies.result_cache": (
        "AsyncResultCache",
        "ResultCache",
    ),
    "policies.retry": (
        "Retry",
        "RetryConfig",
    ),
    "policies.retry_budget": (
        "RetryBudget",
        "RetryBudgetConfig",
    ),
    "policies.timeout": (
        "Timeout",
        "TimeoutConfig",
    ),
    "presets": (
        "db_policy",
        "http_policy",
        "llm_policy",
        "queue_policy",
        "strict_policy",
    ),
    "registry": ("ResilienceRegistry",),
    "runtime._hold": ("Hold",),
}
"""Where the public names are at home. A module is imported when one of its names is first asked for."""

_HOME = {name: home for home, names in _HOMES.items() for name in names}


_MODULES = frozenset(
    {"config", "contrib", "decorator", "errors", "health", "policies", "presets", "registry", "testing"}
)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f"{__name__}.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
