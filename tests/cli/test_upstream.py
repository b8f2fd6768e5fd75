"""The flaky upstream, in process and in virtual time."""

from __future__ import annotations

import httpx2
import pytest

from pyresilience_middleware.cli._faults import ERRORS, answer_to
from pyresilience_middleware.cli._upstream import create_app


@pytest.fixture
async def upstream(anyio_backend):
    transport = httpx2.ASGITransport(app=create_app(seed=3))
    async with httpx2.AsyncClient(transport=transport, base_url="http://upstream", timeout=None) as client:
        yield client


async def ask(upstream, caller, number):
    return (await upstream.get("/rate", params={"caller": caller, "number": number})).status_code


async def test_bare_and_guarded_see_the_same_script_whatever_the_other_did(upstream):
    """The retries of one do not use up answers of the other."""
    await upstream.put("/phase/errors", params={"requests": 50})
    guarded = []
    for number in range(50):
        guarded.append(await ask(upstream, "guarded", number))
        if guarded[-1] != 200:
            await ask(upstream, "guarded", number)
    bare = [await ask(upstream, "bare", number) for number in reversed(range(50))]
    assert guarded == bare[::-1]
    assert guarded == [answer_to(3, ERRORS, number, 1, requests=50).status for number in range(50)]
    assert 200 in guarded and 503 in guarded


async def test_a_retry_gets_the_next_answer_of_the_script(upstream):
    await upstream.put("/phase/errors", params={"requests": 50})
    answers = [await ask(upstream, "guarded", 0) for _ in range(20)]
    assert answers == [answer_to(3, ERRORS, 0, call, requests=50).status for call in range(1, 21)]


async def test_calls_are_counted_by_phase_and_caller(upstream):
    await ask(upstream, "bare", 0)
    await upstream.put("/phase/down")
    for _ in range(3):
        assert await ask(upstream, "guarded", 0) == 503
    calls = (await upstream.get("/calls")).json()
    assert calls["healthy"] == {"bare": 1}
    assert calls["down"] == {"guarded": 3}
    assert calls["slow"] == {}


async def test_a_phase_that_is_entered_again_begins_anew(upstream):
    """Its counts, and the attempts that it knows of."""
    await upstream.put("/phase/errors", params={"requests": 50})
    first = [await ask(upstream, "bare", number) for number in range(50)]
    await upstream.put("/phase/errors", params={"requests": 50})
    assert [await ask(upstream, "bare", number) for number in range(50)] == first
    assert (await upstream.get("/calls")).json()["errors"] == {"bare": 50}


async def test_calls_by_hand_need_no_number(upstream):
    await upstream.put("/phase/recovering", params={"requests": "many"})
    statuses = [(await upstream.get("/rate")).status_code for _ in range(200)]
    assert 503 in statuses[:50]
    assert set(statuses[120:]) == {200}


async def test_an_unknown_phase_is_refused_with_those_there_are(upstream):
    response = await upstream.put("/phase/burning")
    assert response.status_code == 404
    assert response.json()["allowed"] == ["healthy", "errors", "slow", "down", "recovering"]
