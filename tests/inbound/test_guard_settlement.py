"""A pipeline around the app: when permits, verdicts and durations are settled, and what cancellation does."""

from __future__ import annotations

import gc
import inspect
import math
import weakref

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    Pipeline,
    RateLimiterConfig,
    ResilienceTimeoutError,
    TimeoutConfig,
    resilience_context,
)
from pyresilience.testing import EventRecorder
from pyresilience_middleware import ResilienceMiddleware, ServerErrorResponse
from tests.inbound.conversation import get, respond

pytestmark = pytest.mark.usefixtures("each_way")


@pytest.fixture
def events():
    return EventRecorder()


def kinds(events):
    return [kind for kind, _ in events.sequence]


def start(status=200):
    return {"type": "http.response.start", "status": status, "headers": []}


def body(more=False):
    return {"type": "http.response.body", "body": b"x", "more_body": more}


async def test_permits_and_durations_end_with_the_last_message_not_with_background_tasks(events):
    bulkhead = Bulkhead(BulkheadConfig(1))
    seen = []

    async def app(scope, receive, send):
        await send(start())
        await send(body(more=True))
        await anyio.sleep(3)
        seen.append(bulkhead.statistics().in_use)
        await send(body())
        await anyio.sleep(1000)
        seen.append(bulkhead.statistics().in_use)
        seen.append(resilience_context.get()["path"])

    pipeline = Pipeline(bulkhead, TimeoutConfig(seconds=10), listeners=[events])
    reply = await get(ResilienceMiddleware(app, pipeline=pipeline), "/a")
    assert reply.status == 200 and seen == [1, 0, "/a"]
    (success,) = events.events
    assert success.duration == pytest.approx(3)
    assert success.context["path"] == "/a"


async def test_a_response_sent_from_a_child_task_ends_the_same_way(events):
    """As streaming responses of Starlette do, inside a task group that is still open."""

    async def stream(send):
        await send(body(more=True))
        await anyio.sleep(3)
        await send(body())

    async def app(scope, receive, send):
        await send(start())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream, send)
            await anyio.sleep(100)

    pipeline = Pipeline(TimeoutConfig(seconds=10), BulkheadConfig(1), listeners=[events])
    assert (await get(ResilienceMiddleware(app, pipeline=pipeline))).status == 200
    (success,) = events.events
    assert success.duration == pytest.approx(3)


async def test_trailers_and_files_belong_to_the_response(events):
    async def with_trailers(scope, receive, send):
        await send({**start(), "trailers": True})
        await send(body())
        await anyio.sleep(2)
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": False})
        await anyio.sleep(5)

    async def with_file(scope, receive, send):
        await send(start())
        await anyio.sleep(3)
        await send({"type": "http.response.pathsend", "path": "/etc/hostname"})
        await anyio.sleep(5)

    for app in (with_trailers, with_file):
        await get(ResilienceMiddleware(app, pipeline=Pipeline(listeners=[events])))
    assert [event.duration for event in events.events] == [pytest.approx(2), pytest.approx(3)]


@pytest.mark.parametrize("at_once", [False, True])
async def test_an_error_after_the_response_is_raised_and_no_failure_of_it(at_once, events):
    async def app(scope, receive, send):
        await respond(send)
        if not at_once:
            await anyio.sleep(1)
        raise CircuitOpenError("in a background task")

    with pytest.raises(CircuitOpenError):
        await get(ResilienceMiddleware(app, pipeline=Pipeline(listeners=[events])))
    assert kinds(events) == ["success"]


async def test_a_response_of_500_or_more_is_a_failure_that_nobody_raises(events):
    async def app(scope, receive, send):
        await respond(send, int(scope["path"][1:]))

    middleware = ResilienceMiddleware(app, pipeline=Pipeline(listeners=[events]))
    for status in (500, 503, 499, 404, 200):
        assert (await get(middleware, f"/{status}")).status == status
    assert kinds(events) == ["failure", "failure", "success", "success", "success"]
    assert isinstance(events.events[0].error, ServerErrorResponse) and events.events[0].error.status == 500


async def test_the_app_sees_the_deadline_until_the_response_is_complete():
    seen = []

    async def app(scope, receive, send):
        seen.append(anyio.current_effective_deadline() - anyio.current_time())
        await respond(send)
        seen.append(anyio.current_effective_deadline())

    await get(ResilienceMiddleware(app, pipeline=Pipeline(TimeoutConfig(seconds=7))))
    assert seen == [pytest.approx(7), math.inf]


