"""The state of the named pipelines of this process as numbers, for whoever renders metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyresilience.events._names import MAX_FUNCTIONS, OTHER
from pyresilience.pipeline import _in_flight as in_flight
from pyresilience.pipeline import _inventory as inventory
from pyresilience.policies._circuit import CircuitState
from pyresilience.policies.bulkhead import Bulkhead
from pyresilience.policies.circuit_breaker import CircuitBreaker
from pyresilience.policies.rate_limiter import AsyncRateLimiter, RateLimiter

if TYPE_CHECKING:
    from pyresilience.pipeline._pipeline import Pipeline

_NAMESPACE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

CIRCUIT_STATES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
"""The number that stands for a state; the worse, the higher."""


@dataclass(slots=True)
class Reading:
    """All pipelines of one name at one moment; None for layers that they do not have.

    Attributes:
        in_flight: calls under way.
        circuit: the worst state, as in `CIRCUIT_STATES`.
        limit: permits of all bulkheads.
        in_use: permits that are taken.
        available: 1 when every rate limiter would admit a call at once, else 0.
    """

    in_flight: int = 0
    circuit: int | None = None
    limit: int | None = None
    in_use: int | None = None
    available: int | None = None

    def add(self, pipeline: Pipeline, calls: int, seen: set[int]) -> None:
        """Count a pipeline with so many `calls` in; `seen` has the layers of this name that were counted already."""
        self.in_flight += calls
        for layer in pipeline.layers:
            if id(layer) in seen:  # one layer, shared by several pipelines of this name
                continue
            seen.add(id(layer))
            if isinstance(layer, CircuitBreaker):
                self.circuit = max(self.circuit or 0, CIRCUIT_STATES[layer.state])
            elif isinstance(layer, Bulkhead):
                statistics = layer.statistics()
                self.limit = (self.limit or 0) + statistics.limit
                self.in_use = (self.in_use or 0) + statistics.in_use
            elif isinstance(layer, (RateLimiter, AsyncRateLimiter)):
                self.available = min(1 if self.available is None else self.available, int(layer.available))


GAUGES: tuple[tuple[str, str, Callable[[Reading], int | None]], ...] = (
    (
        "circuit_breaker_state",
        "State of the circuit breaker: 0 closed, 1 half-open, 2 open; the worst of a name.",
        lambda reading: reading.circuit,
    ),
    ("in_flight", "Calls under way.", lambda reading: reading.in_flight),
    ("bulkhead_limit", "Permits of the bulkhead.", lambda reading: reading.limit),
    ("bulkhead_in_use", "Permits of the bulkhead that are taken.", lambda reading: reading.in_use),
    (
        "rate_limiter_available",
        "Whether the rate limiter would admit a call at once: 1 if so, else 0.",
        lambda reading: reading.available,
    ),
)
"""Name, help text and value of each gauge."""


def check_namespace(field: str, namespace: str) -> None:
    """Raise TypeError or ValueError for what cannot begin the name of a metric."""
    if not isinstance(namespace, str):
        raise TypeError(f"{field} must be a str, not {namespace!r}")
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"{field} must begin with a letter or underscore and go on with letters, digits and underscores, "
            f"not {namespace!r}"
        )


def readings(label: Callable[[str], str], max_names: int = MAX_FUNCTIONS) -> dict[str, Reading]:
    """A reading for each name of a pipeline, made fit by `label`. Taking it uses up no token and no probe.

    Beyond `max_names`, those last in alphabetical order are counted together as `__other__`.
    """
    found: dict[str, Reading] = {}
    seen: dict[str, set[int]] = {}
    calls = in_flight.by_pipeline()
    for pipeline in inventory.pipelines():
        if pipeline.name is None:
            continue
        name = label(pipeline.name)
        if name not in found and len(found) >= max_names:
            name = OTHER
        found.setdefault(name, Reading()).add(pipeline, calls[pipeline], seen.setdefault(name, set()))
    return found
