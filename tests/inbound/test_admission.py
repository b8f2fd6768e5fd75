"""Guarding in one task: when it is done, that listeners cannot tell it from two tasks, and what only it can do."""

from __future__ import annotations

import asyncio
import math

import anyio
import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from pyresilience import (
    AsyncRateLimiter,
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    FallbackConfig,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    Timeout,
    TimeoutConfig,
    resilience_context,
)
from pyresilience.testing import EventRecorder, VirtualTime
from pyresilience_middleware import ResilienceMiddleware
from pyresilience_middleware.inbound.admission import Admissions
from pyresilience_middleware.inbound.reply import WatchedReply
from pyresilience_middleware.inbound.suspension import can_suspend
from tests.inbound.conversation import get, hello, http_scope, respond
from tests.inbound.test_transparency import INBOUND, STEPS, converse, passing


@pytest.fixture
def events():
    return EventRecorder()


def kinds(events):
    return [kind for kind, _ in events.sequence]


class OwnBulkhead(Bulkhead):
    """A layer of the user's own, which may do what it likes."""


@pytest.mark.parametrize(
    ("members", "alone"),
    [
        ([], True),
        ([RateLimiterConfig(), AsyncRateLimiter(), BulkheadConfig(), CircuitBreakerConfig()], True),
        ([CircuitBreakerConfig(), TimeoutConfig(seconds=1), BulkheadConfig(), TimeoutConfig(seconds=2)], True),
        ([BulkheadConfig(), TimeoutConfig(seconds=math.inf, total=3)], True),
        ([TimeoutConfig(seconds=math.inf), CircuitBreakerConfig()], True),
        ([TimeoutConfig(seconds=1), CircuitBreakerConfig()], False),
        ([CircuitBreakerConfig(), TimeoutConfig(total=1)], False),
        ([OwnBulkhead()], False),
        ([passing], False),
        ([FallbackConfig(handler="busy", fallback_on=(CircuitOpenError,))], False),
    ],
)
def test_only_layers_that_are_known_are_suspended(members, alone):
    assert can_suspend(Pipeline(*members)) is alone


# Nobody can tell the difference


BREAKER = CircuitBreakerConfig(failure_threshold=3, slow_call_duration=1.0)
LAYERS = [
    (BREAKER, BulkheadConfig(1)),
    (BREAKER, BulkheadConfig(1), TimeoutConfig(seconds=1.25)),
    (BREAKER, TimeoutConfig(seconds=1.25), BulkheadConfig(1, max_wait=60)),
    (TimeoutConfig(seconds=1.25, per_attempt=False), BulkheadConfig(1, max_wait=60)),
    (BulkheadConfig(1), TimeoutConfig(seconds=3.75, total=1.25)),
    (RateLimiterConfig(), TimeoutConfig(seconds=1.25), BulkheadConfig(1), TimeoutConfig(seconds=3.75)),
]


