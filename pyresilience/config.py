"""`ResilienceConfig`: everything that `resilient` takes, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyresilience  # its names are looked up when somebody asks for the types of `ResilienceConfig`
from pyresilience import _standard as standard
from pyresilience.events._bus import Listener, check_listeners
from pyresilience.pipeline._pipeline import Pipeline  # noqa: TC001  # so that types can be asked for


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
        check_listeners("ResilienceConfig.listeners", self.listeners)
        standard.check("ResilienceConfig", self._parts())

    def pipeline(self, name: str | None = None) -> Pipeline:
        """A fresh pipeline in the standard order."""
        return standard.compose(self._parts(), name)

    def _parts(self) -> dict[str, Any]:
        return {part: getattr(self, part) for part in standard.PARTS}  # a subclass may keep them elsewhere
