"""A pipeline for each host, in a bounded map."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    Listener,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    RetryBudget,
    RetryBudgetConfig,
    RetryConfig,
    Timeout,
    TimeoutConfig,
)
from pyresilience.events._bus import check_listener
from pyresilience.pipeline import _in_flight as in_flight
from pyresilience_middleware.outbound._http import ErrorKinds, UnsuccessfulResponse, host_key
from pyresilience_middleware.outbound._layers import Handover, HttpRetry, Judging, Sending

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyresilience.pipeline._pipeline import Member

DEFAULT_RETRY = RetryConfig(delay=0.5)
DEFAULT_CIRCUIT_BREAKER = CircuitBreakerConfig()
DEFAULT_RETRY_BUDGET = RetryBudgetConfig()
DEFAULT_MAX_HOSTS = 1000

BATCH = 50
"""One host of so many is dropped at once: to find out which are idle, all calls in flight are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPolicies:
    """What guards every host. Configs build fresh layers for each of them; live layers are shared by all.

    Raises:
        TypeError: a field holds something else than its config or layer.
    """

    retry: RetryConfig | None = DEFAULT_RETRY
    timeout: TimeoutConfig | None = None
    circuit_breaker: CircuitBreakerConfig | None = DEFAULT_CIRCUIT_BREAKER
    bulkhead: BulkheadConfig | Bulkhead | None = None
    rate_limiter: RateLimiterConfig | RateLimiter | None = None
    retry_budget: RetryBudgetConfig | RetryBudget | None = DEFAULT_RETRY_BUDGET
    listeners: Iterable[Listener] = ()

    def __post_init__(self) -> None:
        self._check("retry", RetryConfig)
        self._check("timeout", TimeoutConfig)
        self._check("circuit_breaker", CircuitBreakerConfig)
        self._check("bulkhead", BulkheadConfig, Bulkhead)
        self._check("rate_limiter", RateLimiterConfig, RateLimiter)
        self._check("retry_budget", RetryBudgetConfig, RetryBudget)
        object.__setattr__(self, "listeners", tuple(self.listeners))
        for listener in self.listeners:
            check_listener(listener)
        if isinstance(self.retry_budget, RetryBudgetConfig):
            object.__setattr__(self, "retry_budget", RetryBudget(self.retry_budget))

    def _check(self, field: str, *kinds: type[Any]) -> None:
        value = getattr(self, field)
        if value is not None and not isinstance(value, kinds):
            allowed = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{field} must be None or a {allowed}, not {value!r}")

    def pipeline(self, name: str, kinds: ErrorKinds) -> Pipeline:
        """A pipeline for one host, in the standard order."""
        members: list[Member] = [Handover()]
        if self.retry is not None:
            assert not isinstance(self.retry_budget, RetryBudgetConfig)
            retry = HttpRetry(self.retry, budget=self.retry_budget)
            members += (retry, Judging(retry.statuses))
        if self.circuit_breaker is not None:
            members.append(CircuitBreaker(_judging_http(self.circuit_breaker, kinds), name=name))
        limiter, bulkhead = self.rate_limiter, self.bulkhead
        if limiter is not None:
            members.append(RateLimiter(limiter, name=name) if isinstance(limiter, RateLimiterConfig) else limiter)
        if bulkhead is not None:
            members.append(Bulkhead(bulkhead, name=name) if isinstance(bulkhead, BulkheadConfig) else bulkhead)
        if self.timeout is not None:
            members.append(Timeout(self.timeout))
        return Pipeline(*members, Sending(), name=name, listeners=self.listeners)


def _judging_http(config: CircuitBreakerConfig, kinds: ErrorKinds) -> CircuitBreakerConfig:
    """Server errors count as failures whatever the user named; errors that are our own say nothing of the server."""
    return replace(
        config,
        error_types=(*config.error_types, UnsuccessfulResponse),
        ignore_on=(*config.ignore_on, *kinds.local, *kinds.misuse),
    )


@dataclass(slots=True)
class Host:
    """One host: its pipeline, and the client's sending function guarded by it."""

    pipeline: Pipeline
    send: Callable[..., Any]


class Hosts:
    """The hosts that were used last. Thread-safe.

    One that has calls in flight is never dropped, so there may be more than `max_hosts` while they all do.

    Raises:
        TypeError: `max_hosts` is no int.
        ValueError: `max_hosts` is less than 1.
    """

    def __init__(
        self, policies: HostPolicies, kinds: ErrorKinds, send: Callable[..., Any], max_hosts: int = DEFAULT_MAX_HOSTS
    ) -> None:
        if isinstance(max_hosts, bool) or not isinstance(max_hosts, int):
            raise TypeError(f"max_hosts must be an int, not {max_hosts!r}")
        if max_hosts < 1:
            raise ValueError(f"max_hosts must be at least 1, not {max_hosts!r}")
        self._policies = policies
        self._kinds = kinds
        self._send = send
        self._max_hosts = max_hosts
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    def get(self, scheme: str, host: str, port: int | None) -> Host:
        """The host, as new if it has not been used for long."""
        key, authority = host_key(scheme, host, port)
        with self._lock:
            known = self._hosts.get(key)
            if known is not None:
                self._hosts.move_to_end(key)
                return known
            fresh = self._hosts[key] = self._build(key, authority)
            if len(self._hosts) > self._max_hosts:
                self._evict(key)
            return fresh

    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines by `scheme://host:port`, least recently used first."""
        with self._lock:
            return {key: host.pipeline for key, host in self._hosts.items()}

    def _build(self, key: str, authority: str) -> Host:
        pipeline = self._policies.pipeline(authority, self._kinds)
        send = pipeline(self._send)
        pipeline.name = key  # events show host:port; health and metrics of pipelines also tell the schemes apart
        return Host(pipeline, send)

    def _evict(self, newest: str) -> None:
        busy = in_flight.by_pipeline()
        idle = (key for key, host in self._hosts.items() if key != newest and host.pipeline not in busy)
        for key in list(islice(idle, 1 + self._max_hosts // BATCH)):
            del self._hosts[key]
