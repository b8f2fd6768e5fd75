"""Every example runs by itself, ends, and prints what it is there to show."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"

PRINTED: dict[str, list[str]] = {
    "decorator": [
        r"lookup #1: retry retrying in 0\.\d\ds",
        r"192\.0\.2\.7",
        r"download #3: success",
        r"price #1: timeout attempt timed out after 0\.20s",
        r"an estimate",
    ],
    "alerting": [
        r"calls  ConnectionError, ConnectionError, ConnectionError, CircuitOpenError, CircuitOpenError",
        r"calls  paid",
    ],
    "shared_registry": [
        r"charge 2 failed: connection refused",
        r"refund was not even tried: payment-api: circuit is open",
        r'"payment-api": \{\s+"circuit_breaker": "open",\s+"in_flight": 0,\s+"rate_limiter_available": true',
        r'"inventory-service": \{\s+"circuit_breaker": "closed",\s+"in_flight": 2,',
    ],
    "own_layer": [
        r"search attempt 1 took about \d",
        r"search attempt 2 took about \d",
        r"results for acme",
        r"export attempt 1 took about \d",
        r"report for acme",
        r"refused: acme has used its 2 calls",
    ],
    "http_client": [
        r"api\.example\.com:443 #2: retry",
        r"third time lucky",
        r"api\.example\.com:443 #1: retry retrying in 1\.00s",
        r"rested",
        r"POST /down .*\n.*#1: failure\s+503",
        r"circuit_open opened",
        r"circuit is open; retry after",
        r"10 requests were sent",
    ],
    "fastapi_app": [
        r"'request_id': 'r-1', 'method': 'GET', 'path': '/whoami'",
        r"GET /rates: 200 \{'usd': 1\.05, 'stale': True\}",
        r"GET /rates: 429 Too Many Requests",
        r"retry after \d+ seconds",
        r"health: warn \{'circuit_breaker': 'open', 'in_flight': 0, 'rate_limiter_available': True\}",
        r'pyresilience_events_total\{event_type="fallback_used",function_name="exchange-rates"\} 3',
    ],
}


def run(name: str) -> subprocess.CompletedProcess[str]:
    path = EXAMPLES / f"{name}.py"
    return subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_shows(name: str):
    result = run(name)

    assert result.returncode == 0, result.stderr
    shown = re.search(".*?".join(PRINTED[name]), result.stdout, re.DOTALL)
    assert shown is not None, result.stdout
    assert result.stderr == ""
    if name == "alerting":  # its messages come from a thread of their own, at any time
        assert [line for line in result.stdout.splitlines() if line.startswith("alert")] == [
            "alert  payment_service is down: connection refused",
            "alert  payment_service has recovered",
        ]
        assert result.stdout.count('"detail":"rejected"') == 2


def test_every_example_is_run():
    assert sorted(PRINTED) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_says_what_it_answers_and_how_to_run_it(name: str):
    source = (EXAMPLES / f"{name}.py").read_text()
    question, _, how = source.removeprefix('"""').partition("\n\n")
    assert question.endswith("?")
    assert how.lstrip().startswith(f"uv run python examples/{name}.py\n")
