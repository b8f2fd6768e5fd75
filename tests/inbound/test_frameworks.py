"""The middleware in Starlette and FastAPI applications, plain, mounted and behind `root_path`."""

from __future__ import annotations

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from pyresilience import (
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    FallbackConfig,
    Pipeline,
    RateLimiterConfig,
    ResilienceTimeoutError,
    resilience_context,
    resilient,
)
from pyresilience.testing import EventRecorder
from pyresilience_middleware import ResilienceMiddleware, install_exception_handlers

IDS = {"x-request-id": "req-1", "x-trace-id": "trace-1"}


@pytest.fixture
def anyio_backend():
    """The test client runs the application in threads and an event loop of its own."""
    return "asyncio"


def whoami(request):
    return JSONResponse(resilience_context.get())


async def boom(request):
    raise ZeroDivisionError


async def refused(request):
    raise CircuitOpenError("upstream", retry_after=5)


async def late(request):
    raise ResilienceTimeoutError("upstream")


async def chat(websocket):
    await websocket.accept()
    await websocket.send_json(resilience_context.get())
    await websocket.close()


ROUTES = [
    Route("/whoami", whoami),
    Route("/boom", boom),
    Route("/refused", refused),
    Route("/late", late),
    WebSocketRoute("/chat", chat),
]


def starlette(**options):
    return Starlette(routes=ROUTES, middleware=[Middleware(ResilienceMiddleware, **options)])


def test_starlette_endpoints_in_threads_and_websockets_see_the_context():
    with TestClient(starlette()) as client:
        reply = client.get("/whoami", headers=IDS)
        assert reply.json() == {"trace_id": "trace-1", "request_id": "req-1", "method": "GET", "path": "/whoami"}
        assert reply.headers["x-request-id"] == "req-1"
        with client.websocket_connect("/chat", headers=IDS) as websocket:
            assert websocket.receive_json()["request_id"] == "req-1"


def test_endpoints_are_not_redirected_and_not_in_the_schema():
    app = FastAPI()
    app.add_middleware(ResilienceMiddleware, critical=["no-such-function"])
    with TestClient(app) as client:
        for path in ("/metrics", "/health", "/health/live", "/health/ready", "/health/startup"):
            assert client.get(path, follow_redirects=False).status_code == 200
        assert client.get("/openapi.json").json()["paths"] == {}
        assert client.get("/metrics/", follow_redirects=False).status_code == 404


def test_mounted_under_a_prefix():
    app = Starlette(routes=[Mount("/api", app=starlette())])
    with TestClient(app) as client:
        assert client.get("/api/health/live").json() == {"status": "pass"}
        assert client.get("/health/live").status_code == 404
        assert client.get("/api/whoami", headers=IDS).json()["path"] == "/api/whoami"


def test_behind_a_proxy_with_root_path():
    with TestClient(starlette(), root_path="/proxy") as client:
        assert client.get("/health/live").json() == {"status": "pass"}
        assert client.get("/proxy/health/live").json() == {"status": "pass"}


@pytest.mark.parametrize("handlers", [False, True])
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_refusals_of_guarded_calls_are_answered(framework, handlers):
    app = framework(routes=ROUTES)
    if handlers:
        install_exception_handlers(app)
    else:
        app.add_middleware(ResilienceMiddleware)
    with TestClient(app) as client:
        reply = client.get("/refused")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert reply.headers["content-type"] == "application/problem+json"
        assert client.get("/late").status_code == 504


def test_an_unexpected_error_is_still_an_error_and_its_handler_sees_the_context():
    seen = []

    async def handler(request, error):
        seen.append((resilience_context.get(), request.state.resilience_context["request_id"]))
        return PlainTextResponse("sorry", 500)

    app = Starlette(
        routes=ROUTES, middleware=[Middleware(ResilienceMiddleware)], exception_handlers={Exception: handler}
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/boom", headers=IDS).text == "sorry"
    assert seen == [(None, "req-1")]
    with TestClient(starlette()) as client, pytest.raises(ZeroDivisionError):
        client.get("/boom")


def test_readiness_follows_the_lifespan_of_the_application():
    app = starlette()
    assert TestClient(app).get("/health/ready").status_code == 200
    with TestClient(app) as client:
        assert client.get("/health/ready").status_code == 200
    assert TestClient(app).get("/health/ready").status_code == 503


def test_a_guarded_fastapi_app(each_way):
    seen = []
    limited = Pipeline(RateLimiterConfig(max_calls=3, period=3600), BulkheadConfig(), name="inbound")
    app = FastAPI()
    app.add_middleware(ResilienceMiddleware, pipeline=limited)

    async def dependency():
        seen.append(resilience_context.get()["request_id"])
        yield
        seen.append(resilience_context.get()["request_id"])

    @app.get("/stream", dependencies=[Depends(dependency)])
    async def stream():
        def lines():
            yield resilience_context.get()["request_id"]

        return StreamingResponse(lines(), background=BackgroundTask(later))

    def later():
        seen.append(resilience_context.get()["request_id"])

    with TestClient(app) as client:
        assert client.get("/stream", headers=IDS).text == "req-1"
        assert client.post("/stream").status_code == 405
        assert client.get("/nothing").status_code == 404
        reply = client.get("/stream")
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1200")
        assert client.get("/health").status_code == 200
    assert seen == ["req-1"] * 3
    assert not limited.in_flight


def test_a_refused_websocket_is_denied(each_way):
    breaker = CircuitBreaker(CircuitBreakerConfig())
    breaker.force_open()
    with TestClient(starlette(pipeline=Pipeline(breaker))) as client:
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/chat"):
            pass
    assert denied.value.status_code == 503 and denied.value.headers["retry-after"] == "30"


def test_a_starlette_response_can_be_the_fallback():
    breaker = CircuitBreaker()
    breaker.force_open()
    fallback = FallbackConfig(handler=lambda error: JSONResponse({"stale": True}), fallback_on=(CircuitOpenError,))
    with TestClient(starlette(pipeline=Pipeline(fallback, breaker))) as client:
        assert client.get("/whoami").json() == {"stale": True}


def test_the_documented_snippet_works_on_fastapi():
    """Users who set the context in a middleware of their own, as the documentation shows."""
    events = EventRecorder()
    app = FastAPI()

    @app.middleware("http")
    async def add_resilience_context(request, call_next):
        resilience_context.set(
            {
                "trace_id": request.headers.get("x-trace-id"),
                "path": request.url.path,
            }
        )
        return await call_next(request)

    @resilient(listeners=[events])
    async def work():
        return "done"

    @app.get("/job")
    async def endpoint():
        return await work()

    with TestClient(app) as client:
        assert client.get("/job", headers=IDS).json() == "done"
        assert client.get("/job").status_code == 200
    assert [event.context for event in events.events] == [
        {"trace_id": "trace-1", "path": "/job"},
        {"trace_id": None, "path": "/job"},
    ]