def observed(pipeline, events):
    breaker = pipeline.find(CircuitBreaker)
    verdict = None if breaker is None else (breaker.metrics, breaker.failure_count)
    recorded = [
        (
            event.event_type,
            isinstance(event.error, Exception) and type(event.error),
            event.detail,
            event.duration,
            event.context,
        )
        for event in events.events
    ]
    return recorded, pipeline.find(Bulkhead).statistics(), verdict, pipeline.in_flight


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    layers=st.sampled_from(LAYERS),
    steps=st.lists(STEPS, max_size=7),
    inbound=INBOUND,
    cancel_after=st.sampled_from([0.75, 1.0, 1000.0]),
)
@example(
    layers=LAYERS[1],
    steps=[("sleep and turn cancellation into an error", 2.0)],
    inbound=[],
    cancel_after=1000.0,
)
async def test_one_task_and_two_tasks_are_the_same_to_everybody(layers, steps, inbound, cancel_after):
    """The same messages, errors, events, durations, permits and verdicts, whatever the app does."""
    outcomes = []
    for more in ((), (passing,)):
        events = EventRecorder()
        guard = Pipeline(*layers, *more, name="inbound", listeners=[events])
        assert can_suspend(guard) is (more == ())

        def wrapped(app, guard=guard):
            return ResilienceMiddleware(app, pipeline=guard, context=lambda scope: {"path": scope["path"]})

        wire, heard, raised, cancelled = await converse(wrapped, http_scope("/a"), steps, inbound, cancel_after)
        outcomes.append((wire, heard, raised, cancelled, observed(guard, events)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.usefixtures("each_way")
async def test_a_cancellation_while_a_late_app_cleans_up_is_neutral(events):

    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)

    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    pipeline = Pipeline(breaker, BulkheadConfig(1), TimeoutConfig(seconds=2), listeners=[events])
    with anyio.move_on_after(4) as cancelled:
        await get(ResilienceMiddleware(app, pipeline=pipeline))
    assert cancelled.cancelled_caught and breaker.state.value == "closed"
    assert kinds(events) == ["cancelled"]
    assert pipeline.find(Bulkhead).statistics().in_use == 0


@pytest.mark.usefixtures("each_way")
async def test_a_deadline_counts_from_where_the_timeout_stands(events):
    """It bounds the wait for a permit together with the app."""
    ended = []

    async def app(scope, receive, send):
        try:
            await anyio.sleep(3)
            await respond(send)
        finally:
            ended.append(anyio.current_time() - began)

    pipeline = Pipeline(TimeoutConfig(seconds=5), BulkheadConfig(1, max_wait=math.inf), listeners=[events])
    middleware = ResilienceMiddleware(app, pipeline=pipeline)
    statuses = []

    async def request():
        statuses.append((await get(middleware)).status)

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request)
        tasks.start_soon(request)
    assert statuses == [200, 504] and ended == [pytest.approx(3), pytest.approx(5)]
    assert kinds(events) == ["success", "timeout", "failure"]
    assert pipeline.find(Bulkhead).statistics().in_use == 0


@pytest.mark.usefixtures("each_way")
async def test_a_request_that_waited_keeps_to_its_own_deadline_though_later_ones_are_in_line_before_it():
    timeout = Timeout(TimeoutConfig(seconds=5))
    waiting = Pipeline(timeout, BulkheadConfig(1, max_wait=math.inf))
    ended = {}

    async def app(scope, receive, send):
        try:
            await anyio.sleep(3 if scope["path"] == "/first" else 60)
            await respond(send)
        finally:
            ended[scope["path"]] = anyio.current_time() - began

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, ResilienceMiddleware(app, pipeline=waiting), "/first")
        await anyio.sleep(0.5)
        tasks.start_soon(get, ResilienceMiddleware(app, pipeline=waiting), "/waits")
        await anyio.sleep(0.5)
        tasks.start_soon(get, ResilienceMiddleware(app, pipeline=Pipeline(timeout)), "/later")
    assert ended == {"/first": pytest.approx(3), "/waits": pytest.approx(5.5), "/later": pytest.approx(6)}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_app_sees_its_deadline_until_its_response_is_complete(backend):
    seen = []

    async def app(scope, receive, send):
        seen.append(anyio.current_effective_deadline() - anyio.current_time())
        await anyio.sleep(1)
        await respond(send)
        seen.append(anyio.current_effective_deadline())
        await anyio.sleep(9)
        seen.append(anyio.current_time() - began)

    async def scenario():
        nonlocal began
        began = anyio.current_time()
        await get(ResilienceMiddleware(app, pipeline=Pipeline(TimeoutConfig(seconds=5))))

    began = 0.0
    VirtualTime().run(scenario, backend=backend)
    assert seen == [pytest.approx(5), math.inf, pytest.approx(10)]


def test_an_app_that_fails_leaves_no_deadline_behind():
    async def app(scope, receive, send):
        raise LookupError

    async def scenario():
        for _ in range(3):
            with pytest.raises(LookupError):
                await get(middleware)
        return [len(queue.open) for queue in timeout.queues.values()]

    timeout = Timeout(TimeoutConfig(seconds=5))
    middleware = ResilienceMiddleware(app, pipeline=Pipeline(timeout))
    assert VirtualTime().run(scenario, backend="asyncio") == [0]


