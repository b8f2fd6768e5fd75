"""A transport that makes every request of an httpx2 or httpx client resilient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from pyresilience_middleware.outbound._hosts import (
    DEFAULT_CIRCUIT_BREAKER,
    DEFAULT_MAX_HOSTS,
    DEFAULT_RETRY,
    DEFAULT_RETRY_BUDGET,
    HostPolicies,
    Hosts,
)
from pyresilience_middleware.outbound._httpx import KINDS, HttpxExchange, TransportBase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    import httpx
    import httpx2

    from pyresilience import (
        Bulkhead,
        BulkheadConfig,
        CircuitBreakerConfig,
        Listener,
        Pipeline,
        RateLimiter,
        RateLimiterConfig,
        RetryBudget,
        RetryBudgetConfig,
        RetryConfig,
        TimeoutConfig,
    )


class ResilienceTransport(TransportBase):
    """Guards each request that a client sends, with state of its own for each host.

    ```python
    transport = ResilienceTransport(httpx2.AsyncHTTPTransport(), timeout=TimeoutConfig(seconds=5, total=20))
    async with httpx2.AsyncClient(transport=transport) as client:
        response = await client.get("https://api.example.com/orders")
    ```

    The same class serves httpx: wrap an `httpx.AsyncHTTPTransport` then. Certificates, proxies, HTTP/2 and limits of
    the connection pool are settings of the wrapped transport: a client ignores its own once it is given a transport.

    **Retries.** Requests with an idempotent method or an `Idempotency-Key` header are sent again after an error or a
    429, 502, 503 or 504; all others only when nothing of them was sent. `retry_on_result` of the `RetryConfig`
    replaces these statuses. Never sent again are requests whose body cannot be (an async generator), and those
    refused for a TLS certificate. A `Retry-After` is obeyed to the second; when it is longer than `max_delay` or than
    what the call has left, the response is returned at once. The extension `resilience` of a request decides for it
    alone: `extensions={"resilience": {"retry": False}}` never sends it again, `True` allows it whatever the method.
    Retries are paid from one budget for all hosts, 100 at once and then 10 per second by default; None lifts that.
    The wrapped transport sees the number of resends so far in the extension `resend_count`.

    **Outcomes.** Transport errors and statuses from 500 on are failures; a wait for a connection in vain is not, as
    it says nothing about the server. When retries run out, the last response is returned or the last error raised.

    **Bodies.** A call lasts until the body of its response has been read or is closed: that long it keeps its permits
    and counts as in flight, and a body that breaks is a failure. Closing it early is not. The total timeout covers
    the body; the timeout of an attempt ends with the headers. A response that is never closed keeps its permit.

    **Redirects** pass here hop by hop, each as a call of its own.

    Cancelling a request is neutral: permits go back, nothing is counted, and an open response is closed.

    Args:
        transport: what sends the requests; closed along with this one.
        retry: attempts and waits; None sends each request once.
        timeout: limits for an attempt and for the whole call; by default only those of the client apply, and a server
            that sends its body byte by byte can take for ever.
        circuit_breaker: one for each host.
        bulkhead: a config limits each host, a live `Bulkhead` all of them together, such as to the size of the
            connection pool.
        rate_limiter: a config limits each host, a live `RateLimiter` all of them together.
        retry_budget: shared by all hosts of this transport, or also by others if it is a live `RetryBudget`.
        listeners: receive the events, whose `function_name` is `host:port`.
        max_hosts: hosts whose state is kept; those unused for longest are forgotten first, one in fifty at once.
        propagate: send `x-request-timeout-ms`, the milliseconds that the attempt has left, and the ids in
            `resilience_context` (`request_id` as `x-request-id`, and `traceparent`) with each request. They go to
            every host, so use it between services that trust each other.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `max_hosts` is less than 1.
    """

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport | httpx.AsyncBaseTransport,
        *,
        retry: RetryConfig | None = DEFAULT_RETRY,
        timeout: TimeoutConfig | None = None,
        circuit_breaker: CircuitBreakerConfig | None = DEFAULT_CIRCUIT_BREAKER,
        bulkhead: BulkheadConfig | Bulkhead | None = None,
        rate_limiter: RateLimiterConfig | RateLimiter | None = None,
        retry_budget: RetryBudgetConfig | RetryBudget | None = DEFAULT_RETRY_BUDGET,
        listeners: Iterable[Listener] = (),
        max_hosts: int = DEFAULT_MAX_HOSTS,
        propagate: bool = False,
    ) -> None:
        if isinstance(transport, type) or not hasattr(transport, "handle_async_request"):
            raise TypeError(
                f"transport must be one for async clients, such as httpx2.AsyncHTTPTransport(), not {transport!r}"
            )
        if not isinstance(propagate, bool):
            raise TypeError(f"propagate must be True or False, not {propagate!r}")
        self._transport: Any = transport
        self._propagate = propagate
        policies = HostPolicies(
            retry=retry,
            timeout=timeout,
            circuit_breaker=circuit_breaker,
            bulkhead=bulkhead,
            rate_limiter=rate_limiter,
            retry_budget=retry_budget,
            listeners=listeners,
        )
        self._hosts = Hosts(policies, KINDS, self._send, max_hosts)

    def __repr__(self) -> str:
        return f"ResilienceTransport({self._transport!r})"

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines of the hosts used last, by `scheme://host:port`: a copy, to look at."""
        return self._hosts.pipelines()

    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...
    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...
    async def handle_async_request(self, request: Any) -> Any:
        """Send a request through the pipeline of its host.

        Raises:
            CallRejectedError: a layer refused the request.
            ResilienceTimeoutError: a deadline has passed; reading the body may raise it as well.
            Exception: what the wrapped transport raised.
        """
        url = request.url
        host = self._hosts.get(url.scheme, url.raw_host.decode("ascii"), url.port)
        return await host.send(HttpxExchange(request, propagate=self._propagate))

    async def _send(self, exchange: HttpxExchange) -> Any:
        return await self._transport.handle_async_request(exchange.outgoing)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)
