"""A pipeline around the app: what is refused and how, and what is never sent."""

from __future__ import annotations

import math

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    CacheConfig,
    CallRejectedError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    FallbackConfig,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    RateLimitExceededError,
    ResilienceTimeoutError,
    RetryConfig,
    TimeoutConfig,
)
from pyresilience.testing import EventRecorder
from pyresilience_middleware import ResilienceMiddleware, problem_for
from tests.inbound.conversation import get, hello, respond, talk, websocket_scope

pytestmark = pytest.mark.usefixtures("each_way")

DENIAL = {"extensions": {"websocket.http.response": {}}}


@pytest.fixture
def events():
    return EventRecorder()


def kinds(events):
    return [kind for kind, _ in events.sequence]


def start(status=200):
    return {"type": "http.response.start", "status": status, "headers": []}


def body(more=False):
    return {"type": "http.response.body", "body": b"x", "more_body": more}


# Refusals


async def test_a_rate_limit_is_429_with_its_quota(events):
    limiter = RateLimiter(RateLimiterConfig(max_calls=2, period=60), name='per "client"')
    app = ResilienceMiddleware(hello, pipeline=Pipeline(limiter, listeners=[events]))
    assert [(await get(app)).status for _ in range(2)] == [200, 200]
    reply = await get(app, headers=[(b"x-request-id", b"req-1")])
    assert reply.status == 429
    assert reply.headers == {
        "content-type": "application/problem+json",
        "content-length": str(len(reply.body)),
        "cache-control": "no-store",
        "retry-after": "30",
        "ratelimit-policy": r'"per \"client\"";q=2;w=60',
        "ratelimit": r'"per \"client\"";r=0;t=30',
        "x-request-id": "req-1",
    }
    assert reply.json == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "The request rate limit is exceeded.",
        "violated-policies": ['per "client"'],
    }
    assert kinds(events) == ["success", "success", "rate_limited"]


async def test_a_full_bulkhead_is_503():
    app = ResilienceMiddleware(sleepy, pipeline=Pipeline(BulkheadConfig(max_concurrent=1), name="secret upstream"))
    replies = []

    async def request():
        replies.append(await get(app))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request)
        tasks.start_soon(request)
    refused, served = replies
    assert (served.status, refused.status, refused.headers["retry-after"]) == (200, 503, "1")
    assert refused.json["type"].endswith("#temporary-reduced-capacity")
    assert b"secret" not in refused.body


async def sleepy(scope, receive, send):
    await anyio.sleep(10)
    await respond(send)


async def test_an_open_circuit_is_503_until_it_recovers():
    failing = True

    async def app(scope, receive, send):
        await respond(send, 500 if failing else 200)

    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=2, recovery_timeout=30, success_threshold=1))
    middleware = ResilienceMiddleware(app, pipeline=Pipeline(breaker))
    assert [(await get(middleware)).status for _ in range(2)] == [500, 500]
    await anyio.sleep(10.5)
    refused = await get(middleware)
    assert (refused.status, refused.headers["retry-after"]) == (503, "20")
    failing = False
    await anyio.sleep(20)
    assert (await get(middleware)).status == 200
    assert breaker.state.value == "closed"


async def test_our_own_timeout_is_504_and_cancels_the_app(events):
    ended = []

    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        finally:
            ended.append(anyio.current_time())

    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    began = anyio.current_time()
    reply = await get(
        ResilienceMiddleware(app, pipeline=Pipeline(breaker, TimeoutConfig(seconds=2), listeners=[events]))
    )
    assert reply.status == 504 and "retry-after" not in reply.headers
    assert reply.json["title"] == "Gateway Timeout"
    assert ended == [pytest.approx(began + 2)]
    assert breaker.state.value == "open"
    assert kinds(events) == ["timeout", "circuit_open", "failure"]