def test_requests_with_one_limit_share_one_timer():
    async def app(scope, receive, send):
        await anyio.sleep(0.1)
        ended.append(anyio.current_time() - began)
        await anyio.sleep(60 if len(ended) % 2 else 0)
        await respond(send)

    async def scenario():
        nonlocal began
        loop = asyncio.get_running_loop()
        middleware = ResilienceMiddleware(app, pipeline=Pipeline(TimeoutConfig(seconds=5)))
        began = loop.time()
        tasks = [asyncio.create_task(get(middleware)) for _ in range(50)]
        await asyncio.sleep(0.2)
        timers.append(sum(not timer.cancelled() for timer in loop._scheduled))
        replies = await asyncio.gather(*tasks)
        statuses.extend(reply.status for reply in replies)
        timers.append(loop.time() - began)

    began = 0.0
    ended: list[float] = []
    statuses: list[int] = []
    timers: list[float] = []
    VirtualTime().run(scenario, backend="asyncio")
    assert sorted(statuses) == [200] * 25 + [504] * 25
    assert timers == [26, pytest.approx(5)]  # the apps that sleep, and the timer of them all


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(("attempt", "total", "detail"), [(3, 2, "call timed out"), (2, 3, "attempt timed out")])
async def test_of_several_deadlines_the_earliest_is_told(events, attempt, total, detail):
    async def app(scope, receive, send):
        await anyio.sleep(60)

    pipeline = Pipeline(BulkheadConfig(), TimeoutConfig(seconds=attempt, total=total), listeners=[events])
    assert (await get(ResilienceMiddleware(app, pipeline=pipeline))).status == 504
    timeout, _ = events.events
    assert timeout.detail == f"{detail} after 2.00s" and timeout.error.seconds == 2


@pytest.mark.usefixtures("each_way")
async def test_a_response_that_comes_too_late_is_a_timeout_that_nobody_raises(events):
    async def app(scope, receive, send):
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
            await respond(send)

    reply = await get(ResilienceMiddleware(app, pipeline=Pipeline(TimeoutConfig(seconds=2), listeners=[events])))
    assert reply.status == 200 and kinds(events) == ["timeout", "failure"]


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_response_of_an_app_that_held_up_the_event_loop_is_too_late_as_well(backend, events):
    time = VirtualTime()

    async def app(scope, receive, send):
        time.jump(3)
        await respond(send)

    pipeline = Pipeline(TimeoutConfig(seconds=2), listeners=[events])
    reply = time.run(get, ResilienceMiddleware(app, pipeline=pipeline), backend=backend)
    assert reply.status == 200 and kinds(events) == ["timeout", "failure"]


@pytest.mark.usefixtures("each_way")
async def test_a_deadline_ends_the_wait_for_a_permit():
    bulkhead = Bulkhead(BulkheadConfig(1, max_wait=math.inf))
    pipeline = Pipeline(TimeoutConfig(seconds=5), bulkhead)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Pipeline(bulkhead).call, anyio.sleep, 60)
        await anyio.sleep(1)
        began = anyio.current_time()
        assert (await get(ResilienceMiddleware(hello, pipeline=pipeline))).status == 504
        assert anyio.current_time() == pytest.approx(began + 5)
        tasks.cancel_scope.cancel()


async def test_an_interrupt_on_the_way_out_of_a_layer_is_raised_and_everything_given_back(events):
    async def interrupted(call, call_next):
        await call_next(call)
        raise KeyboardInterrupt

    pipeline = Pipeline(BulkheadConfig(1), interrupted, listeners=[events])
    sent = []

    async def send(message):
        sent.append(message["type"])

    with pytest.raises(KeyboardInterrupt):
        await Admissions(pipeline).serve(hello, http_scope(), anyio.sleep_forever, send, None)
    assert sent == ["http.response.start", "http.response.body"] and kinds(events) == ["cancelled"]
    assert pipeline.find(Bulkhead).statistics().in_use == 0 and not pipeline.in_flight


