"""State for each host, and the edges of the transport."""

from __future__ import annotations

import sys

import anyio
import httpx2
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    EventType,
    RateLimiterConfig,
    RateLimitExceededError,
    Retry,
    RetryBudget,
    RetryBudgetConfig,
    TimeoutConfig,
    resilience_context,
)
from pyresilience_middleware.outbound._http import host_key
from pyresilience_middleware.outbound._httpx import libraries
from pyresilience_middleware.outbound.httpx import ResilienceTransport
from tests.outbound.origin import origin, reply, silence

STRICT = CircuitBreakerConfig(failure_threshold=1)


@pytest.fixture
def answering(library):
    """A transport that answers with the status named by the path, and one with our layers around it."""

    def build(**policies):
        mock = library.MockTransport(lambda request: library.Response(int(request.url.path.strip("/") or 200)))
        return ResilienceTransport(mock, **policies)

    return build


@pytest.mark.parametrize(
    ("url", "key", "authority"),
    [
        ("http://Example.com/path?query", "http://example.com:80", "example.com:80"),
        ("https://example.com", "https://example.com:443", "example.com:443"),
        ("https://example.com:8443/", "https://example.com:8443", "example.com:8443"),
        ("http://user:secret@example.com/", "http://example.com:80", "example.com:80"),
        ("http://[::1]:8080/", "http://[::1]:8080", "[::1]:8080"),
        ("http://中国.icom.museum/", "http://xn--fiqs8s.icom.museum:80", "xn--fiqs8s.icom.museum:80"),
        ("wss://example.com/", "wss://example.com:443", "example.com:443"),
        ("other://example.com/", "other://example.com", "example.com"),
    ],
)
def test_a_host_is_scheme_name_and_port(library, url, key, authority):
    parsed = library.URL(url)
    assert host_key(parsed.scheme, parsed.raw_host.decode(), parsed.port) == (key, authority)


async def test_one_failing_host_leaves_the_others_alone(answering, library):
    transport = answering(circuit_breaker=STRICT, retry=None)
    async with library.AsyncClient(transport=transport) as client:
        await client.get("http://one/500")
        with pytest.raises(CircuitOpenError, match="one:80: circuit is open"):
            await client.get("http://one/200")
        assert (await client.get("http://two/200")).status_code == 200
        assert (await client.get("https://one/200")).status_code == 200
    assert list(transport.pipelines) == ["http://one:80", "http://two:80", "https://one:443"]
    assert [pipeline.name for pipeline in transport.pipelines.values()] == list(transport.pipelines)


async def test_the_host_unused_for_longest_is_forgotten(answering, library):
    transport = answering(max_hosts=2)
    async with library.AsyncClient(transport=transport) as client:
        for host in ("one", "two", "one", "three"):
            await client.get(f"http://{host}/")
    assert list(transport.pipelines) == ["http://one:80", "http://three:80"]


async def test_of_many_hosts_one_in_fifty_is_forgotten_at_once(answering, library):
    transport = answering(max_hosts=100)
    async with library.AsyncClient(transport=transport) as client:
        for number in range(100):
            await client.get(f"http://host{number}/")
        assert len(transport.pipelines) == 100
        await client.get("http://host0/")
        await client.get("http://new/")
    kept = [*range(4, 100), 0]
    assert list(transport.pipelines) == [*(f"http://host{number}:80" for number in kept), "http://new:80"]