async def test_a_total_timeout_also_bounds_the_wait_for_a_permit():
    pipeline = Pipeline(TimeoutConfig(seconds=5, per_attempt=False), BulkheadConfig(1, max_wait=math.inf))
    app = ResilienceMiddleware(sleepy, pipeline=pipeline)
    statuses = []

    async def request():
        statuses.append((await get(app)).status)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request)
        tasks.start_soon(request)
    assert statuses == [504, 504]


async def test_head_refusals_have_no_body():
    breaker = CircuitBreaker()
    breaker.force_open()
    reply = await get(ResilienceMiddleware(hello, pipeline=Pipeline(breaker)), method="HEAD")
    assert reply.status == 503 and reply.body == b"" and int(reply.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [
        (None, b"1"),
        (0.0, b"1"),
        (0.2, b"1"),
        (-5.0, b"1"),
        (math.nan, b"1"),
        (1.01, b"2"),
        (1e12, b"2147483647"),
        (math.inf, b"2147483647"),
    ],
)
def test_retry_after_is_a_whole_number_of_seconds(retry_after, header):
    for error in (BulkheadFullError, CircuitOpenError, RateLimitExceededError, CallRejectedError):
        assert (b"retry-after", header) in problem_for(error("no", retry_after=retry_after)).headers


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        (RateLimiterConfig(max_calls=10, period=0.5), b'"rate_limiter";q=20;w=1'),
        (RateLimiterConfig(max_calls=10, period=1.5), b'"rate_limiter";q=13;w=2'),
        (RateLimiterConfig(max_calls=1, period=3600), b'"rate_limiter";q=1;w=3600'),
    ],
)
def test_quotas_are_told_in_whole_seconds(config, policy):
    error = RateLimitExceededError("no", retry_after=0.1, name="rate_limiter")
    assert (b"ratelimit-policy", policy) in problem_for(error, Pipeline(config)).headers


def test_a_policy_name_becomes_a_valid_structured_string():
    pipeline = Pipeline(RateLimiter(RateLimiterConfig(), name="é\r\n\\"))
    error = RateLimitExceededError("no", name="é\r\n\\")
    assert dict(problem_for(error, pipeline).headers)[b"ratelimit"] == rb'"???\\";r=0;t=1'


# Errors of the app


@pytest.mark.parametrize("pipeline", [None, Pipeline(RateLimiterConfig(max_calls=1000))], ids=["bare", "guarded"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RateLimitExceededError("upstream secret", retry_after=3.5, name="rate_limiter"), 429),
        (BulkheadFullError("upstream secret"), 503),
        (CircuitOpenError("upstream secret", retry_after=3.5), 503),
        (ResilienceTimeoutError("upstream secret"), 504),
    ],
)
async def test_refusals_of_calls_inside_the_app_are_answered_without_details(pipeline, error, status):
    async def app(scope, receive, send):
        raise error

    reply = await get(ResilienceMiddleware(app, pipeline=pipeline))
    assert reply.status == status and reply.headers["content-type"] == "application/problem+json"
    assert b"secret" not in reply.body and "ratelimit" not in reply.headers
    if getattr(error, "retry_after", None):
        assert reply.headers["retry-after"] == "4"


@pytest.mark.parametrize("pipeline", [None, Pipeline(BulkheadConfig())], ids=["bare", "guarded"])
@pytest.mark.parametrize("error", [CircuitOpenError("no"), ResilienceTimeoutError("no"), ValueError("no")])
async def test_after_the_start_errors_are_raised_and_nothing_more_is_sent(pipeline, error):
    sent = []

    async def app(scope, receive, send):
        await send(start())
        raise error

    async def send(message):
        sent.append(message["type"])

    with pytest.raises(type(error)) as raised:
        await ResilienceMiddleware(app, pipeline=pipeline)({"type": "http", "path": "/"}, talk, send)
    assert raised.value is error and sent == ["http.response.start"]


