"""The load generator, in virtual time against a transport of the test's own."""

from __future__ import annotations

import anyio
import httpx2
import pytest

from pyresilience.runtime import _sources as sources
from pyresilience_middleware.cli._load import MAX_IN_FLIGHT, PATIENCE, Load

ENDPOINTS = {"bare": "http://app/bare", "guarded": "http://app/guarded"}


class App:
    """Answers a request with what `script` gives for (endpoint, number): a response after some seconds."""

    def __init__(self, script):
        self._script = script
        self._began = sources.now()
        self.arrivals = []
        self.under_way = self.most = 0

    async def __call__(self, request):
        endpoint, number = request.url.path[1:], int(request.url.params["number"])
        self.arrivals.append((endpoint, number, round((sources.now() - self._began) / 1e9, 3)))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            seconds, answer = self._script(endpoint, number)
            await anyio.sleep(seconds)
        finally:
            self.under_way -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


async def drive(app, requests, *, endpoints=ENDPOINTS, per_second=10):
    replies = []
    load = Load(endpoints, per_second=per_second, on_reply=replies.append)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(app), timeout=None) as client:
        await load.run(client, "healthy", requests)
    return replies


def ok(by="upstream"):
    return httpx2.Response(200, headers={"x-answered-by": by})


async def test_both_endpoints_get_the_same_requests_at_the_same_pace():
    """A slow endpoint gets them no later, and holds up nothing for the other."""
    app = App(lambda endpoint, number: (1.5 if endpoint == "bare" else 0.0, ok()))
    await drive(app, 4)
    for endpoint in ENDPOINTS:
        assert [arrival[1:] for arrival in app.arrivals if arrival[0] == endpoint] == [
            (0, 0.0),
            (1, 0.1),
            (2, 0.2),
            (3, 0.3),
        ]


async def test_statuses_errors_and_the_fallback_are_told_apart():
    answers = [ok(), ok("fallback"), httpx2.Response(502, headers={"x-answered-by": "fallback"}), httpx2.ReadError("x")]
    app = App(lambda endpoint, number: (0.0, answers[number]))
    replies = await drive(app, 4, endpoints={"guarded": ENDPOINTS["guarded"]})
    assert [(reply.answered, reply.by_fallback) for reply in replies] == [
        (True, False),
        (True, True),
        (False, False),
        (False, False),
    ]
    assert {(reply.endpoint, reply.phase) for reply in replies} == {("guarded", "healthy")}


async def test_the_client_gives_up_after_its_patience():
    app = App(lambda endpoint, number: (60.0, ok()))
    replies = await drive(app, 2)
    assert len(replies) == 4
    assert not any(reply.answered for reply in replies)
    assert [reply.seconds for reply in replies] == pytest.approx([PATIENCE] * 4, abs=1e-6)


async def test_the_requests_in_flight_are_bounded_and_waiting_for_a_place_counts_as_latency():
    app = App(lambda endpoint, number: (1.0, ok()))
    replies = await drive(app, 2 * MAX_IN_FLIGHT, endpoints={"bare": ENDPOINTS["bare"]}, per_second=1000)
    assert app.most == MAX_IN_FLIGHT
    latest = max(reply.seconds for reply in replies)
    assert latest == pytest.approx(2.0 - 0.04, abs=0.01)


async def test_it_ends_only_when_every_request_has_ended():
    app = App(lambda endpoint, number: (1.9, ok()))
    replies = await drive(app, 3)
    assert len(replies) == 6
    assert app.under_way == 0