@pytest.mark.usefixtures("each_way")
async def test_a_last_message_that_cannot_be_sent_is_not_the_end(events):
    async def send(message):
        if message["type"] == "http.response.body":
            raise BrokenPipeError

    async def app(scope, receive, send):
        try:
            await respond(send)
        except BrokenPipeError:
            await anyio.sleep(2)

    await ResilienceMiddleware(app, pipeline=Pipeline(listeners=[events]))(http_scope(), anyio.sleep_forever, send)
    (success,) = events.events
    assert success.duration == pytest.approx(2)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_admission_that_comes_too_late_takes_nothing(backend, events, monkeypatch):
    """The last layer lets the request through after the deadline: permit and token come back at once."""
    time = VirtualTime()
    limiter, bulkhead = (
        RateLimiter(RateLimiterConfig(max_calls=1, period=1000)),
        Bulkhead(BulkheadConfig(1, max_wait=1)),
    )
    take_permit = Bulkhead.__call__

    async def dawdle(self, call, call_next):
        time.jump(3)
        return await take_permit(self, call, call_next)

    async def app(scope, receive, send):
        raise AssertionError("it must not run")

    monkeypatch.setattr(Bulkhead, "__call__", dawdle)
    pipeline = Pipeline(TimeoutConfig(seconds=2), limiter, bulkhead, listeners=[events])
    assert can_suspend(pipeline)
    reply = time.run(get, ResilienceMiddleware(app, pipeline=pipeline), backend=backend)
    assert reply.status == 504 and kinds(events) == ["timeout", "failure"]
    assert bulkhead.statistics().in_use == 0 and not pipeline.in_flight
    with time:
        assert limiter.available


@pytest.mark.usefixtures("each_way")
async def test_a_cancelled_request_whose_app_says_nothing_of_it_is_neutral(events):
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1, success_threshold=1, recovery_timeout=0))
    breaker.record_failure()

    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            return

    pipeline = Pipeline(breaker, BulkheadConfig(1), listeners=[events])
    with anyio.move_on_after(1):
        await ResilienceMiddleware(app, pipeline=pipeline)(http_scope(), anyio.sleep_forever, anyio.sleep)
    assert breaker.state.value == "half_open" and kinds(events)[-1] == "cancelled"


def test_a_native_cancellation_that_the_app_keeps_to_itself_is_neutral_too(events):
    async def app(scope, receive, send):
        try:
            await anyio.sleep(60)
        except asyncio.CancelledError:
            return

    async def main():
        pipeline = Pipeline(BulkheadConfig(1), listeners=[events])
        middleware = ResilienceMiddleware(app, pipeline=pipeline)
        task = asyncio.create_task(middleware(http_scope(), anyio.sleep_forever, anyio.sleep))
        await asyncio.sleep(1)
        task.cancel()
        await task

    VirtualTime().run(main)
    assert kinds(events) == ["cancelled"]


# What listeners see at the end


def ids(events):
    return [None if event.context is None else event.context.get("id") for event in events.events]


@pytest.mark.usefixtures("each_way")
async def test_the_end_of_a_call_has_the_context_that_it_was_admitted_with(events):
    """Whatever middlewares inside and handlers set meanwhile, and whichever task sends the last message."""
    inner_events = EventRecorder()
    send_box = []

    async def stranger(ready):
        resilience_context.set({"id": "of another request"})
        await ready.wait()
        await respond(send_box[0])

    async def app(scope, receive, send):
        resilience_context.set({"id": "handler"})
        send_box.append(send)
        ready.set()
        await anyio.sleep(1)

    inner = ResilienceMiddleware(
        app, pipeline=Pipeline(BulkheadConfig(1), listeners=[inner_events]), context=lambda scope: {"id": "inner"}
    )
    outer = ResilienceMiddleware(
        inner, pipeline=Pipeline(BulkheadConfig(1), listeners=[events]), context=lambda scope: {"id": "outer"}
    )
    ready = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stranger, ready)
        assert (await get(outer)).status == 200
    assert ids(events) == ["outer"] and ids(inner_events) == ["inner"]


async def test_the_traceback_of_an_error_leads_to_the_app_and_not_through_the_pipeline():
    async def app(scope, receive, send):
        raise KeyError("of the app")

    pipeline = Pipeline(CircuitBreakerConfig(), BulkheadConfig(1))
    with pytest.raises(KeyError) as caught:
        await get(ResilienceMiddleware(app, pipeline=pipeline))
    names = [entry.frame.code.name for entry in caught.traceback]
    assert names[-1] == "app" and "_admitted" not in names and "request" not in names


# Who sends the last message


