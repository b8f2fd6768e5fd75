"""The context of a request: where its ids come from, what hostile headers do, and how it nests."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import anyio
import pytest

from pyresilience import Pipeline, resilience_context
from pyresilience.testing import EventRecorder
from pyresilience_middleware import ResilienceMiddleware, request_context
from tests.inbound.conversation import get, hello, http_scope, respond, talk, websocket_scope

GENERATED = re.compile("[0-9a-f]{32}")
TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = b"00-" + TRACE + b"-00f067aa0ba902b7-01"


class Probe:
    """An app that notes the context it runs in."""

    def __init__(self):
        self.seen = []
        self.states = []

    async def __call__(self, scope, receive, send):
        self.seen.append(resilience_context.get())
        self.states.append(scope["state"]["resilience_context"])
        if scope["type"] == "http":
            await respond(send)
        else:
            await send({"type": "websocket.accept"})


async def context_for(*headers, **options):
    probe = Probe()
    reply = await get(ResilienceMiddleware(probe, **options), "/a", headers)
    assert resilience_context.get() is None
    return probe.seen[0], reply


async def test_ids_come_from_the_headers_and_the_request_id_is_echoed():
    context, reply = await context_for((b"X-Request-ID", b"req-1"), (b"x-trace-id", b"trace-1"))
    assert context == {"trace_id": "trace-1", "request_id": "req-1", "method": "GET", "path": "/a"}
    assert reply.headers["x-request-id"] == "req-1"


async def test_missing_ids_are_generated_afresh_for_each_request():
    first, reply = await context_for()
    second, _ = await context_for()
    assert GENERATED.fullmatch(first["request_id"]) and GENERATED.fullmatch(first["trace_id"])
    assert reply.headers["x-request-id"] == first["request_id"]
    assert len({first["request_id"], first["trace_id"], second["request_id"], second["trace_id"]}) == 4


def test_a_forked_process_makes_up_other_ids():
    script = (
        "import os\n"
        "from pyresilience_middleware import request_context\n"
        "scope = {'type': 'http', 'headers': []}\n"
        "request_context(scope)\n"
        "child = os.fork()\n"
        "child and os.waitpid(child, 0)\n"
        "print(request_context(scope)['request_id'], flush=True)\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert len(set(printed.stdout.split())) == 2


def test_seeding_the_shared_generator_repeats_no_id():
    seen = set()
    for _ in range(2):
        random.seed(1)
        seen.add(request_context(http_scope())["request_id"])
    assert len(seen) == 2


@pytest.mark.parametrize(
    "value",
    [b"", b"a b", b"a\xff", "\u202e".encode(), b"x" * 129, b"a\r\nset-cookie: b", b"<script>", b'"', b"a,b", b"\x00"],
)
async def test_an_unfit_id_is_replaced(value):
    context, reply = await context_for((b"x-request-id", value), (b"x-trace-id", value))
    assert GENERATED.fullmatch(context["request_id"]) and GENERATED.fullmatch(context["trace_id"])
    assert reply.headers["x-request-id"] == context["request_id"]


async def test_of_several_ids_the_first_counts_even_when_it_is_unfit():
    context, _ = await context_for((b"x-request-id", b"one"), (b"x-request-id", b"two"))
    assert context["request_id"] == "one"
    context, _ = await context_for((b"x-request-id", b"no no"), (b"x-request-id", b"two"))
    assert GENERATED.fullmatch(context["request_id"])


async def test_traceparent_goes_before_x_trace_id():
    context, _ = await context_for((b"traceparent", PARENT), (b"x-trace-id", b"other"))
    assert context["trace_id"] == TRACE.decode()


@pytest.mark.parametrize("value", [b"01" + PARENT[2:], b"cc" + PARENT[2:] + b"-what-the-future-brings"])
async def test_a_later_traceparent_version_is_understood(value):
    context, _ = await context_for((b"traceparent", value))
    assert context["trace_id"] == TRACE.decode()


@pytest.mark.parametrize(
    "value",
    [
        PARENT + b"-more",
        PARENT.upper(),
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        PARENT[:-1],
        PARENT + b"\n",
        b"",
        b"\xff" * 55,
        b"01" + PARENT[2:] + b"-" + b"x" * 100_000,
    ],
)
async def test_a_malformed_traceparent_is_ignored(value):
    context, _ = await context_for((b"traceparent", value), (b"x-trace-id", b"other"))
    assert context["trace_id"] == "other"


async def test_a_duplicated_traceparent_is_ignored():
    context, _ = await context_for((b"traceparent", PARENT), (b"traceparent", PARENT), (b"x-trace-id", b"other"))
    assert context["trace_id"] == "other"


async def test_untrusted_traces_are_generated():
    context, _ = await context_for((b"traceparent", PARENT), (b"x-trace-id", b"other"), trust_trace=False)
    assert GENERATED.fullmatch(context["trace_id"])


async def test_the_current_span_goes_before_the_headers():
    from opentelemetry import trace

    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False))
    with trace.use_span(span):
        context, _ = await context_for((b"traceparent", PARENT), trust_trace=False)
    assert context["trace_id"] == f"{0xABC:032x}"


async def test_opentelemetry_is_never_imported_for_it(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, module)
    context, _ = await context_for((b"traceparent", PARENT))
    assert context["trace_id"] == TRACE.decode()
    assert "opentelemetry" not in sys.modules


async def test_two_thousand_and_huge_headers_do_no_harm():
    headers = [(b"x-%d" % number, b"\xff" * 10) for number in range(2000)]
    context, _ = await context_for(*headers, (b"x-request-id", b"x" * 128_000), (b"traceparent", b"0" * 128_000))
    assert GENERATED.fullmatch(context["request_id"]) and GENERATED.fullmatch(context["trace_id"])


async def test_headers_that_can_be_read_only_once_are_still_there_for_the_app():
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])
        await respond(send)

    await talk(ResilienceMiddleware(app), http_scope(headers=iter([(b"x-request-id", b"one")])))
    assert seen == [(b"x-request-id", b"one")]


async def test_optional_keys_of_the_scope_may_be_missing():
    probe = Probe()
    reply = await talk(ResilienceMiddleware(probe), {"type": "http", "path": "/a", "method": "GET"})
    assert reply.status == 200
    assert probe.seen[0]["path"] == "/a"


async def test_nothing_unsafe_of_method_and_path_is_kept():
    context = request_context(http_scope("/\x1b[31m\n\ud800\u2028\x9b" + "é" * 1000, method="G\nET"))
    assert context["path"].startswith(r"/\x1b[31m\n\ud800\u2028\x9bé")
    assert context["method"] == r"G\nET"
    assert len(context["path"]) < 300 and context["path"].encode()
    assert request_context(http_scope("/" + "a" * 1000))["path"] == "/" + "a" * 255


async def test_the_inherited_context_is_replaced_never_merged():
    token = resilience_context.set({"user": "of another request"})
    probe = Probe()
    await get(ResilienceMiddleware(probe))
    assert "user" not in probe.seen[0]
    assert resilience_context.get() == {"user": "of another request"}
    resilience_context.reset(token)


async def test_the_context_in_the_state_is_the_same_dict():
    probe = Probe()
    middleware = ResilienceMiddleware(probe)
    scope = http_scope(state={"database": 1})
    await talk(middleware, scope)
    await talk(middleware, websocket_scope("/ws"))
    assert probe.states[0] is probe.seen[0] and probe.states[1] is probe.seen[1]
    assert scope["state"] == {"database": 1, "resilience_context": probe.seen[0]}
    assert probe.seen[1]["method"] == "WEBSOCKET" and probe.seen[1]["path"] == "/ws"


async def test_stacked_middlewares_nest_and_restore():
    probe = Probe()
    outer = []

    async def between(scope, receive, send):
        outer.append(resilience_context.get())
        await ResilienceMiddleware(probe)(scope, receive, send)
        outer.append(resilience_context.get())
        outer.append(scope["state"]["resilience_context"])

    reply = await get(ResilienceMiddleware(between))
    assert outer[0] is outer[1] is outer[2] is not probe.seen[0]
    echoed = [value for name, value in reply.starts[0]["headers"] if name == b"x-request-id"]
    assert echoed == [probe.seen[0]["request_id"].encode()]


async def test_concurrent_requests_keep_their_contexts_apart():
    seen = {}

    async def app(scope, receive, send):
        before = resilience_context.get()
        await anyio.sleep(1)
        seen[scope["path"]] = resilience_context.get()
        assert resilience_context.get() is before
        await respond(send)

    middleware = ResilienceMiddleware(app)
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(get, middleware, f"/{number}", [(b"x-request-id", b"%d" % number)])
    assert {path: context["request_id"] for path, context in seen.items()} == {f"/{n}": f"{n}" for n in range(20)}


async def test_events_of_the_request_carry_its_context():
    events = EventRecorder()

    @Pipeline(listeners=[events])
    async def work():
        return 1

    async def app(scope, receive, send):
        await work()
        await respond(send)

    await get(ResilienceMiddleware(app), "/a", [(b"x-request-id", b"req-1"), (b"x-trace-id", b"t-1")])
    (event,) = events.events
    assert event.context == {"trace_id": "t-1", "request_id": "req-1", "method": "GET", "path": "/a"}


async def test_users_make_their_own_context():
    def context(scope):
        return {**request_context(scope, trust_trace=False), "tenant": scope["path"].strip("/")}

    seen, reply = await context_for((b"x-request-id", b"one"), context=context)
    assert seen["tenant"] == "a" and reply.headers["x-request-id"] == "one"


@pytest.mark.parametrize("request_id", ["bad\r\nset-cookie: a=b", 7, None, "é"])
async def test_an_id_of_the_users_own_is_echoed_only_when_it_is_fit(request_id):
    seen, reply = await context_for(context=lambda scope: {"request_id": request_id})
    assert seen == {"request_id": request_id} and "x-request-id" not in reply.headers


async def test_a_context_that_raises_is_logged_and_replaced(caplog):
    def context(scope):
        raise LookupError("no tenant")

    seen, reply = await context_for(context=context)
    assert reply.status == 200 and GENERATED.fullmatch(seen["request_id"])
    assert "no tenant" in caplog.text


async def test_a_request_id_that_the_app_sets_stays():
    async def app(scope, receive, send):
        await respond(send, headers=[(b"X-Request-Id", b"mine")])

    reply = await get(ResilienceMiddleware(app))
    assert reply.starts[0]["headers"] == [(b"X-Request-Id", b"mine")]


def test_an_own_context_and_distrust_contradict_each_other():
    with pytest.raises(ValueError, match="trust_trace"):
        ResilienceMiddleware(hello, context=lambda scope: {}, trust_trace=False)
