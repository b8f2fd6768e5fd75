"""Checked by mypy and pyright, never run: what the decorators do to types."""

from __future__ import annotations

from typing import assert_type

from pyresilience import (
    Call,
    CallNext,
    CircuitBreakerConfig,
    Layer,
    Pipeline,
    ResilienceEvent,
    ResilienceRegistry,
    RetryConfig,
    TimeoutConfig,
    http_policy,
    resilient,
)
from pyresilience.pipeline._call import R


def listener(event: ResilienceEvent) -> None: ...


async def layer(call: Call[R], call_next: CallNext[R]) -> R:
    return await call_next(call)


class Custom:
    async def __call__(self, call: Call[R], call_next: CallNext[R]) -> R:
        return await call_next(call)


as_layer: Layer = layer
also_a_layer: Layer = Custom()
pipeline = Pipeline(RetryConfig(), layer, Custom(), CircuitBreakerConfig(), name="x", listeners=[listener, print])


@pipeline
async def fetch(url: str, *, limit: int = 3) -> bytes:
    return b""


@pipeline
def load(path: str) -> int:
    return 1


@resilient
def bare(x: int) -> str:
    return ""


@resilient(retry=RetryConfig(), timeout=TimeoutConfig(2), listeners=[listener])
async def keywords(x: int) -> str:
    return ""


@resilient(**http_policy(timeout_seconds=3, fallback=None))
async def preset(x: int) -> str:
    return ""


@ResilienceRegistry().decorator("name")
def registered(x: int) -> str:
    return ""


class Shop:
    @pipeline
    async def price(self, item: str) -> float:
        return 1.0


async def main() -> None:
    assert_type(await fetch("x", limit=4), bytes)
    assert_type(load("x"), int)
    assert_type(bare(1), str)
    assert_type(await keywords(1), str)
    assert_type(await preset(1), str)
    assert_type(registered(1), str)
    assert_type(await Shop().price("pen"), float)
    assert_type(await pipeline.call(fetch, "x", limit=4), bytes)
    assert_type(await pipeline.call(load, "x"), int)
    assert_type(pipeline.call_sync(load, "x"), int)
    fetch(1)  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    load("x", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    resilient(retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Pipeline(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
