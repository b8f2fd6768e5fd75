"""The demo as its users run it: processes on loopback, in real time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

DEADLINE = 30.0


class Running:
    """A demo in a process of its own; everything that it printed so far stands in `output`."""

    def __init__(self, directory, *options):
        self.began = time.monotonic()
        self.path = directory / "output"
        with self.path.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pyresilience_middleware.cli", "demo", "--seed", "1", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=directory,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background jobs
            )

    @property
    def output(self):
        return self.path.read_text()

    def until(self, condition):
        """The first true value of `condition()`, polled until then."""
        while not (value := condition()):
            assert time.monotonic() < self.began + DEADLINE, self.output
            time.sleep(0.02)
        return value

    def url_of(self, child):
        return self.until(lambda: re.search(rf"{child} +(http://127\.0\.0\.1:\d+)", self.output))[1]

    @property
    def children(self):
        return [int(pid) for pid in re.findall(r"process (\d+)", self.output)]

    def ended(self):
        """The exit code."""
        return self.process.wait(self.began + DEADLINE - time.monotonic())

    def wait_for_load(self):
        """Until requests have reached the upstream through the app."""
        self.url_of("app")
        calls = f"{self.url_of('upstream')}/calls"
        self.until(lambda: sum(sum(counts.values()) for counts in json.loads(get(calls)).values()) > 20)

    def left_nothing(self):
        """Its ports refuse connections and its processes are gone."""
        for child in ("upstream", "app"):
            port = int(self.url_of(child).rpartition(":")[2])
            self.until(lambda port=port: refuses(port))
        assert len(self.children) == 2
        self.until(lambda: not any(is_running(child) for child in self.children))


def get(url):
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read()


def refuses(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # an orphan may stay as a zombie where init reaps nothing, as in a container
    return not (stat.exists() and stat.read_text().rpartition(") ")[2].startswith("Z"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts demos, and ends in any case what is left of them."""
    started = []

    def start(*options, directory=None):
        started.append(Running(directory or tmp_path_factory.mktemp("demo"), *options))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()
        for child in running.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)


@pytest.fixture(scope="module")
def demos(start, tmp_path_factory):
    """Demos side by side, because each of them mostly waits."""
    directory = tmp_path_factory.mktemp("mine")
    (directory / "mine.py").write_text(
        "from pyresilience import Pipeline\n\ndef unguarded(last_known):\n    return Pipeline(name='rates')\n"
    )
    return {
        "guarded": start("--duration", "4"),
        "unguarded": start("--duration", "2", "--pipeline", "mine:unguarded", directory=directory),
        "served": start("--duration", "2", "--serve"),
        "broken": start("--pipeline", "nowhere:guard"),
    }


@pytest.fixture(scope="module")
def under_load(start):
    """Three demos in the middle of their load, one for each way to end them."""
    running = {kind: start() for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)}
    for demo in running.values():
        demo.wait_for_load()
    return running


def row(output, endpoint):
    """The cells of an endpoint in the last section of the table, over all phases."""
    (line,) = [line for line in output.split("│ all ")[1].splitlines()[:2] if f"│ {endpoint} " in f"│{line}"]
    answered, fallback, _p50, p99, upstream = (cell.strip() for cell in line.split("│")[-6:-1])
    return int(answered.split("/")[0]), int(fallback), int(p99), int(upstream)


def test_the_guarded_app_is_better_and_says_so(demos):
    """Within 30 seconds, exit code 0, a table, and what the app said over HTTP while the circuit was open."""
    running = demos["guarded"]
    assert running.ended() == 0, running.output
    output = running.output
    bare, guarded = row(output, "bare"), row(output, "guarded")
    assert guarded[0] >= bare[0] + 20  # of 200 requests
    assert bare[1] == 0 < guarded[1]
    assert guarded[2] <= bare[2]
    assert bare[3] == 200 != guarded[3]
    assert output.count("  yes  ") == 4
    health = json.loads(re.search(r"^\{.*?^\}", output, re.DOTALL | re.MULTILINE)[0])
    assert health["functions"]["exchange-rates"]["circuit_breaker"] == "open"
    assert 'pyresilience_events_total{event_type="circuit_open",function_name="exchange-rates"}' in output
    assert 'pyresilience_circuit_breaker_state{function_name="exchange-rates"} 2' in output
    assert "--seed 1 repeats the faults" in output
    running.left_nothing()


def test_an_empty_pipeline_does_not_pass(demos):
    """The claims are about the guard: with a pipeline without layers none of those that matter holds."""
    running = demos["unguarded"]
    assert running.ended() == 1, running.output
    output = running.output
    for claim in ("answered at least 10 points", "sent at most half as many calls", "/health showed the circuit open"):
        assert f"   no  {claim}" in output
    assert row(output, "guarded")[1] == 0
    assert row(output, "guarded")[3] == row(output, "bare")[3] == 100
    running.left_nothing()


def test_serve_keeps_everything_up_until_it_is_interrupted(demos):
    running = demos["served"]
    running.until(lambda: "Still running" in running.output and "curl" in running.output)
    urls = re.findall(r"^  (http://\S+)$", running.output, re.MULTILINE)
    assert [url.rpartition("/")[2] for url in urls] == ["bare", "guarded", "health", "metrics", "rate"]
    health = urls[2]
    assert "exchange-rates" in json.loads(get(health))["functions"]
    assert b"pyresilience_events_total" in get(urls[3])

    phase = running.url_of("upstream") + "/phase/"
    urllib.request.urlopen(urllib.request.Request(f"{phase}healthy", method="PUT"), timeout=5).close()
    assert json.loads(get(urls[0])) == {"rate": 1.0842, "stale": False}
    urllib.request.urlopen(urllib.request.Request(f"{phase}down", method="PUT"), timeout=5).close()
    assert json.loads(get(urls[1]))["rate"] == 1.0842
    with pytest.raises(urllib.error.HTTPError, match="502"):
        get(urls[0])

    assert running.process.poll() is None
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 130
    running.left_nothing()


def test_interrupting_it_leaves_nothing_running(under_load):
    running = under_load[signal.SIGINT]
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 130
    assert "Traceback" not in running.output
    running.left_nothing()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_its_death_leaves_nothing_running(under_load, kind):
    """Even when it cannot clean up: its children notice that the pipe from it has ended."""
    running = under_load[kind]
    running.process.send_signal(kind)
    assert running.ended() == -kind
    running.left_nothing()


def test_a_pipeline_that_cannot_be_loaded_is_an_error_that_says_so(demos):
    running = demos["broken"]
    assert running.ended() == 1
    assert "No module named 'nowhere'" in running.output
    assert "ended before it was ready, with exit code 2" in running.output
    assert "Traceback" not in running.output