async def test_the_app_runs_in_the_task_of_the_request():
    tasks = []

    async def app(scope, receive, send):
        tasks.append(anyio.get_current_task().id)
        await respond(send)

    await get(ResilienceMiddleware(app, pipeline=Pipeline(BulkheadConfig())))
    assert tasks == [anyio.get_current_task().id]


@pytest.mark.parametrize("after", ["queue", "app", "background"])
async def test_a_cancelled_request_gives_everything_back(after, events):
    pipeline = Pipeline(CircuitBreakerConfig(failure_threshold=1), BulkheadConfig(1, max_wait=60), listeners=[events])
    bulkhead, breaker = pipeline.find(Bulkhead), pipeline.find(CircuitBreaker)

    async def app(scope, receive, send):
        if after == "background":
            await respond(send)
        await anyio.sleep(60)

    middleware = ResilienceMiddleware(app, pipeline=pipeline)
    async with anyio.create_task_group() as tasks:
        if after == "queue":
            tasks.start_soon(Pipeline(bulkhead).call, anyio.sleep, 10)
            await anyio.sleep(1)
        with anyio.move_on_after(5) as scope:
            await get(middleware)
    assert scope.cancelled_caught
    assert bulkhead.statistics().in_use == bulkhead.statistics().waiting == 0
    assert breaker.state.value == "closed" and not pipeline.in_flight
    assert kinds(events) == ["success" if after == "background" else "cancelled"]
    assert resilience_context.get() is None


async def test_without_a_response_the_call_ends_with_the_app(events):
    async def app(scope, receive, send):
        await anyio.sleep(2)

    reply = await get(ResilienceMiddleware(app, pipeline=Pipeline(listeners=[events])))
    assert reply.messages == [] and kinds(events) == ["success"]


@pytest.mark.parametrize("ending", ["error", "error after the start", "timeout", "timeout after the start"])
async def test_an_error_leaves_no_reference_cycle_behind(ending):
    class Body:
        pass

    class Failed(Exception):
        pass

    async def app(scope, receive, send):
        big = Body()
        seen.append(weakref.ref(big))
        if "start" in ending:
            await send(start())
        if "timeout" in ending:
            await anyio.sleep(60)
        raise Failed

    seen = []
    gc.disable()
    try:
        for layers in ((BulkheadConfig(), TimeoutConfig(seconds=2)), (TimeoutConfig(seconds=2), BulkheadConfig(1, 9))):
            try:
                await get(ResilienceMiddleware(app, pipeline=Pipeline(*layers)))
            except (Failed, ResilienceTimeoutError) as error:
                seen.append(weakref.ref(error))
            await anyio.sleep(1)
        assert [ref() for ref in seen] == [None] * len(seen)
    finally:
        gc.enable()


async def test_requests_leave_nothing_for_the_garbage_collector(each_way):
    async def app(scope, receive, send):
        replies.append(weakref.ref(send.__self__))
        if scope["path"] == "/slow":
            await anyio.sleep(1)
        if scope["path"] != "/nothing":
            await respond(send, 500 if scope["path"] == "/500" else 200)

    async def cancelled_while_it_waits():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get, middleware, "/slow")
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.5):
                await get(middleware, "/waits")

    replies = []
    pipeline = Pipeline(
        CircuitBreakerConfig(), TimeoutConfig(seconds=2), BulkheadConfig(1, 9), RateLimiterConfig(4, 3600)
    )
    middleware = ResilienceMiddleware(app, pipeline=pipeline)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        if each_way == "one task":  # two leave a task of asyncio's in its own traceback
            await cancelled_while_it_waits()
        for path in ("/", "/500", "/nothing", "/refused"):
            await get(middleware, path)
        assert replies and [reply() for reply in replies] == [None] * len(replies)
        gc.collect()
        assert not {type(garbage).__name__ for garbage in gc.garbage} & {"AsyncCall", "Deadline", "AdmittedReply"}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_what_was_never_awaited_has_not_been_sent(events):
    """As when a task that was to send is cancelled before its first step."""

    async def app(scope, receive, send):
        assert inspect.iscoroutinefunction(send)
        send(start(200)).close()
        if scope["path"] == "/raises":
            raise CircuitOpenError("the circuit of a call of the app's", retry_after=3)
        await respond(send, 503)

    for middleware in (
        ResilienceMiddleware(app, pipeline=Pipeline(CircuitBreakerConfig(), listeners=[events])),
        ResilienceMiddleware(app),
    ):
        reply = await get(middleware, "/raises")
        assert reply.status == 503 and reply.headers["content-type"] == "application/problem+json"
        reply = await get(middleware, "/answers")
        assert reply.status == 503 and "x-request-id" in reply.headers
    assert kinds(events) == ["failure", "failure"]