@pytest.mark.parametrize("pipeline", [None, Pipeline(BulkheadConfig())], ids=["bare", "guarded"])
@pytest.mark.parametrize(
    "error", [ValueError("x"), TimeoutError("x"), ExceptionGroup("x", [CircuitOpenError("x")]), SystemExit(3)]
)
async def test_unknown_errors_are_the_same_object_outside(pipeline, error):
    async def app(scope, receive, send):
        raise error

    with pytest.raises(type(error)) as raised:
        await get(ResilienceMiddleware(app, pipeline=pipeline))
    assert raised.value is error


async def test_a_broken_connection_is_the_apps_to_handle():
    """Servers may raise OSError from `send`."""

    async def send(message):
        raise BrokenPipeError

    pipeline = Pipeline(BulkheadConfig())
    with pytest.raises(BrokenPipeError):
        await ResilienceMiddleware(hello, pipeline=pipeline)({"type": "http", "path": "/"}, talk, send)
    assert pipeline.find(Bulkhead).statistics().in_use == 0


async def test_a_timeout_after_the_start_cancels_the_app_and_breaks_the_connection(events):
    sent = []

    async def app(scope, receive, send):
        await send(start())
        await send(body(more=True))
        await anyio.sleep(60)

    async def send(message):
        sent.append(message["type"])

    pipeline = Pipeline(TimeoutConfig(seconds=2), listeners=[events])
    with pytest.raises(ResilienceTimeoutError):
        await ResilienceMiddleware(app, pipeline=pipeline)({"type": "http", "path": "/"}, talk, send)
    assert sent == ["http.response.start", "http.response.body"]
    assert kinds(events) == ["timeout", "failure"]


async def test_an_app_that_answers_while_it_is_cancelled_is_not_answered_again():
    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await respond(send, 418)

    reply = await get(ResilienceMiddleware(app, pipeline=Pipeline(TimeoutConfig(seconds=2))))
    assert reply.status == 418


async def test_an_error_after_such_an_answer_is_raised():
    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await respond(send, 418)
                await anyio.sleep(1)
            raise ValueError("cleanup")

    with pytest.raises(ValueError, match="cleanup"):
        await get(ResilienceMiddleware(app, pipeline=Pipeline(TimeoutConfig(seconds=2))))


async def test_an_error_while_the_app_is_cancelled_goes_before_the_timeout():
    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        finally:
            raise ValueError("cleanup")

    with pytest.raises(ValueError, match="cleanup"):
        await get(ResilienceMiddleware(app, pipeline=Pipeline(TimeoutConfig(seconds=2))))


async def test_no_permit_comes_back_before_a_cancelled_app_has_ended():
    pipeline = Pipeline(BulkheadConfig(1), TimeoutConfig(seconds=2))
    bulkhead = pipeline.find(Bulkhead)
    seen = []

    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            seen.append(bulkhead.statistics().in_use)

    assert (await get(ResilienceMiddleware(app, pipeline=pipeline))).status == 504
    assert seen == [1] and bulkhead.statistics().in_use == 0


# Fallbacks and layers of the user's own


async def test_a_fallback_answers_with_an_application():
    async def busy(scope, receive, send):
        await respond(send, 200, b"stale page")

    breaker = CircuitBreaker()
    breaker.force_open()
    fallback = FallbackConfig(handler=lambda error: busy, fallback_on=(CallRejectedError,))
    reply = await get(ResilienceMiddleware(hello, pipeline=Pipeline(fallback, breaker)))
    assert (reply.status, reply.body) == (200, b"stale page") and "x-request-id" in reply.headers


async def test_a_fallback_never_answers_after_the_start():
    async def app(scope, receive, send):
        await send(start())
        raise LookupError("too late")

    pipeline = Pipeline(FallbackConfig(handler=lambda error: hello, fallback_on=(LookupError,)))
    with pytest.raises(LookupError, match="too late"):
        await get(ResilienceMiddleware(app, pipeline=pipeline))


