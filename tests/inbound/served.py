"""The application that the tests with real servers run in a process of its own."""

from __future__ import annotations

import signal
import sys

import anyio
import trio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from pyresilience import Bulkhead, BulkheadConfig, CircuitBreaker, Pipeline, TimeoutConfig, resilience_context
from pyresilience_middleware import ResilienceMiddleware

bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1, max_wait=10))
forever = anyio.Event()


async def whoami(request):
    return JSONResponse(resilience_context.get())


async def background(request):
    return PlainTextResponse("done", background=BackgroundTask(forever.wait))


async def stuck(request):
    await forever.wait()


async def chat(websocket):
    await websocket.accept()
    await websocket.send_json(resilience_context.get())
    await websocket.close()


pipeline = Pipeline(bulkhead, TimeoutConfig(seconds=0.3), name="inbound")
breaker = CircuitBreaker()
breaker.force_open()
routes = [
    Route("/whoami", whoami),
    Route("/background", background),
    Route("/stuck", stuck),
    WebSocketRoute("/chat", chat),
]
guarded = Starlette(routes=routes, middleware=[Middleware(ResilienceMiddleware, pipeline=pipeline)])
closed = Starlette(routes=routes, middleware=[Middleware(ResilienceMiddleware, pipeline=Pipeline(breaker))])
bare = Starlette(routes=routes, middleware=[Middleware(ResilienceMiddleware)])


async def interrupted() -> None:
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            return


def main() -> None:
    server, app, descriptor = sys.argv[1:]
    if server == "uvicorn":
        import uvicorn

        options = {"fd": int(descriptor), "log_level": "warning", "timeout_graceful_shutdown": 1}
        uvicorn.run(globals()[app], **options)
    else:
        from hypercorn.config import Config
        from hypercorn.trio import serve

        config = Config()
        config.bind = [f"fd://{descriptor}"]
        config.graceful_timeout = 1
        trio.run(lambda: serve(globals()[app], config, shutdown_trigger=interrupted))


if __name__ == "__main__":
    main()