async def test_a_host_with_calls_in_flight_is_not_forgotten(answering, library):
    class Endless(library.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield b"x"

    mock = library.MockTransport(lambda request: library.Response(200, stream=Endless()))
    transport = ResilienceTransport(mock, max_hosts=1)
    async with library.AsyncClient(transport=transport) as client, client.stream("GET", "http://busy/"):
        async with client.stream("GET", "http://other/"):
            assert list(transport.pipelines) == ["http://busy:80", "http://other:80"]
        async with client.stream("GET", "http://third/"):
            assert list(transport.pipelines) == ["http://busy:80", "http://third:80"]


@pytest.mark.parametrize("status", [200, 301, 404, 429, 500, 503])
async def test_only_server_errors_are_failures(answering, library, status):
    transport = answering(circuit_breaker=STRICT, retry=None)
    async with library.AsyncClient(transport=transport) as client:
        await client.get(f"http://host/{status}")
    assert transport.pipelines["http://host:80"].find(CircuitBreaker).state.value == (
        "open" if status >= 500 else "closed"
    )


async def test_server_errors_are_failures_whatever_errors_the_user_names(answering, library):
    breaker = CircuitBreakerConfig(failure_threshold=1, error_types=(library.ConnectError,))
    transport = answering(circuit_breaker=breaker, retry=None)
    async with library.AsyncClient(transport=transport) as client:
        await client.get("http://host/500")
    assert transport.pipelines["http://host:80"].find(CircuitBreaker).state.value == "open"


async def test_a_429_that_was_tried_again_in_vain_is_no_failure_for_the_circuit(answering, library, events):
    transport = answering(circuit_breaker=STRICT, listeners=[events])
    async with library.AsyncClient(transport=transport) as client:
        assert (await client.get("http://host/429")).status_code == 429
    assert transport.pipelines["http://host:80"].find(CircuitBreaker).state.value == "closed"
    assert events.sequence[-2:] == [("retry_exhausted", 3), ("failure", 3)]


async def test_waiting_in_vain_for_a_connection_says_nothing_of_the_server(client_of, library):
    async with (
        origin(silence()) as server,
        client_of(max_connections=1, retry=None, circuit_breaker=STRICT, client={}) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(lambda: client.get(server.url, timeout=1000))
        await anyio.sleep(1)
        with pytest.raises(library.PoolTimeout):
            await client.get(server.url)
        assert client.resilience.pipelines[server.key].find(CircuitBreaker).state.value == "closed"
        group.cancel_scope.cancel()


async def test_each_redirect_is_a_call_of_its_own(client_of, events):
    async with origin(reply(200)) as target:
        moved = reply(302, b"", Location=target.url)
        async with origin(moved) as server, client_of(client={"follow_redirects": True}) as client:
            assert (await client.get(server.url)).status_code == 200
    hosts = [(event.event_type, event.function_name) for event in events.events]
    assert hosts == [(EventType.SUCCESS, f"127.0.0.1:{port}") for port in (server.port, target.port)]


async def test_a_live_bulkhead_limits_all_hosts_together(client_of):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    async with origin(reply()) as one, origin(reply()) as two, client_of(bulkhead=bulkhead) as client:
        async with client.stream("GET", one.url):
            with pytest.raises(BulkheadFullError):
                await client.get(two.url)


async def test_a_config_limits_each_host(answering, library):
    transport = answering(rate_limiter=RateLimiterConfig(max_calls=1, period=60))
    async with library.AsyncClient(transport=transport) as client:
        await client.get("http://one/")
        await client.get("http://two/")
        with pytest.raises(RateLimitExceededError) as caught:
            await client.get("http://one/")
    assert caught.value.name == "one:80"


async def test_many_short_cancels_leave_the_pool_usable(client_of, library):
    """With a bulkhead no larger than the pool, cancelled callers never contend inside it (httpcore issue 1093)."""
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=4, max_wait=0.02))

    async def impatient(url):
        with anyio.move_on_after(0.05):
            try:
                await client.get(url)
            except BulkheadFullError:
                pass

    async def slow(stream, request):
        await anyio.sleep(0.03)
        return await reply()(stream, request)

    async with origin(slow) as server, client_of(max_connections=4, bulkhead=bulkhead) as client:
        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(impatient, server.url)
        assert bulkhead.statistics().in_use == 0
        for _ in range(4):
            assert (await client.get(server.url)).status_code == 200


# ---------------------------------------------------------------------- what is passed on


async def test_nothing_is_passed_on_unless_asked(client_of):
    resilience_context.set({"request_id": "r-1"})
    async with origin(reply()) as server, client_of(timeout=TimeoutConfig(total=10)) as client:
        await client.get(server.url)
    assert not {"x-request-id", "x-request-timeout-ms"} & server.requests[0].headers.keys()


async def test_ids_and_the_time_left_are_passed_on(client_of):
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    resilience_context.set({"request_id": "r-1", "traceparent": parent, "path": "/private"})
    async with (
        origin(reply(503, Retry_After="4"), reply()) as server,
        client_of(timeout=TimeoutConfig(total=10), propagate=True) as client,
    ):
        response = await client.get(server.url)
    first, second = (request.headers for request in server.requests)
    assert (first["x-request-id"], first["traceparent"]) == ("r-1", parent)
    assert int(first["x-request-timeout-ms"]) == pytest.approx(9990, abs=100)
    assert int(second["x-request-timeout-ms"]) == pytest.approx(5990, abs=100)
    assert "x-request-id" not in response.request.headers


