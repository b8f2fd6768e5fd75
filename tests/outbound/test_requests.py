"""The same rules for sync code. The server lives in a thread of its own; waits between attempts take virtual time."""

from __future__ import annotations

import copy
import io
import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest
import requests
from anyio.from_thread import start_blocking_portal

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    ResilienceTimeoutError,
    RetryConfig,
    TimeoutConfig,
    resilience_context,
)
from pyresilience_middleware.outbound.requests import ResilienceAdapter
from tests.outbound.origin import broken, drip, origin, reply, reset, silence, trickle

RETRY = RetryConfig(max_attempts=3, delay=1.0, jitter=False)
STRICT = CircuitBreakerConfig(failure_threshold=1)


@pytest.fixture(scope="module")
def portal():
    with start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture
def serving(portal):
    return lambda *script: portal.wrap_async_context_manager(origin(*script))


@pytest.fixture
def session_of(events):
    """Opens a session whose adapter has the given policies, as `.resilience`."""

    @contextmanager
    def open_session(**policies):
        with requests.Session() as session:
            session.trust_env = False
            session.resilience = ResilienceAdapter(listeners=[events], **policies)
            session.mount("http://", session.resilience)
            yield session

    return open_session


def test_a_503_is_tried_again_until_it_succeeds(serving, session_of, events, time):
    with serving(reply(503), reply(200, b"done")) as server, session_of(retry=RETRY) as session:
        began = time.seconds
        assert session.get(server.url).content == b"done"
        assert time.seconds - began == 1.0
    assert events.sequence == [("retry", 1), ("success", 2)]
    assert events.events[0].function_name == f"127.0.0.1:{server.port}"


def test_a_retry_after_is_obeyed_to_the_second(serving, session_of, time):
    with serving(reply(429, Retry_After="20|30"), reply(200)) as server, session_of(retry=RETRY) as session:
        began = time.seconds
        assert session.get(server.url).status_code == 200
        assert time.seconds - began == 30.0


def test_a_retry_after_that_is_too_long_ends_the_call_at_once(serving, session_of, events, time):
    with serving(reply(503, b"later", Retry_After="61")) as server, session_of(retry=RETRY) as session:
        assert session.get(server.url).content == b"later"
    assert events.sequence == [("retry_exhausted", 1), ("failure", 1)]


def test_the_last_response_is_returned_when_attempts_run_out(serving, session_of, events, time):
    with serving(reply(503, b"sorry")) as server, session_of(retry=RETRY) as session:
        assert session.get(server.url).content == b"sorry"
    assert events.sequence == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]


@pytest.mark.parametrize(
    ("method", "headers", "attempts"), [("PUT", {}, 2), ("POST", {}, 1), ("POST", {"Idempotency-Key": "1"}, 2)]
)
@pytest.mark.parametrize("failure", [reply(503), reset()], ids=["503", "reset"])
def test_a_request_is_repeated_only_if_that_does_no_harm(serving, session_of, time, failure, method, headers, attempts):
    with serving(failure, reply(200)) as server, session_of(retry=RETRY) as session:
        try:
            status = session.request(method, server.url, data=b"x", headers=headers).status_code
        except requests.ConnectionError:
            status = None
    assert len(server.requests) == attempts
    assert (status == 200) == (attempts == 2)


def test_a_refused_connection_is_tried_again_whatever_the_method(serving, session_of, events, time):
    with serving(reply()) as server:
        pass
    with session_of(retry=RETRY) as session, pytest.raises(requests.ConnectionError):
        session.post(server.url, data=b"x")
    assert events.sequence == [("retry", 1), ("retry", 2), ("retry_exhausted", 3), ("failure", 3)]


def test_a_body_that_can_be_rewound_is_the_same_each_time(serving, session_of, time):
    file = io.BytesIO(b"skipped contents")
    file.seek(8)
    with serving(reply(503), reply(200)) as server, session_of(retry=RETRY) as session:
        assert session.put(server.url, data=file).status_code == 200
    assert [request.body for request in server.requests] == [b"contents"] * 2


def test_a_body_that_was_used_up_is_never_sent_again(serving, session_of, events, time):
    with serving(reply(503), reply(200)) as server, session_of(retry=RETRY) as session:
        assert session.put(server.url, data=iter([b"once"])).status_code == 503
    assert [request.body for request in server.requests] == [b"once"]
    assert events.events[0].detail == "body not replayable"


