"""How do I call an HTTP API that fails, asks me to wait, and goes down?

    uv run python examples/http_client.py

The API is a script here, so that the example runs anywhere; put `httpx2.AsyncHTTPTransport()` in its place.
"""

from __future__ import annotations

import anyio
import httpx2

from pyresilience import CircuitBreakerConfig, CircuitOpenError, ResilienceEvent, RetryConfig, TimeoutConfig
from pyresilience_middleware import ResilienceTransport


class Api(httpx2.AsyncBaseTransport):
    """Answers `/flaky` at the third attempt, `/busy` after a second of rest, and is down otherwise."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.requests.append(path)
        if path == "/flaky" and self.requests.count(path) == 3:
            return httpx2.Response(200, text="third time lucky", request=request)
        if path == "/busy":
            if self.requests.count(path) == 1:
                return httpx2.Response(429, headers={"retry-after": "1"}, request=request)
            return httpx2.Response(200, text="rested", request=request)
        return httpx2.Response(503, request=request)


def show(event: ResilienceEvent) -> None:
    print(f"    {event.function_name} #{event.attempt}: {event.event_type} {event.detail}".rstrip())


async def main() -> None:
    api = Api()
    transport = ResilienceTransport(
        api,
        retry=RetryConfig(max_attempts=3, delay=0.05),
        timeout=TimeoutConfig(seconds=2, total=10),
        circuit_breaker=CircuitBreakerConfig(failure_threshold=5),
        listeners=[show],
    )
    async with httpx2.AsyncClient(transport=transport, base_url="https://api.example.com") as client:
        print("GET /flaky")
        print("  ", (await client.get("/flaky")).text)

        print("GET /busy")
        print("  ", (await client.get("/busy")).text)

        print("POST /down is not repeated: the server may have acted on it")
        print("  ", (await client.post("/down")).status_code)

        print("GET /down until the circuit of this host opens")
        print("  ", (await client.get("/down")).status_code)
        try:
            await client.get("/down")
        except CircuitOpenError as error:
            print("  ", error)
    print(f"{len(api.requests)} requests were sent")


if __name__ == "__main__":
    anyio.run(main)
