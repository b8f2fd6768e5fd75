"""What goes around a client: around its transport, or around its method `get`, as far as its library lets it.

All do what our transport does by default, as far as they can: three attempts, exponential waits, and a circuit that
opens after five failures in a row. Where a function is guarded it raises what is no success, so that statuses count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.model import library

Get = Callable[[str], Awaitable[Any]]
ATTEMPTS = 3
DELAY = 0.5
THRESHOLD = 5


def unguarded_transport(transport: Any) -> Any:
    return transport


def guarded(transport: Any) -> Any:
    from pyresilience_middleware import ResilienceTransport

    return ResilienceTransport(transport)


def guarded_httpx(transport: Any) -> Any:
    from pyresilience_middleware.outbound.httpx import ResilienceTransport

    return ResilienceTransport(transport)


def with_httpx_retries(transport: Any) -> Any:
    """Without a circuit breaker."""
    httpx_retries = library("httpx_retries")
    return httpx_retries.RetryTransport(transport, retry=httpx_retries.Retry(total=ATTEMPTS - 1, backoff_factor=DELAY))


def unguarded(get: Get, http: Any) -> Get:
    return get


def with_hyx(get: Get, http: Any) -> Get:
    breaker = library("hyx.circuitbreaker").consecutive_breaker(exceptions=http.HTTPError, failure_threshold=THRESHOLD)
    waits = library("hyx.retry.backoffs").expo(min_delay_secs=DELAY, jitter=library("hyx.retry.jitters").full)
    retry = library("hyx.retry").retry(on=http.HTTPError, attempts=ATTEMPTS - 1, backoff=waits)
    guard: Get = retry(breaker(_raising(get)))
    return guard


def with_stamina(get: Get, http: Any) -> Get:
    """Without a circuit breaker."""
    library("stamina.instrumentation").set_on_retry_hooks([])  # as nobody listens to the others either
    retry = library("stamina").retry(on=http.HTTPError, attempts=ATTEMPTS, wait_initial=DELAY)
    guard: Get = retry(_raising(get))
    return guard


def with_single_libraries(get: Get, http: Any) -> Get:
    breaker = library("circuitbreaker").circuit(failure_threshold=THRESHOLD, expected_exception=http.HTTPError)
    backoff = library("backoff")
    retry = backoff.on_exception(backoff.expo, http.HTTPError, max_tries=ATTEMPTS, factor=DELAY, logger=None)
    guard: Get = retry(breaker(_raising(get)))
    return guard


def _raising(get: Get) -> Get:
    async def call(url: str) -> Any:
        response = await get(url)
        return response.raise_for_status()

    return call
