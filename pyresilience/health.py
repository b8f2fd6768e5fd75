"""The state of guarded functions, for dashboards and health endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from pyresilience.pipeline import _in_flight as in_flight
from pyresilience.pipeline import _inventory as inventory
from pyresilience.policies.circuit_breaker import CircuitBreaker
from pyresilience.policies.rate_limiter import AsyncRateLimiter, RateLimiter

if TYPE_CHECKING:
    from collections import Counter

    from pyresilience.pipeline._pipeline import Pipeline
    from pyresilience.registry import ResilienceRegistry


class FunctionHealth(TypedDict):
    """One entry of `health_check`.

    Attributes:
        circuit_breaker: `closed`, `open` or `half_open`; None without a circuit breaker.
        in_flight: calls under way.
        rate_limiter_available: whether a call would be admitted at once; True without a rate limiter.
    """

    circuit_breaker: str | None
    in_flight: int
    rate_limiter_available: bool


def health_check(registry: ResilienceRegistry) -> dict[str, FunctionHealth]:
    """The state behind each name of a registry. Asking changes nothing: no token is taken, no probe is used up."""
    return _health({name: [pipeline] for name, pipeline in registry.pipelines().items()})


def inventory_health() -> dict[str, FunctionHealth]:
    """The state of all named pipelines of this process that are still in use; those of one name count as one.

    Of several circuit breakers under one name the worst state is shown.
    """
    groups: dict[str, list[Pipeline]] = {}
    for pipeline in inventory.pipelines():
        if pipeline.name is not None:
            groups.setdefault(pipeline.name, []).append(pipeline)
    return _health(groups)


_SEVERITY = {"closed": 0, "half_open": 1, "open": 2}


def _health(groups: dict[str, list[Pipeline]]) -> dict[str, FunctionHealth]:
    calls = in_flight.by_pipeline()
    return {name: _merged(group, calls) for name, group in groups.items()}


def _merged(pipelines: list[Pipeline], calls: Counter[Pipeline]) -> FunctionHealth:
    states: list[str] = []
    available = True
    for pipeline in pipelines:
        for layer in pipeline.layers:
            if isinstance(layer, CircuitBreaker):
                states.append(layer.state.value)
            elif isinstance(layer, (RateLimiter, AsyncRateLimiter)):
                available = available and layer.available
    worst = max(states, key=lambda state: _SEVERITY[state], default=None)
    return {
        "circuit_breaker": worst,
        "in_flight": sum(calls[pipeline] for pipeline in pipelines),
        "rate_limiter_available": available,
    }