async def test_the_timeout_of_the_attempt_is_passed_on_when_it_is_shorter(client_of):
    timeout = TimeoutConfig(seconds=2, total=10)
    async with origin(reply()) as server, client_of(timeout=timeout, propagate=True) as client:
        await client.get(server.url)
    assert int(server.requests[0].headers["x-request-timeout-ms"]) == pytest.approx(1990, abs=100)


async def test_what_the_request_says_itself_comes_first(client_of):
    resilience_context.set({"request_id": "r-1"})
    async with origin(reply()) as server, client_of(timeout=TimeoutConfig(total=10), propagate=True) as client:
        await client.get(server.url, headers={"X-Request-ID": "mine", "X-Request-Timeout-Ms": "500"})
        await client.get(server.url, headers={"X-Request-Timeout-Ms": "99999"})
    own, longer = (request.headers for request in server.requests)
    assert (own["x-request-id"], own["x-request-timeout-ms"]) == ("mine", "500")
    assert int(longer["x-request-timeout-ms"]) <= 10_000


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "ü", "", "x" * 129, 17, None])
async def test_ids_that_are_not_fit_for_a_header_stay_here(client_of, value):
    resilience_context.set({"request_id": value, "traceparent": value})
    async with origin(reply()) as server, client_of(propagate=True) as client:
        await client.get(server.url)
    assert not {"x-request-id", "traceparent", "evil"} & server.requests[0].headers.keys()


# ---------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"retry": Retry()}, TypeError, "retry must be None or a RetryConfig, not"),
        ({"timeout": 5}, TypeError, "timeout must be None or a TimeoutConfig, not 5"),
        ({"circuit_breaker": CircuitBreaker()}, TypeError, "circuit_breaker must be None or a CircuitBreakerConfig"),
        ({"bulkhead": 10}, TypeError, "bulkhead must be None or a BulkheadConfig or Bulkhead, not 10"),
        ({"retry_budget": 0.1}, TypeError, "retry_budget must be None or a RetryBudgetConfig or RetryBudget, not 0.1"),
        ({"listeners": [1]}, TypeError, "a listener must be callable"),
        ({"max_hosts": 0}, ValueError, "max_hosts must be at least 1, not 0"),
        ({"max_hosts": True}, TypeError, "max_hosts must be an int, not True"),
        ({"propagate": "yes"}, TypeError, "propagate must be True or False, not 'yes'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(library, arguments, error, message):
    with pytest.raises(error, match=message):
        ResilienceTransport(library.MockTransport(lambda request: None), **arguments)


def test_one_of_the_libraries_is_enough(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library.__name__, None)
    assert [found.__name__ for found in libraries()] == ["httpx" if library is httpx2 else "httpx2"]


def test_without_a_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match=r"pip install httpx2 \(or httpx\)"):
        libraries()


def test_libraries_that_are_one_and_the_same_count_once(monkeypatch):
    """After `httpx2.alias_httpx()`; a class cannot have the same base twice."""
    monkeypatch.setitem(sys.modules, "httpx", httpx2)
    assert libraries() == [httpx2]


def test_a_transport_for_sync_clients_is_refused(library):
    with pytest.raises(TypeError, match="transport must be one for async clients"):
        ResilienceTransport(library.BaseTransport())
    with pytest.raises(TypeError, match="transport must be one for async clients"):
        ResilienceTransport(library.AsyncHTTPTransport)


async def test_the_wrapped_transport_is_opened_and_closed_with_the_client(library):
    steps: list[str] = []

    class Wrapped(library.AsyncBaseTransport):
        async def __aenter__(self):
            steps.append("open")
            return self

        async def __aexit__(self, *args):
            steps.append("exit")

        async def aclose(self):
            steps.append("close")

    async with library.AsyncClient(transport=ResilienceTransport(Wrapped())):
        assert steps == ["open"]
    client = library.AsyncClient(transport=ResilienceTransport(Wrapped()))
    await client.aclose()
    assert steps == ["open", "exit", "close"]


async def test_a_budget_may_be_shared_with_others(answering, library):
    budget = RetryBudget(RetryBudgetConfig(refill_rate=0.001))
    transport = answering(retry_budget=budget)
    async with library.AsyncClient(transport=transport) as client:
        await client.get("http://host/503")
    assert budget.available == 98
