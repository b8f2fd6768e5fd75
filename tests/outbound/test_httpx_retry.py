"""What is sent again, what never is, and when."""

from __future__ import annotations

import io
import ssl
from email.utils import formatdate

import anyio
import pytest

from pyresilience import (
    BulkheadConfig,
    CircuitBreakerConfig,
    CircuitOpenError,
    EventType,
    ResilienceTimeoutError,
    RetryBudgetConfig,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.contrib.http import retry_on_status
from pyresilience_middleware.outbound.httpx import ResilienceTransport
from tests.outbound.origin import broken, origin, reply, reset, silence

RETRY = RetryConfig(max_attempts=3, delay=1.0, jitter=False)


async def test_a_503_is_tried_again_until_it_succeeds(client_of, events):
    async with origin(reply(503), reply(200, b"done")) as server, client_of(retry=RETRY) as client:
        response = await client.get(server.url)
    assert (response.status_code, response.content) == (200, b"done")
    assert events.sequence == [("retry", 1), ("success", 2)]
    assert events.events[0].detail == "retrying in 1.00s"
    assert str(events.events[0].error) == "status 503"
    assert {event.function_name for event in events.events} == {f"127.0.0.1:{server.port}"}
    assert server.requests[1].at - server.requests[0].at == pytest.approx(1.0, abs=0.1)


async def test_the_last_response_is_returned_when_attempts_run_out(client_of, events):
    async with origin(reply(503, b"sorry")) as server, client_of(retry=RETRY) as client:
        response = await client.get(server.url)
    assert (response.status_code, response.content) == (503, b"sorry")
    assert events.sequence == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [200, 204, 301, 404, 500, 501])
async def test_other_statuses_are_not_tried_again(client_of, status):
    async with origin(reply(status, b"")) as server, client_of(retry=RETRY) as client:
        assert (await client.get(server.url)).status_code == status
    assert len(server.requests) == 1


async def test_a_unread_response_gives_its_connection_back_before_the_retry(client_of):
    """With a pool of one connection, a 503 left open would make the second attempt wait for ever."""
    async with origin(reply(503), reply(200)) as server, client_of(max_connections=1, retry=RETRY) as client:
        assert (await client.get(server.url)).status_code == 200


async def test_a_discarded_response_is_closed_exactly_once_and_the_returned_one_is_not(library):
    closed: list[int] = []

    class Stream(library.AsyncByteStream):
        def __init__(self, number):
            self.number = number

        async def __aiter__(self):
            yield b"%d" % self.number

        async def aclose(self):
            closed.append(self.number)

    class Scripted(library.AsyncBaseTransport):
        calls = 0

        async def handle_async_request(self, request):
            self.calls += 1
            return library.Response(503 if self.calls < 3 else 200, stream=Stream(self.calls))

    transport = ResilienceTransport(Scripted(), retry=RETRY)
    async with library.AsyncClient(transport=transport) as client:
        async with client.stream("GET", "http://host/") as response:
            assert closed == [1, 2]
            assert await response.aread() == b"3"
    assert closed == [1, 2, 3]


async def test_a_reset_connection_is_tried_again_for_idempotent_methods_only(client_of, library):
    async with origin(reset(), reply(200)) as server, client_of(retry=RETRY) as client:
        assert (await client.put(server.url, content=b"x")).status_code == 200
    async with origin(reset(), reply(200)) as server, client_of(retry=RETRY) as client:
        with pytest.raises(library.TransportError):
            await client.post(server.url, content=b"x")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("method", "headers", "attempts"),
    [
        ("GET", {}, 2),
        ("HEAD", {}, 2),
        ("OPTIONS", {}, 2),
        ("TRACE", {}, 2),
        ("PUT", {}, 2),
        ("DELETE", {}, 2),
        ("QUERY", {}, 2),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("POST", {"Idempotency-Key": '"8e03978e"'}, 2),
        ("POST", {"Idempotency-Key": ""}, 1),
    ],
)
async def test_a_request_is_repeated_only_if_that_does_no_harm(client_of, method, headers, attempts):
    async with origin(reply(503, b""), reply(200, b"")) as server, client_of(retry=RETRY) as client:
        response = await client.request(method, server.url, headers=headers)
    assert len(server.requests) == attempts
    assert response.status_code == (200 if attempts == 2 else 503)
    assert {request.headers.get("idempotency-key") for request in server.requests} == {headers.get("Idempotency-Key")}