def test_a_body_that_breaks_is_a_failure(serving, session_of, events):
    with serving(broken()) as server, session_of(circuit_breaker=STRICT) as session:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.get(server.url)
        with pytest.raises(CircuitOpenError):
            session.get(server.url)
    assert events.sequence == [("circuit_open", 1), ("failure", 1), ("circuit_open", 1)]


def test_a_permit_is_held_until_the_body_ends(serving, session_of, events):
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    with serving(reply(200, b"12345")) as server, session_of(bulkhead=bulkhead) as session:
        with session.get(server.url, stream=True) as response:
            assert bulkhead.statistics().in_use == 1 and events.events == []
            with pytest.raises(BulkheadFullError):
                session.get(server.url)
            assert response.content == b"12345"
            assert bulkhead.statistics().in_use == 0
        with session.get(server.url, stream=True):
            pass
        with session.get(server.url, stream=True) as response:
            assert response.raw.read(3) == b"123" and response.raw.read() == b"45"
            assert bulkhead.statistics().in_use == 0
    assert [kind for kind, _ in events.sequence] == ["bulkhead_rejected", *["success"] * 3]


@pytest.mark.parametrize("step", [drip(1000, 0.02), trickle(1000, 0.02)], ids=["chunked", "with a length"])
def test_the_total_timeout_covers_the_body(serving, session_of, events, step):
    timeout = TimeoutConfig(total=0.2)
    with serving(step) as server, session_of(timeout=timeout, circuit_breaker=STRICT) as session:
        with pytest.raises(ResilienceTimeoutError, match="while reading the body"):
            session.get(server.url)
        pipeline = session.resilience.pipelines[server.key]
        assert pipeline.in_flight == 0
        assert pipeline.find(CircuitBreaker).state.value == "open"
    assert events.sequence == [("timeout", 1), ("circuit_open", 1), ("failure", 1)]


def test_an_attempt_that_takes_too_long_is_tried_again(serving, session_of, events):
    retry, timeout = RetryConfig(delay=0.01), TimeoutConfig(seconds=0.1)
    with serving(silence(), reply(200)) as server, session_of(retry=retry, timeout=timeout) as session:
        assert session.get(server.url, timeout=(3, 30)).status_code == 200
    assert events.sequence == [("timeout", 1), ("retry", 1), ("success", 2)]


def test_a_request_with_a_timeout_stays_in_the_thread_of_its_caller(serving, session_of):
    """An abandoned thread would go on reading a file that the next attempt sends as well."""
    threads = set()

    class File(io.BytesIO):
        def read(self, size=-1):
            threads.add(threading.get_ident())
            return super().read(size)

    with serving(reply()) as server, session_of(timeout=TimeoutConfig(seconds=30)) as session:
        assert session.put(server.url, data=File(b"contents")).status_code == 200
    assert threads == {threading.get_ident()}


def test_a_timeout_of_the_session_stays_one_of_requests(serving, session_of, events):
    timeout = TimeoutConfig(seconds=30)
    with serving(silence()) as server, session_of(retry=None, timeout=timeout) as session:
        with pytest.raises(requests.ReadTimeout):
            session.get(server.url, timeout=0.05)
    assert events.sequence == [("failure", 1)]


def test_each_redirect_is_a_call_of_its_own(serving, session_of, events):
    with serving(reply(200)) as target, serving(reply(302, b"", Location=target.url)) as server:
        with session_of() as session:
            assert session.get(server.url).status_code == 200
    assert [event.function_name for event in events.events] == [f"127.0.0.1:{at.port}" for at in (server, target)]


def test_ids_and_the_time_left_are_passed_on(serving, session_of):
    token = resilience_context.set({"request_id": "r-1"})
    try:
        with serving(reply()) as server, session_of(timeout=TimeoutConfig(total=10), propagate=True) as session:
            response = session.get(server.url)
    finally:
        resilience_context.reset(token)
    headers = server.requests[0].headers
    assert headers["x-request-id"] == "r-1"
    assert 5000 < int(headers["x-request-timeout-ms"]) < 10_000
    assert "x-request-id" not in response.request.headers


def test_cookies_and_elapsed_are_as_without_the_adapter(serving, session_of):
    with serving(reply(200, Set_Cookie="a=b")) as server, session_of() as session:
        response = session.get(server.url)
    assert session.cookies.get("a") == "b"
    assert response.elapsed > timedelta(0)


def test_an_adapter_cannot_be_copied():
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.copy(ResilienceAdapter())


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match="timeout must be None or a TimeoutConfig, not 5"):
        ResilienceAdapter(timeout=5)
