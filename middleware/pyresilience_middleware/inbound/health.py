"""Whether this process should get requests, and how its guarded functions are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyresilience import (
    AsyncRateLimiter,
    Bulkhead,
    CircuitBreaker,
    CircuitState,
    RateLimiter,
    ResilienceRegistry,
    health_check,
)
from pyresilience.health import inventory_health
from pyresilience.pipeline._inventory import pipelines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyresilience import Pipeline
    from pyresilience_middleware.inbound.types import ASGIApp, Message, Receive, Scope, Send

PASS, WARN, FAIL = "pass", "warn", "fail"
_SEVERITY = {PASS: 0, WARN: 1, FAIL: 2}


class Readiness:
    """Whether the app has started and is not about to stop.

    Each `ResilienceMiddleware` has one of its own. Make it yourself to share it with an admin port, or to `drain`
    before a shutdown that load balancers should see coming.

    Before the app says that its startup is complete it is not ready. Where the server runs no lifespan, or the app
    does not support it, it is ready at once.
    """

    __slots__ = ("_draining", "_starting")

    def __init__(self) -> None:
        self._starting = False
        self._draining = False

    def __repr__(self) -> str:
        return f"Readiness(started={self.started}, draining={self._draining})"

    @property
    def started(self) -> bool:
        """Whether startup is complete."""
        return not self._starting

    @property
    def ready(self) -> bool:
        """Whether requests are welcome: started and not draining."""
        return not self._starting and not self._draining

    def drain(self) -> None:
        """Answer `/health/ready` with 503 from now on. Requests are served as before."""
        self._draining = True

    async def watch(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of `app`, every message passed on as it is, and learn from it."""
        self._starting = True
        self._draining = False
        failed = False

        async def hear() -> Message:
            message = await receive()
            if message.get("type") == "lifespan.shutdown":
                self.drain()
            return message

        async def tell(message: Message) -> None:
            nonlocal failed
            kind = message.get("type")
            failed = failed or kind == "lifespan.startup.failed"
            if kind == "lifespan.startup.complete":
                self._starting = False
            await send(message)

        try:
            await app(scope, hear, tell)
        finally:
            self._starting = failed


class Health:
    """The state of the functions of a registry, or else of all named pipelines of the process."""

    def __init__(
        self,
        *,
        registry: ResilienceRegistry | None,
        critical: Iterable[str],
        details: bool,
        version: str | None,
        service_id: str | None,
        readiness: Readiness,
    ) -> None:
        if isinstance(critical, str) or not isinstance(critical, Iterable):
            raise TypeError(f"critical must be a collection of names, not {critical!r}")
        if registry is not None and not isinstance(registry, ResilienceRegistry):
            raise TypeError(f"registry must be a ResilienceRegistry or None, not {registry!r}")
        if not isinstance(details, bool):
            raise TypeError(f"details must be True or False, not {details!r}")
        if not isinstance(readiness, Readiness):
            raise TypeError(f"readiness must be a Readiness, not {readiness!r}")
        for field, text in (("version", version), ("service_id", service_id)):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"{field} must be a str or None, not {text!r}")
        self._registry = registry
        self._critical = frozenset(critical)
        for name in self._critical:
            if not isinstance(name, str):
                raise TypeError(f"critical must contain names only, not {name!r}")
        self._details = details
        self._about = {"version": version, "serviceId": service_id}
        self.readiness = readiness

    def report(self) -> dict[str, Any]:
        """The body of `/health`: `status`, and with details `checks` and `functions`."""
        checks = self._checks()
        status = max((entry["status"] for (entry,) in checks.values()), key=_SEVERITY.__getitem__, default=PASS)
        report: dict[str, Any] = {"status": status}
        if self._details:
            report.update({name: value for name, value in self._about.items() if value is not None})
            report["checks"] = checks
            registry = self._registry
            report["functions"] = inventory_health() if registry is None else health_check(registry)
        return report

    def ready(self) -> bool:
        """Whether requests are welcome and can be served: no critical circuit refuses them."""
        return self.readiness.ready and not any(
            _refuses(layer)
            for name, members in self._pipelines().items()
            if name in self._critical
            for pipeline in members
            for layer in pipeline.layers
        )

    def _pipelines(self) -> dict[str, list[Pipeline]]:
        groups: dict[str, list[Pipeline]] = {}
        if self._registry is not None:
            return {name: [pipeline] for name, pipeline in self._registry.pipelines().items()}
        for pipeline in pipelines():
            if pipeline.name is not None:
                groups.setdefault(pipeline.name, []).append(pipeline)
        return groups

    def _checks(self) -> dict[str, list[dict[str, Any]]]:
        groups = self._pipelines()
        checks: dict[str, list[dict[str, Any]]] = {}
        for name, members in groups.items():
            for pipeline in members:
                for measurement, entry in _entries(pipeline, name in self._critical):
                    known = checks.setdefault(f"{name}:{measurement}", [entry])
                    if _SEVERITY[entry["status"]] > _SEVERITY[known[0]["status"]]:
                        known[0] = entry
        for name in sorted(self._critical - groups.keys()):
            entry = {"componentType": "component", "status": WARN, "output": "no function of this name exists yet"}
            checks[f"{name}:circuit_breaker"] = [entry]
        return checks


def _entries(pipeline: Pipeline, critical: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for layer in pipeline.layers:
        entry: dict[str, Any] = {"componentType": "component"}
        if isinstance(layer, CircuitBreaker):
            state = layer.state
            entry["observedValue"] = state.value
            entry["status"] = PASS if state is CircuitState.CLOSED else WARN
            if critical and _refuses(layer):
                entry["status"] = FAIL
            yield "circuit_breaker", entry
        elif isinstance(layer, (RateLimiter, AsyncRateLimiter)):
            available = layer.available
            yield "rate_limiter", {**entry, "observedValue": available, "status": PASS if available else WARN}
        elif isinstance(layer, Bulkhead):
            statistics = layer.statistics()
            entry.update(observedValue=statistics.in_use, observedUnit="permits", limit=statistics.limit)
            entry["status"] = PASS if statistics.in_use < statistics.limit else WARN
            yield "bulkhead", entry


def _refuses(layer: object) -> bool:
    """Whether a circuit is open and would not let even a probe through.

    An open circuit turns half-open when the next call asks. If it still counted as open after its recovery time, an
    instance that gets no requests because it is not ready would never ask, and so never be ready again.
    """
    return isinstance(layer, CircuitBreaker) and layer.state is CircuitState.OPEN and layer.refusing