async def test_a_refused_connection_is_tried_again_whatever_the_method(client_of, library, events):
    async with origin(reply()) as server:
        pass
    async with client_of(retry=RETRY) as client:
        with pytest.raises(library.ConnectError):
            await client.post(server.url, content=one_way())
    assert events.sequence == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]


async def one_way():
    yield b"once"


async def test_a_body_that_was_used_up_is_never_sent_again(client_of, events):
    """The first response is the answer; a second request would have an empty body."""
    async with origin(reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        response = await client.put(server.url, content=one_way())
    assert response.status_code == 503
    assert [request.body for request in server.requests] == [b"once"]
    assert events.sequence == [("retry_exhausted", 1), ("failure", 1)]
    assert events.events[0].detail == "body not replayable"


class ManyTimes:
    """An async iterable that begins anew each time."""

    async def __aiter__(self):
        yield b"again"


class Unseekable(io.BytesIO):
    def seekable(self):
        return False

    def seek(self, *args):
        raise io.UnsupportedOperation


@pytest.mark.parametrize(
    ("content", "body"),
    [
        ({"content": b"bytes"}, b"bytes"),
        ({"json": {"a": 1}}, b'{"a":1}'),
        ({"data": {"a": "1"}}, b"a=1"),
        ({"content": ManyTimes()}, b"again"),
    ],
)
async def test_a_body_that_can_be_sent_again_is_the_same_each_time(client_of, content, body):
    async with origin(reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        assert (await client.put(server.url, **content)).status_code == 200
    assert [request.body for request in server.requests] == [body, body]


async def test_multipart_files_are_sent_again_only_if_they_can_be_rewound(client_of):
    async with origin(reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        assert (await client.put(server.url, files={"file": io.BytesIO(b"contents")})).status_code == 200
    first, second = (request.body for request in server.requests)
    assert first == second and b"contents" in first
    async with origin(reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        assert (await client.put(server.url, files={"file": Unseekable(b"contents")})).status_code == 503


async def test_the_body_of_another_response_is_not_sent_again(client_of, library):
    """It is an async iterable that is not a generator, and yet can be read once only."""
    async with origin(reply(200, b"upstream"), reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        async with client.stream("GET", server.url) as upstream:
            response = await client.put(server.url, content=upstream.stream)
        assert response.status_code == 503
    assert len(server.requests) == 2


async def test_a_stream_of_unknown_type_is_not_sent_again(client_of, library):
    class Stream(library.AsyncByteStream):
        async def __aiter__(self):
            yield b"once"

    async with origin(reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        request = library.Request("PUT", server.url, headers={"Content-Length": "4"}, stream=Stream())
        request.headers["Host"] = "127.0.0.1"
        assert (await client.send(request)).status_code == 503


async def test_the_request_itself_may_decide(client_of):
    async with origin(reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        never = {"resilience": {"retry": False}}
        assert (await client.get(server.url, extensions=never)).status_code == 503
    async with origin(reply(503), reply(200)) as server, client_of(retry=RETRY) as client:
        safe = {"resilience": {"retry": True}}
        assert (await client.post(server.url, content=b"x", extensions=safe)).status_code == 200


@pytest.mark.parametrize(
    ("extension", "error", "message"),
    [
        (False, TypeError, "'resilience' must be a dict, not False"),
        ({"retries": 1}, ValueError, "only the key 'retry', not 'retries'"),
        ({"retry": 1}, TypeError, "must be True or False, not 1"),
    ],
)
async def test_a_wrong_extension_is_refused_by_name(client_of, extension, error, message):
    async with client_of() as client:
        with pytest.raises(error, match=message):
            await client.get("http://127.0.0.1:1/", extensions={"resilience": extension})


async def test_a_refused_certificate_is_never_tried_again(library):
    attempts = 0

    class Untrusted(library.AsyncBaseTransport):
        async def handle_async_request(self, request):
            nonlocal attempts
            attempts += 1
            try:
                raise ssl.SSLCertVerificationError("unknown authority")
            except ssl.SSLError as error:
                raise library.ConnectError("") from error

    async with library.AsyncClient(transport=ResilienceTransport(Untrusted(), retry=RETRY)) as client:
        with pytest.raises(library.ConnectError):
            await client.get("https://host/")
    assert attempts == 1


async def test_an_unsupported_scheme_is_the_callers_mistake(client_of, library):
    async with client_of(retry=RETRY, circuit_breaker=CircuitBreakerConfig(failure_threshold=1)) as client:
        for _ in range(2):
            with pytest.raises(library.UnsupportedProtocol):
                await client.get("gopher://host/")


async def test_the_user_chooses_the_statuses(client_of):
    config = RetryConfig(delay=0.1, retry_on_result=retry_on_status(404, 500))
    async with origin(reply(404), reply(500), reply(503)) as server, client_of(retry=config) as client:
        assert (await client.get(server.url)).status_code == 503
    assert len(server.requests) == 3


async def test_errors_the_user_excludes_are_not_tried_again(client_of, library):
    config = RetryConfig(delay=0.1, ignore_on=(library.ReadError, library.RemoteProtocolError))
    async with origin(reset(), reply(200)) as server, client_of(retry=config) as client:
        with pytest.raises(library.TransportError):
            await client.get(server.url)


async def test_the_wrapped_transport_sees_the_number_of_resends(library):
    seen: list[object] = []

    def answer(request):
        seen.append(request.extensions.get("resend_count"))
        return library.Response(302, headers={"location": "/next"}) if len(seen) == 3 else library.Response(503)

    transport = ResilienceTransport(library.MockTransport(answer), retry=RETRY)
    async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
        await client.get("http://host/")
    assert seen == [None, 1, 2, None, 1, 2]  # the second half is another hop


# ---------------------------------------------------------------------- Retry-After


async def waited(client_of, value, config=RETRY, **policies):
    """Seconds between two attempts when the first answer has this header."""
    async with (
        origin(reply(429, Retry_After=value), reply(200)) as server,
        client_of(retry=config, **policies) as client,
    ):
        response = await client.get(server.url)
    if response.status_code != 200:
        return None
    return round(server.requests[1].at - server.requests[0].at, 1)


async def test_a_retry_after_is_obeyed_to_the_second(client_of):
    assert await waited(client_of, "30") == 30.0


async def test_the_largest_of_several_retry_after_counts(client_of):
    assert await waited(client_of, "3|20|soon") == 20.0


async def test_an_unreadable_retry_after_means_the_normal_backoff(client_of):
    assert await waited(client_of, "1_000") == 1.0


async def test_a_retry_after_date_is_compared_with_the_clock_of_the_server(client_of, events):
    date, later = (formatdate(when, usegmt=True) for when in (5e8, 5e8 + 17))
    async with origin(reply(503, Date=date, Retry_After=later), reply(200)) as server, client_of(retry=RETRY) as client:
        assert (await client.get(server.url)).status_code == 200
    assert events.of(EventType.RETRY)[0].detail == "retrying in 17.00s"


@pytest.mark.parametrize("policies", [{}, {"timeout": TimeoutConfig(total=20.0)}], ids=["cap", "deadline"])
async def test_a_retry_after_that_is_too_long_ends_the_call_at_once(client_of, events, policies):
    """Retrying earlier than asked would be wrong, and waiting would be too long: that response is the answer."""
    wait = "25" if policies else "61"
    began = anyio.current_time()
    assert await waited(client_of, wait, **policies) is None
    assert anyio.current_time() - began < 1
    assert [kind for kind, _ in events.sequence] == ["retry_exhausted", "failure"]
    assert events.events[1].error.retry_after == float(wait)


# ---------------------------------------------------------------------- with other layers


async def test_retries_are_paid_from_one_budget_for_all_hosts(client_of, events):
    budget = RetryBudgetConfig(max_retries=3, refill_rate=0.001)
    async with origin(reply(503)) as one, origin(reply(503)) as other:
        async with client_of(retry=RETRY, retry_budget=budget) as client:
            for server in (one, other):
                await client.get(server.url)
    assert (len(one.requests), len(other.requests)) == (3, 2)
    assert events.of(EventType.RETRY_EXHAUSTED)[-1].detail == "retry budget exhausted"


async def test_a_permit_is_not_held_while_waiting_to_retry(client_of):
    async with (
        origin(reply(503, Retry_After="30"), reply(200)) as server,
        client_of(retry=RETRY, bulkhead=BulkheadConfig(max_concurrent=1)) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(client.get, server.url)
        await anyio.sleep(10)
        assert (await client.get(server.url)).status_code == 200


async def test_an_attempt_that_takes_too_long_is_tried_again(client_of, events):
    timeout = TimeoutConfig(seconds=2.0)
    async with origin(silence(), reply(200)) as server, client_of(retry=RETRY, timeout=timeout) as client:
        assert (await client.get(server.url)).status_code == 200
    assert events.sequence == [("timeout", 1), ("retry", 1), ("success", 2)]


async def test_an_attempt_that_takes_too_long_is_not_repeated_for_a_post(client_of):
    timeout = TimeoutConfig(seconds=2.0)
    async with origin(silence(), reply(200)) as server, client_of(retry=RETRY, timeout=timeout) as client:
        with pytest.raises(ResilienceTimeoutError):
            await client.post(server.url, content=b"x")
    assert len(server.requests) == 1


async def test_a_circuit_that_opens_between_attempts_ends_the_call(client_of, events):
    breaker = CircuitBreakerConfig(failure_threshold=2)
    async with origin(reply(503)) as server, client_of(retry=RETRY, circuit_breaker=breaker) as client:
        with pytest.raises(CircuitOpenError) as caught:
            await client.get(server.url)
    assert str(caught.value.__cause__) == "status 503"
    assert caught.value.name == f"127.0.0.1:{server.port}"
    assert events.sequence[-2:] == [("circuit_open", 3), ("failure", 3)]


async def test_a_broken_body_is_not_tried_again(client_of, library):
    """The response has already been handed over."""
    async with origin(broken(), reply(200)) as server, client_of(retry=RETRY) as client:
        with pytest.raises(library.RemoteProtocolError):
            await client.get(server.url)
    assert len(server.requests) == 1


async def test_without_retry_a_request_is_sent_once(client_of):
    async with origin(reply(503)) as server, client_of(retry=None) as client:
        assert (await client.get(server.url)).status_code == 503
    assert len(server.requests) == 1


async def test_cancelling_a_wait_for_the_next_attempt_is_neutral(client_of, events):
    async with origin(reply(503, Retry_After="30")) as server, client_of(retry=RETRY) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, server.url)
            await anyio.sleep(10)
            group.cancel_scope.cancel()
        assert client.resilience.pipelines[server.key].in_flight == 0
    assert events.sequence == [("retry", 1), ("cancelled", 1)]


async def test_the_rest_of_a_failed_response_is_not_waited_for(client_of):
    """The failed response is closed, not drained."""

    async with origin(reply(503, b"", Content_Length="1000"), reply(200)) as server, client_of(retry=RETRY) as client:
        assert (await client.get(server.url)).status_code == 200
    assert server.requests[1].at - server.requests[0].at < 2