async def test_a_child_task_that_sends_the_last_message_gives_the_permit_back_at_once(each_way):
    """Nothing of the app's own task has to run for it."""
    bulkhead = Bulkhead(BulkheadConfig(1))
    seen = []

    async def child(send):
        await respond(send)
        if each_way == "two tasks":
            await anyio.sleep(1)  # the pipeline ends in its own task
        seen.append(bulkhead.statistics().in_use)

    async def app(scope, receive, send):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child, send)
            await anyio.sleep(100)
        seen.append(bulkhead.statistics().in_use)

    assert (await get(ResilienceMiddleware(app, pipeline=Pipeline(bulkhead)))).status == 200
    assert seen == [0, 0]


async def test_a_task_that_outlives_the_app_may_send_the_last_message(events):
    """The call has ended with the app; a late message is passed on and ends nothing again."""

    async def late(send):
        await anyio.sleep(1)
        await respond(send, 500)

    async with anyio.create_task_group() as tasks:

        async def app(scope, receive, send):
            tasks.start_soon(late, send)

        pipeline = Pipeline(BulkheadConfig(1), TimeoutConfig(seconds=10), listeners=[events])
        reply = await get(ResilienceMiddleware(app, pipeline=pipeline))
    assert reply.status == 500 and kinds(events) == ["success"]


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


def starlette(endpoint, *middleware):
    return Starlette(routes=[Route("/", endpoint)], middleware=list(middleware))


def fastapi(endpoint, *middleware):
    app = FastAPI(middleware=list(middleware))
    app.add_api_route("/", endpoint)
    return app


def numbers():
    async def body():
        for number in range(3):
            await anyio.sleep(1)
            yield f"{number}"

    return body()


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("framework", [starlette, fastapi])
@pytest.mark.parametrize(
    ("base", "streams"), [("none", False), ("none", True), ("inside", False), ("inside", True), ("outside", False)]
)
async def test_permits_come_back_before_the_background_tasks_of_frameworks(framework, base, streams, events):
    """`BaseHTTPMiddleware` inside sends the response from one task and runs the app in another.

    Outside, it may cancel the `send` of the last message of a stream, and nobody knows whether that was sent.
    """
    pipeline = Pipeline(BulkheadConfig(1), RateLimiterConfig(), name="inbound", listeners=[events])
    bulkhead = pipeline.find(Bulkhead)
    seen = []

    async def background():
        await anyio.sleep(50)
        seen.append((bulkhead.statistics().in_use, resilience_context.get()["path"]))

    async def endpoint(request=None):
        task = BackgroundTask(background)
        return StreamingResponse(numbers(), background=task) if streams else PlainTextResponse("012", background=task)

    ours = Middleware(ResilienceMiddleware, pipeline=pipeline)
    stack = {"none": [ours], "outside": [Middleware(Passing), ours], "inside": [ours, Middleware(Passing)]}[base]
    transport = httpx2.ASGITransport(framework(endpoint, *stack))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/")).text == "012"
    assert seen == [(0, "/")]
    (success,) = events.events
    assert success.duration == pytest.approx(3 if streams else 0) and not pipeline.in_flight


# The end of the coroutine itself


async def test_a_request_that_is_closed_gives_everything_back(events):
    """As an event loop does with what is left of a task that it drops."""

    async def app(scope, receive, send):
        await anyio.sleep(60)

    pipeline = Pipeline(CircuitBreakerConfig(failure_threshold=1), BulkheadConfig(1), listeners=[events])
    before = resilience_context.set(None)
    request = ResilienceMiddleware(app, pipeline=pipeline)(http_scope(), anyio.sleep_forever, anyio.sleep)
    request.send(None)
    assert pipeline.find(Bulkhead).statistics().in_use == 1 and pipeline.in_flight
    request.close()
    assert pipeline.find(Bulkhead).statistics().in_use == 0 and not pipeline.in_flight
    assert pipeline.find(CircuitBreaker).state.value == "closed"
    assert kinds(events) == ["cancelled"]
    resilience_context.reset(before)


async def test_a_reply_is_complete_once():
    completed = []

    class Counted(WatchedReply):
        def on_complete(self):
            completed.append(self.status)

    async def send(message):
        pass

    reply = Counted(send, None)
    await respond(reply.send, 201)
    await respond(reply.send, 202)
    assert reply.complete and completed == [201]
