"""For paths it does not own the middleware cannot be told from nothing, whatever the app does."""

from __future__ import annotations

import math

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyresilience import BulkheadConfig, CircuitBreakerConfig, Pipeline, TimeoutConfig, resilience_context
from pyresilience_middleware import ResilienceMiddleware
from tests.inbound.conversation import http_scope

HEADERS = st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=3)
STARTS = st.builds(
    lambda status, headers: {"type": "http.response.start", "status": status, "headers": headers},
    st.sampled_from([100, 200, 204, 304, 500, 999, None]),
    HEADERS,
)
BODIES = st.builds(
    lambda body, more: {"type": "http.response.body", "body": body, "more_body": more},
    st.binary(max_size=5),
    st.booleans(),
)
ODD = st.sampled_from(
    [
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.push", "path": "/x", "headers": []},
        {"type": "http.response.body"},
        {"type": "nonsense"},
        {},
    ]
)
MESSAGES = st.one_of(STARTS, BODIES, ODD)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["send", "send in a child task"]), MESSAGES),
    st.tuples(st.just("receive"), st.none()),
    st.tuples(st.sampled_from(["sleep", "sleep and turn cancellation into an error"]), st.sampled_from([0, 0.5, 2.0])),
    st.tuples(
        st.just("raise"),
        st.sampled_from([ValueError, OSError, TimeoutError, RuntimeError, ExceptionGroup, KeyboardInterrupt]),
    ),
)
INBOUND = st.lists(
    st.sampled_from(
        [
            {"type": "http.request", "body": b"ab", "more_body": True},
            {"type": "http.request", "body": b"", "more_body": False},
            {"type": "http.disconnect"},
        ]
    ),
    max_size=3,
)
PATHS = st.text(max_size=6).map(lambda text: "/" + text).filter(lambda path: path != "/health")  # which is an endpoint


async def take(step, argument, receive, send, heard):
    if step == "send":
        await send(argument)
    elif step == "send in a child task":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, argument)
    elif step == "receive":
        heard.append(id(await receive()))
    elif step == "sleep":
        await anyio.sleep(argument)
    elif step == "sleep and turn cancellation into an error":
        try:
            await anyio.sleep(argument)
        except anyio.get_cancelled_exc_class():
            raise ValueError("while being cancelled") from None
    elif argument is ExceptionGroup:
        raise ExceptionGroup("boom", [ValueError("one"), OSError("two")])
    else:
        raise argument("boom")


async def converse(wrap, scope, steps, inbound, cancel_after):
    """What the server saw, what the app saw, what was raised, and whether the cancellation landed."""
    waiting = list(inbound)
    wire, heard = [], []

    async def receive():
        if not waiting:
            await anyio.sleep(math.inf)
        message = waiting.pop(0)
        wire.append(("received", id(message)))
        return message

    async def send(message):
        wire.append(("sent", message))

    async def app(scope, receive, send):
        for step, argument in steps:
            await take(step, argument, receive, send, heard)

    raised = None
    with anyio.move_on_after(cancel_after) as cancelled:
        try:
            await wrap(app)(scope, receive, send)
        except (Exception, KeyboardInterrupt) as error:
            raised = type(error), str(error)
    return wire, heard, raised, cancelled.cancelled_caught


def without_the_request_id(wire):
    """The one difference that is wanted: the first start carries `x-request-id`, in a message that is a copy."""
    for position, (direction, message) in enumerate(wire):
        if direction == "sent" and message.get("type") == "http.response.start":
            (name, _), *others = reversed(message["headers"])
            assert name == b"x-request-id"
            wire[position] = (direction, {**message, "headers": list(reversed(others))})
            return wire
    return wire


def same_messages(wire, expected):
    """Equal, and but for the first start the very same objects."""
    assert wire == expected
    starts = 0
    for (direction, message), (_, original) in zip(wire, expected, strict=True):
        starts += direction == "sent" and message.get("type") == "http.response.start"
        if direction == "sent" and (message.get("type") != "http.response.start" or starts > 1):
            assert message is original


LAYERS = (CircuitBreakerConfig(failure_threshold=10**9), BulkheadConfig(), TimeoutConfig(seconds=5000.0))


KINDS = ["bare", "guarded", "with a timeout", "guarded in two tasks", "with a timeout in two tasks"]


async def passing(call, call_next):
    """A layer of the user's own: who knows what it does."""
    return await call_next(call)


def pipeline(kind):
    if kind == "bare":
        return None
    layers = LAYERS[: 3 if "timeout" in kind else 2]
    return Pipeline(*layers, passing) if "two tasks" in kind else Pipeline(*layers)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    path=PATHS,
    headers=HEADERS,
    root_path=st.sampled_from(["", "/api"]),
    steps=st.lists(STEPS, max_size=7),
    inbound=INBOUND,
    cancel_after=st.sampled_from([0.25, 1.0, 1000.0]),
)
@example(
    path="/",
    headers=[],
    root_path="",
    steps=[("sleep and turn cancellation into an error", 2.0)],
    inbound=[],
    cancel_after=0.25,
)
@example(path="/", headers=[], root_path="", steps=[("raise", KeyboardInterrupt)], inbound=[], cancel_after=1.0)
async def test_the_middleware_is_transparent(kind, path, headers, root_path, steps, inbound, cancel_after):
    guard = pipeline(kind)

    def wrapped(app):
        return ResilienceMiddleware(app, pipeline=guard)

    scope = http_scope(path, headers=headers, root_path=root_path)
    expected = await converse(lambda app: app, dict(scope), steps, inbound, cancel_after)
    wire, *rest = await converse(wrapped, dict(scope), steps, inbound, cancel_after)
    same_messages(without_the_request_id(wire), expected[0])
    assert rest == list(expected[1:])
    assert resilience_context.get() is None
    if guard is not None:
        assert not guard.in_flight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_of_the_request_passes_through(kind, anyio_backend):
    """Servers on asyncio cancel the task itself at shutdown, without any scope."""
    import asyncio

    from pyresilience.testing import EventRecorder

    events = EventRecorder()
    guard = None if kind == "bare" else Pipeline(*pipeline(kind).layers, listeners=[events])

    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def nothing(*_):
        await asyncio.Event().wait()

    task = asyncio.create_task(ResilienceMiddleware(app, pipeline=guard)(http_scope(), nothing, nothing))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if guard is not None:
        assert not guard.in_flight and [event.event_type.value for event in events.events] == ["cancelled"]