async def test_a_fallback_that_is_no_application_is_named():
    pipeline = Pipeline(FallbackConfig(handler=lambda error: {"status": "busy"}, fallback_on=(LookupError,)))

    async def app(scope, receive, send):
        raise LookupError

    with pytest.raises(TypeError, match=r"ASGI application, not \{'status': 'busy'\}"):
        await get(ResilienceMiddleware(app, pipeline=pipeline))


@pytest.mark.parametrize("member", [RetryConfig(), CacheConfig(), FallbackConfig(handler="busy")])
def test_layers_that_cannot_work_around_requests_are_refused(member):
    with pytest.raises(TypeError, match=type(member).__name__.removesuffix("Config")):
        ResilienceMiddleware(hello, pipeline=Pipeline(member))


async def test_a_layer_that_serves_a_request_twice_is_told_so():
    calls = []

    async def twice(call, call_next):
        await call_next(call)
        return await call_next(call)

    async def app(scope, receive, send):
        calls.append(1)
        await respond(send)

    with pytest.raises(RuntimeError, match="twice"):
        await get(ResilienceMiddleware(app, pipeline=Pipeline(twice)))
    assert calls == [1]


async def test_a_layer_that_raises_before_the_app_has_run_is_heard():
    async def broken(call, call_next):
        raise LookupError("no such tenant")

    with pytest.raises(LookupError, match="no such tenant"):
        await get(ResilienceMiddleware(hello, pipeline=Pipeline(broken)))


async def test_a_layer_may_wait_on_its_way_out():
    async def slow(call, call_next):
        result = await call_next(call)
        await call.sleep(5)
        return result

    began = anyio.current_time()
    assert (await get(ResilienceMiddleware(hello, pipeline=Pipeline(slow)))).status == 200
    assert anyio.current_time() == pytest.approx(began + 5)


# Websockets


async def chat(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await anyio.sleep(100)
    await send({"type": "websocket.send", "text": "hi"})


async def test_a_websocket_is_guarded_until_its_handshake_is_answered(events):
    pipeline = Pipeline(BulkheadConfig(1), TimeoutConfig(seconds=5), listeners=[events])
    reply = await talk(
        ResilienceMiddleware(chat, pipeline=pipeline), websocket_scope(), [{"type": "websocket.connect"}]
    )
    assert [message["type"] for message in reply.messages] == ["websocket.accept", "websocket.send"]
    (success,) = events.events
    assert success.duration == pytest.approx(0)


async def test_a_refused_websocket_gets_a_real_response_where_the_server_can():
    breaker = CircuitBreaker()
    breaker.force_open()
    app = ResilienceMiddleware(chat, pipeline=Pipeline(breaker))
    reply = await talk(app, websocket_scope(**DENIAL))
    assert (reply.status, reply.headers["retry-after"]) == (503, "30")
    assert [message["type"] for message in reply.messages] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]


async def test_a_refused_websocket_is_closed_with_1013_elsewhere():
    breaker = CircuitBreaker()
    breaker.force_open()
    for extensions in ({}, {"extensions": None}, {"extensions": {}}):
        reply = await talk(ResilienceMiddleware(chat, pipeline=Pipeline(breaker)), websocket_scope(**extensions))
        assert [(message["type"], message["code"]) for message in reply.messages] == [("websocket.close", 1013)]


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_refusal_inside_a_websocket_is_answered_only_before_accept(accepted):
    async def app(scope, receive, send):
        if accepted:
            await send({"type": "websocket.accept"})
        raise CircuitOpenError("no")

    for pipeline in (None, Pipeline(BulkheadConfig())):
        conversation = talk(ResilienceMiddleware(app, pipeline=pipeline), websocket_scope(**DENIAL))
        if accepted:
            with pytest.raises(CircuitOpenError):
                await conversation
        else:
            assert (await conversation).status == 503
