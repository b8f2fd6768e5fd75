"""The app of the demo, a process of its own: asks the upstream for a rate, bare and guarded."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from pyresilience import CircuitBreakerConfig, FallbackConfig, Pipeline, RetryConfig, TimeoutConfig
from pyresilience_middleware import ResilienceMiddleware
from pyresilience_middleware.cli._load import ANSWERED_BY
from pyresilience_middleware.cli._serve import serve

if TYPE_CHECKING:
    from starlette.requests import Request

NAME = "exchange-rates"
"""What events, metrics and health call the guarded function."""


@dataclass(frozen=True, slots=True)
class Rate:
    """An exchange rate, as the upstream just said or as it was last known."""

    value: float
    stale: bool = False


Handler = Callable[[Exception], Rate]


def guard(last_known: Handler) -> Pipeline:
    """The pipeline between the app and its upstream, unless `--pipeline` names another function like this one.

    Args:
        last_known: answers with the rate that was last known; while there is none it re-raises the error.
    """
    return Pipeline(
        FallbackConfig(handler=last_known),
        RetryConfig(max_attempts=3, delay=0.05),
        CircuitBreakerConfig(sliding_window_size=10, failure_rate_threshold=0.8, recovery_timeout=0.5),
        TimeoutConfig(seconds=0.4, total=1.0),
        name=NAME,
    )


class Rates:
    """The same call to the upstream twice: as it is, and through a pipeline."""

    def __init__(self, upstream: str, make_guard: Callable[[Handler], Pipeline]) -> None:
        self.client = httpx2.AsyncClient(base_url=upstream, trust_env=False)
        self._last_known: Rate | None = None
        pipeline = make_guard(self.last_known)
        if not isinstance(pipeline, Pipeline):
            raise TypeError(f"{make_guard.__name__}() must return a Pipeline, not {pipeline!r}")
        self._guarded_fetch = pipeline(self._fetch)

    async def _fetch(self, caller: str, number: str) -> Rate:
        response = await self.client.get("/rate", params={"caller": caller, "number": number})
        response.raise_for_status()
        return Rate(response.json()["rate"])

    def last_known(self, error: Exception) -> Rate:
        if self._last_known is None:
            raise error
        return Rate(self._last_known.value, stale=True)

    async def bare(self, request: Request) -> JSONResponse:
        return _response(await self._fetch("bare", request.query_params.get("number", "")))

    async def guarded(self, request: Request) -> JSONResponse:
        rate = await self._guarded_fetch("guarded", request.query_params.get("number", ""))
        if not rate.stale:
            self._last_known = rate
        return _response(rate)


def _response(rate: Rate) -> JSONResponse:
    body = {"rate": rate.value, "stale": rate.stale}
    return JSONResponse(body, headers={ANSWERED_BY: "fallback" if rate.stale else "upstream"})


async def _bad_gateway(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 502)


def create_app(upstream: str, make_guard: Callable[[Handler], Pipeline] = guard) -> Starlette:
    rates = Rates(upstream, make_guard)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with rates.client:
            yield

    return Starlette(
        routes=[Route("/bare", rates.bare), Route("/guarded", rates.guarded)],
        middleware=[Middleware(ResilienceMiddleware)],
        exception_handlers={httpx2.HTTPError: _bad_gateway},
        lifespan=lifespan,
    )


def load_guard(reference: str) -> Callable[[Handler], Pipeline]:
    """The function that `MODULE:FUNCTION` names.

    Raises:
        ValueError: it is not written like that, or the module has no such function.
        ImportError: there is no such module.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise ValueError(f"--pipeline must be written MODULE:FUNCTION, not {reference!r}")
    function: Callable[[Handler], Pipeline] | None = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise ValueError(f"--pipeline: the module {module!r} has no function {name!r}")
    return function


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--pipeline")
    options = parser.parse_args()
    try:
        app = create_app(options.upstream, load_guard(options.pipeline) if options.pipeline else guard)
    except (ImportError, TypeError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    serve(app)


if __name__ == "__main__":
    main()
