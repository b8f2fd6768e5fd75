"""A call lasts until the body of its response ends."""

from __future__ import annotations

import gc

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    EventType,
    ResilienceTimeoutError,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.pipeline._async_root import AsyncCall
from pyresilience_middleware.outbound._http import UnsuccessfulResponse
from pyresilience_middleware.outbound.httpx import ResilienceTransport
from tests.outbound.origin import broken, drip, origin, reply

STRICT = CircuitBreakerConfig(failure_threshold=1)


async def test_a_body_that_breaks_is_a_failure(client_of, library, events):
    """The transport had returned a 200 long before."""
    async with origin(broken()) as server, client_of(circuit_breaker=STRICT) as client:
        with pytest.raises(library.RemoteProtocolError):
            await client.get(server.url)
        assert client.resilience.pipelines[server.key].find(CircuitBreaker).state.value == "open"
        with pytest.raises(CircuitOpenError):
            await client.get(server.url)
    assert events.sequence == [("circuit_open", 1), ("failure", 1), ("circuit_open", 1)]
    assert isinstance(events.events[1].error, library.RemoteProtocolError)


async def test_success_is_told_when_the_body_has_ended(client_of, events):
    async with origin(drip(3, 1.0)) as server, client_of() as client:
        async with client.stream("GET", server.url) as response:
            assert events.events == []
            assert await response.aread() == b"xxx"
    (success,) = events.events
    assert success.event_type is EventType.SUCCESS
    assert success.duration == pytest.approx(3.0, abs=0.1)


async def test_a_permit_is_held_until_the_body_ends(client_of):
    async with origin(drip(3, 1.0)) as server, client_of(bulkhead=BulkheadConfig(max_concurrent=1)) as client:
        async with client.stream("GET", server.url) as response:
            pipeline = client.resilience.pipelines[server.key]
            bulkhead = pipeline.find(Bulkhead)
            assert (bulkhead.statistics().in_use, pipeline.in_flight) == (1, 1)
            with pytest.raises(BulkheadFullError):
                await client.get(server.url)
            await response.aread()
            assert (bulkhead.statistics().in_use, pipeline.in_flight) == (0, 0)
        assert (await client.get(server.url)).status_code == 200


async def test_closing_a_body_early_is_a_success(client_of, events):
    async with (
        origin(drip(1000, 1.0)) as server,
        client_of(bulkhead=BulkheadConfig(max_concurrent=1), circuit_breaker=STRICT) as client,
    ):
        async with client.stream("GET", server.url):
            pass
        pipeline = client.resilience.pipelines[server.key]
        assert pipeline.find(Bulkhead).statistics().in_use == 0
        assert pipeline.find(CircuitBreaker).state.value == "closed"
    assert events.sequence == [("success", 1)]


@pytest.mark.filterwarnings("ignore:Async generator '(httpcore|httpx)")  # they leave theirs to the collector
async def test_stopping_in_the_middle_of_a_body_gives_everything_back(client_of, events):
    async with origin(drip(1000, 1.0)) as server, client_of(max_connections=1, retry=None) as client:
        async with client.stream("GET", server.url) as response:
            chunks = response.aiter_raw()
            assert await anext(chunks) == b"x"
            await chunks.aclose()
        async with client.stream("GET", server.url):  # the only connection is free again
            pass
    assert events.sequence == [("success", 1)] * 2


async def test_closing_early_also_ends_the_generator_behind_the_body(library):
    ended: list[str] = []

    class Stream(library.AsyncByteStream):
        async def __aiter__(self):
            try:
                while True:
                    yield b"x"
            finally:
                ended.append("generator")

        async def aclose(self):
            ended.append("stream")

    transport = ResilienceTransport(library.MockTransport(lambda request: library.Response(200, stream=Stream())))
    response = await transport.handle_async_request(library.Request("GET", "http://host/"))
    assert await anext(response.stream) == b"x"
    await response.aclose()
    assert ended == ["stream", "generator"]
    await response.stream.aclose()
    assert ended == ["stream", "generator"]


async def test_the_total_timeout_covers_the_body(client_of, library, events):
    """Each byte comes well within the read timeout of the client, and there is no end of them."""
    timeout = TimeoutConfig(total=10.0)
    async with origin(drip(1000, 1.0)) as server, client_of(timeout=timeout, circuit_breaker=STRICT) as client:
        began = anyio.current_time()
        with pytest.raises(ResilienceTimeoutError, match=r"call timed out after 10.00s while reading the body"):
            await client.get(server.url)
        assert anyio.current_time() - began == pytest.approx(10.0, abs=0.1)
        assert client.resilience.pipelines[server.key].in_flight == 0
    assert events.sequence == [("timeout", 1), ("circuit_open", 1), ("failure", 1)]


async def test_the_connection_pool_is_clean_after_a_timeout_in_the_body(client_of):
    async with (
        origin(drip(1000, 1.0), reply(200)) as server,
        client_of(timeout=TimeoutConfig(total=10.0), max_connections=1) as client,
    ):
        with pytest.raises(ResilienceTimeoutError):
            await client.get(server.url)
        assert (await client.get(server.url)).status_code == 200


