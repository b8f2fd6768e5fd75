"""All cases, in the order of the table."""

from __future__ import annotations

from benchmarks.cases import (
    asgi,
    bulkhead,
    cache,
    circuit_breaker,
    footprint,
    http_client,
    on_trio,
    rate_limiter,
    retry,
    stack,
    timeout,
)

CASES = {
    case.key: case
    for case in (
        retry.RETRY_ASYNC,
        retry.RETRY_SYNC,
        circuit_breaker.CONSECUTIVE,
        circuit_breaker.WINDOWED,
        circuit_breaker.SYNC,
        bulkhead.BULKHEAD,
        rate_limiter.ASYNC,
        rate_limiter.SYNC,
        timeout.TIMEOUT,
        cache.CACHE,
        stack.SIX,
        stack.LISTENERS,
        retry.STORM,
        footprint.MEMORY_RETRY,
        footprint.MEMORY_ALL,
        footprint.IMPORT,
        asgi.CONTEXT,
        asgi.EVERYTHING,
        asgi.WITH_OPENTELEMETRY,
        http_client.HTTP_CLIENT,
        on_trio.TIMEOUT,
        on_trio.BULKHEAD,
        on_trio.STORM,
    )
}
