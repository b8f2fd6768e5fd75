"""The flaky upstream of the demo, a process of its own: answers as the fault script says, and counts the calls.

`GET /rate?caller=...&number=...`, `PUT /phase/{name}?requests=...`, `GET /calls`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

import anyio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from pyresilience_middleware.cli._faults import HEALTHY, SCRIPT, Phase, answer_to
from pyresilience_middleware.cli._serve import serve

if TYPE_CHECKING:
    from starlette.requests import Request

PHASES = {phase.name: phase for phase in SCRIPT}
RATE = 1.0842


class Upstream:
    """An exchange rate that is not always there.

    Calls that carry a number get the answer that the script has for it; calls made by hand, without a number, get
    the next one.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._calls: dict[str, Counter[str]] = {name: Counter() for name in PHASES}
        self._enter(HEALTHY, 100)

    def _enter(self, phase: Phase, requests: int) -> None:
        self._phase = phase
        self._requests = requests
        self._attempts: Counter[tuple[str, int]] = Counter()
        self._unnumbered = count()
        self._calls[phase.name].clear()

    async def rate(self, request: Request) -> JSONResponse:
        caller = request.query_params.get("caller", "")
        wanted = request.query_params.get("number", "")
        number, call = next(self._unnumbered), 1
        if wanted.isdecimal():
            number = int(wanted)
            self._attempts[caller, number] += 1
            call = self._attempts[caller, number]
        self._calls[self._phase.name][caller] += 1
        answer = answer_to(self._seed, self._phase, number, call, requests=self._requests)
        await anyio.sleep(answer.delay)
        body = {"rate": RATE} if answer.status == 200 else {"error": self._phase.about}
        return JSONResponse(body, answer.status)

    async def enter(self, request: Request) -> JSONResponse:
        phase = PHASES.get(request.path_params["name"])
        if phase is None:
            return JSONResponse({"error": "no such phase", "allowed": list(PHASES)}, 404)
        requests = request.query_params.get("requests", "")
        self._enter(phase, int(requests) if requests.isdecimal() and int(requests) else 100)
        return JSONResponse({"phase": phase.name, "about": phase.about})

    async def calls(self, _request: Request) -> JSONResponse:
        return JSONResponse(self._calls)


def create_app(seed: int) -> Starlette:
    upstream = Upstream(seed)
    return Starlette(
        routes=[
            Route("/rate", upstream.rate),
            Route("/phase/{name}", upstream.enter, methods=["PUT"]),
            Route("/calls", upstream.calls),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    serve(create_app(parser.parse_args().seed))