async def test_the_timeout_of_an_attempt_ends_with_the_headers(client_of):
    async with origin(drip(5, 1.0)) as server, client_of(timeout=TimeoutConfig(seconds=2.0)) as client:
        assert (await client.get(server.url)).content == b"xxxxx"


async def test_the_total_timeout_spans_attempts_and_body(client_of):
    timeout, retry = TimeoutConfig(total=10.0), RetryConfig(delay=4.0, jitter=False)
    async with origin(reply(503), drip(1000, 1.0)) as server, client_of(timeout=timeout, retry=retry) as client:
        began = anyio.current_time()
        with pytest.raises(ResilienceTimeoutError):
            await client.get(server.url)
    assert anyio.current_time() - began == pytest.approx(10.0, abs=0.1)


async def test_cancelling_while_the_body_streams_is_neutral(client_of, events):
    async with (
        origin(drip(1000, 1.0)) as server,
        client_of(bulkhead=BulkheadConfig(max_concurrent=1), circuit_breaker=STRICT, max_connections=1) as client,
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, server.url)
            await anyio.sleep(5.5)
            group.cancel_scope.cancel()
        pipeline = client.resilience.pipelines[server.key]
        assert pipeline.find(Bulkhead).statistics().in_use == 0
        assert pipeline.find(CircuitBreaker).metrics["state"] == "closed"
        assert pipeline.in_flight == 0
    assert events.sequence == [("cancelled", 1)]


async def test_a_server_error_counts_when_it_arrives_and_lasts_until_its_body_ends(client_of, events):
    async with origin(reply(500, b"sorry")) as server, client_of(circuit_breaker=STRICT, retry=None) as client:
        async with client.stream("GET", server.url) as response:
            pipeline = client.resilience.pipelines[server.key]
            assert pipeline.find(CircuitBreaker).state.value == "open"
            assert pipeline.in_flight == 1
            assert await response.aread() == b"sorry"
        assert pipeline.in_flight == 0
    assert events.sequence == [("circuit_open", 1), ("failure", 1)]
    assert str(events.events[1].error) == "status 500"


async def test_a_server_error_whose_body_breaks_counts_once(client_of, library, events):
    breaker = CircuitBreakerConfig(failure_threshold=2)
    async with origin(broken(500)) as server, client_of(circuit_breaker=breaker, retry=None) as client:
        with pytest.raises(library.RemoteProtocolError):
            await client.get(server.url)
        assert client.resilience.pipelines[server.key].find(CircuitBreaker).failure_count == 1
    assert events.sequence == [("failure", 1)]


async def test_a_response_that_comes_too_late_is_closed(library):
    """A transport that ignores its cancellation answers after the deadline: nobody gets that response."""
    closed: list[str] = []

    class Stream(library.AsyncByteStream):
        async def __aiter__(self):
            yield b"late"

        async def aclose(self):
            closed.append("closed")

    class Stubborn(library.AsyncBaseTransport):
        async def handle_async_request(self, request):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            return library.Response(200, stream=Stream())

    for timeout in (TimeoutConfig(seconds=1.0), TimeoutConfig(total=1.0)):
        bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
        transport = ResilienceTransport(Stubborn(), retry=None, timeout=timeout, bulkhead=bulkhead)
        async with library.AsyncClient(transport=transport) as client:
            with pytest.raises(ResilienceTimeoutError):
                await client.get("http://host/")
        assert bulkhead.statistics().in_use == 0
        assert transport.pipelines["http://host:80"].in_flight == 0
    assert closed == ["closed"] * 2


async def test_a_stream_of_its_own_type_reaches_the_client(client_of, library):
    async with origin(reply(200)) as server, client_of() as client, client.stream("GET", server.url) as response:
        assert isinstance(response.stream, library.AsyncByteStream)


async def test_a_call_is_freed_without_the_garbage_collector(library):
    """Errors with tracebacks, holds and bodies point at each other; they must let go when the call is over."""
    answers = iter([503, 200, 500])

    class Answering(library.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return library.Response(next(answers), stream=library.ByteStream(b"ok"))

    transport = ResilienceTransport(Answering(), retry=RetryConfig(delay=0))  # trio's sleep leaves a cycle on 3.13
    gc.collect()
    earlier = {id(thing) for thing in gc.get_objects() if isinstance(thing, (AsyncCall, UnsuccessfulResponse))}
    gc.disable()
    try:
        for _ in range(2):
            request = library.Request("GET", "http://host/", stream=library.ByteStream(b""))
            response = await transport.handle_async_request(request)
            async for _chunk in response.stream:
                pass
            await response.stream.aclose()
        del response, request
        left = [thing for thing in gc.get_objects() if isinstance(thing, (AsyncCall, UnsuccessfulResponse))]
        assert not [thing for thing in left if id(thing) not in earlier]
    finally:
        gc.enable()
