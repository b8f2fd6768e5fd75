"""How do I guard a FastAPI app, and see its metrics and health?

    uv run python examples/fastapi_app.py

Starts the app on a free port of this machine, calls it, and stops it. In earnest you would only have `app`, and start
it with `uvicorn module:app`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import httpx2
import uvicorn
from fastapi import FastAPI

from pyresilience import (
    CircuitBreakerConfig,
    FallbackConfig,
    Pipeline,
    RateLimiterConfig,
    TimeoutConfig,
    resilience_context,
    resilient,
)
from pyresilience_middleware import ResilienceMiddleware

app = FastAPI()
app.add_middleware(
    ResilienceMiddleware,
    pipeline=Pipeline(RateLimiterConfig(max_calls=4, period=60), TimeoutConfig(seconds=5), name="inbound"),
)


@resilient(
    circuit_breaker=CircuitBreakerConfig(failure_threshold=2),
    fallback=FallbackConfig(handler={"usd": 1.05, "stale": True}),
    name="exchange-rates",
)
async def exchange_rates() -> dict[str, float | bool]:
    raise ConnectionError("connection refused")


@app.get("/rates")
async def rates() -> dict[str, float | bool]:
    return await exchange_rates()


@app.get("/whoami")
async def whoami() -> dict[str, str]:
    return dict(resilience_context.get() or {})


def call_it(url: str) -> None:
    with httpx2.Client(base_url=url, trust_env=False) as client:
        context = client.get("/whoami", headers={"x-request-id": "r-1"}).json()
        print("context of a request:", {key: context[key] for key in ("request_id", "method", "path")})

        for _ in range(4):
            response = client.get("/rates")
            print("GET /rates:", response.status_code, response.json().get("title") or response.json())
            if response.status_code == 429:
                print("retry after", response.headers["retry-after"], "seconds")

        health = client.get("/health").json()
        print("health:", health["status"], health["functions"]["exchange-rates"])

        print("metrics:")
        for line in client.get("/metrics").text.splitlines():
            if line.startswith("pyresilience_events_total"):
                print("  ", line)


@contextmanager
def running(application: FastAPI) -> Generator[str]:
    """Run the server in a thread, on a free port of the loopback interface."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


if __name__ == "__main__":
    with running(app) as url:
        call_it(url)
