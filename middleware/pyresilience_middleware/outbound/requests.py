"""An adapter that makes every request of a requests session resilient."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from pyresilience.runtime import _sources as sources
from pyresilience.runtime._protocol import DeadlineExpired
from pyresilience_middleware.outbound._hosts import (
    DEFAULT_CIRCUIT_BREAKER,
    DEFAULT_MAX_HOSTS,
    DEFAULT_RETRY,
    DEFAULT_RETRY_BUDGET,
    HostPolicies,
    Hosts,
)
from pyresilience_middleware.outbound._http import Body, ErrorKinds, Exchange, body_timed_out, headers_to_pass_on

try:
    import requests
    from requests import exceptions as errors
    from requests.adapters import DEFAULT_POOLSIZE, HTTPAdapter
    from requests.utils import rewind_body
    from urllib3 import Timeout
    from urllib3.exceptions import MaxRetryError, NewConnectionError, ReadTimeoutError
except ModuleNotFoundError as missing:
    raise ImportError("ResilienceAdapter needs the requests package: pip install requests") from missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pyresilience import (
        Bulkhead,
        BulkheadConfig,
        Call,
        CircuitBreakerConfig,
        Hold,
        Listener,
        Pipeline,
        RateLimiter,
        RateLimiterConfig,
        RetryBudget,
        RetryBudgetConfig,
        RetryConfig,
        TimeoutConfig,
    )

KINDS = ErrorKinds(
    not_sent=(errors.ConnectTimeout,),
    local=(),
    misuse=(errors.InvalidURL, errors.InvalidSchema, errors.MissingSchema, errors.InvalidHeader),
)
ROUNDING = 0.005
"""Seconds by which a socket may report its timeout before our clock does."""


class ResilienceAdapter(HTTPAdapter):
    """Guards each request that a session sends, with state of its own for each host.

    ```python
    session = requests.Session()
    adapter = ResilienceAdapter(timeout=TimeoutConfig(seconds=5, total=20))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    ```

    The rules are those of `pyresilience_middleware.outbound.httpx.ResilienceTransport`: what is sent again, how a
    `Retry-After` is obeyed, which outcomes are failures, and that a call lasts until the body of its response has
    been read or is closed. A body can be sent again if it is bytes, or a file that can be rewound.

    Requests run in the thread of their caller. Timeouts are passed on to the socket, where they bound each wait for
    data, and are checked between reads: a server that sends its headers byte by byte, or stops in the middle of a
    body, can exceed them. For deadlines that hold whatever the server does use an async client.

    Args:
        retry, timeout, circuit_breaker, bulkhead, rate_limiter, retry_budget, listeners, max_hosts, propagate: as for
            `ResilienceTransport`.
        pool_connections, pool_maxsize, pool_block: as for `requests.adapters.HTTPAdapter`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `max_hosts` is less than 1.
    """

    def __init__(
        self,
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
        pool_connections: int = DEFAULT_POOLSIZE,
        pool_maxsize: int = DEFAULT_POOLSIZE,
        pool_block: bool = False,
    ) -> None:
        if not isinstance(propagate, bool):
            raise TypeError(f"propagate must be True or False, not {propagate!r}")
        policies = HostPolicies(
            retry=retry,
            timeout=timeout,
            circuit_breaker=circuit_breaker,
            bulkhead=bulkhead,
            rate_limiter=rate_limiter,
            retry_budget=retry_budget,
            listeners=listeners,
        )
        if policies.timeout is not None:
            # An abandoned thread would go on reading a body that the next attempt sends as well.
            policies = replace(policies, timeout=replace(policies.timeout, in_thread=False))
        self._propagate = propagate
        self._hosts = Hosts(policies, KINDS, self._send, max_hosts)
        super().__init__(pool_connections=pool_connections, pool_maxsize=pool_maxsize, pool_block=pool_block)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ResilienceAdapter holds the live state of its hosts and cannot be pickled or copied")

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines of the hosts used last, by `scheme://host:port`: a copy, to look at."""
        return self._hosts.pipelines()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request through the pipeline of its host.

        Raises:
            CallRejectedError: a layer refused the request.
            ResilienceTimeoutError: a deadline has passed; reading the body may raise it as well.
            requests.RequestException: what requests raised.
        """
        url = urlsplit(request.url or "")
        host = self._hosts.get(url.scheme, url.hostname or "", url.port)
        settings = {"stream": stream, "timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
        response: requests.Response = host.send(RequestsExchange(request, settings, propagate=self._propagate))
        return response

    def _send(self, exchange: RequestsExchange) -> requests.Response:
        settings = {**exchange.settings, "timeout": _bounded(exchange.settings["timeout"], exchange.left)}
        try:
            return super().send(exchange.outgoing, **settings)
        except errors.Timeout:
            if sources.seconds_until(exchange.deadline) <= ROUNDING:
                raise DeadlineExpired(exchange.deadline) from None
            raise


def _bounded(timeout: Any, left: float) -> Any:
    """The timeout of a request, in any form that requests takes, ending with the deadline at the latest."""
    if left == inf:
        return timeout
    connect = read = timeout
    if isinstance(timeout, Timeout):
        connect, read = timeout.connect_timeout, timeout.read_timeout
    elif isinstance(timeout, tuple):
        connect, read = timeout  # pyright: ignore[reportUnknownVariableType]
    return Timeout(connect=connect, read=read, total=max(left, ROUNDING))  # pyright: ignore[reportUnknownArgumentType]


class RequestsExchange(Exchange):
    """A prepared request, and how the session wants it sent."""

    def __init__(self, request: requests.PreparedRequest, settings: dict[str, Any], *, propagate: bool) -> None:
        super().__init__(KINDS, request.method or "", request.headers, None)
        self.request = request
        self.outgoing = request
        self.settings = settings
        self.propagate = propagate
        self.left = self.deadline = inf

    def prepare(self, call: Call[Any]) -> None:
        self.left, self.deadline = call.remaining(), call.deadline
        if call.attempt > 1 and self._position is not None:
            rewind_body(self.request)
        if self.propagate:
            self.outgoing = self.request.copy()
            self.outgoing.headers.update(headers_to_pass_on(call, self.request.headers))

    def attach(self, response: Any, call: Call[Any]) -> Body | None:
        response.request = self.request  # what follows up on it, such as digest auth, starts from the original
        body = response.raw = RequestsBody(response.raw, call)
        return body

    def replayable(self) -> bool:
        body: Any = self.request.body
        if body is None or isinstance(body, (bytes, bytearray, str)):
            return True
        try:
            return self._position is not None and bool(body.seekable())
        except (AttributeError, ValueError):  # not a file as we know it, or closed
            return False

    def never_sent(self, error: Exception) -> bool:
        if super().never_sent(error):
            return True
        reason = error.args[0] if isinstance(error, errors.ConnectionError) and error.args else None
        return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)

    @property
    def _position(self) -> int | None:
        """Where a body that is a file began; requests has noted it."""
        position = getattr(self.request, "_body_position", None)
        return position if isinstance(position, int) else None


class RequestsBody:
    """The urllib3 response behind a response, which keeps the call going until its body ends."""

    def __init__(self, raw: Any, call: Call[Any]) -> None:
        self._raw = raw
        self._call = call
        self._hold: Hold | None = call.hold()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._raw)

    def stream(self, amt: int = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:
        """As urllib3's, with the deadline of the call."""
        try:
            if self._call.deadline == inf:
                yield from self._raw.stream(amt, decode_content=decode_content)
            else:
                while chunk := self._before_deadline(amt, decode_content):
                    yield chunk
        except GeneratorExit:
            raise  # left early: whoever did so closes the response
        except BaseException as error:
            self._settle(error)
            raise
        self._settle(None)

    def read(self, amt: int | None = None, *args: Any, **kwargs: Any) -> bytes:
        """As urllib3's; there is no deadline."""
        try:
            data: bytes = self._raw.read(amt, *args, **kwargs)
        except BaseException as error:
            self._settle(error)
            raise
        if amt is None or (amt and not data):
            self._settle(None)
        return data

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            self._settle(None)

    def release_conn(self) -> None:
        try:
            self._raw.release_conn()
        finally:
            self._settle(None)

    async def end(self, error: BaseException | None) -> None:
        try:
            self._raw.close()
            self._raw.release_conn()
        finally:
            self._settle(error)

    def _before_deadline(self, amt: int, decode_content: bool | None) -> bytes:
        """What has arrived, at least something; empty at the end."""
        if sources.seconds_until(self._call.deadline) > 0:
            try:
                chunk: bytes = self._raw.read1(amt, decode_content=decode_content)
            except ReadTimeoutError:
                if sources.seconds_until(self._call.deadline) > ROUNDING:
                    raise
            else:
                return chunk
        self._raw.close()
        raise body_timed_out(self._call)

    def _settle(self, error: BaseException | None) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release(error)
