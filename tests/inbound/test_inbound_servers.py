"""Real servers in processes of their own: uvicorn on asyncio, hypercorn on trio."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


@contextlib.contextmanager
def serving(server, app):
    """A server on an ephemeral port. Afterwards SIGINT has ended it and nobody listens any more."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "tests.inbound.served", server, app, str(listener.fileno())]
        process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=[listener.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            client.get("/health/ready").raise_for_status()
            yield client, port
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
        raised = set(re.findall(rb"^[\w.]+(?:Error|Exception|Interrupt|Group|Exit)\b", output, re.MULTILINE))
        assert raised <= {b"asyncio.exceptions.CancelledError"}, output.decode()
        assert process.returncode in (0, -signal.SIGINT), output.decode()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def read_until(connection, enough):
    data = b""
    while not enough(data):
        chunk = connection.recv(65536)
        if not chunk:
            break
        data += chunk
    return data


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_a_guarded_app_on_a_real_server(server):
    """At the end the server is stopped while a background task is under way, which it cancels."""
    with serving(server, "guarded") as (client, _):
        reply = client.get("/whoami", headers={"x-request-id": "req-1"})
        assert reply.json()["request_id"] == reply.headers["x-request-id"] == "req-1"
        assert client.get("/%6detrics").status_code == 200
        head = client.head("/health")
        assert head.content == b"" and int(head.headers["content-length"]) > 0
        late = client.get("/stuck")
        assert (late.status_code, late.headers["content-type"]) == (504, "application/problem+json")
        with httpx2.Client(base_url=client.base_url, timeout=PATIENCE) as other:
            assert other.get("/background").text == "done"
            # The background task above never ends, and yet the only permit of the bulkhead comes back.
            assert client.get("/whoami").status_code == 200
            metrics = client.get("/metrics").text
        assert 'pyresilience_bulkhead_limit{function_name="inbound"} 1' in metrics
        assert 'pyresilience_events_total{event_type="timeout",function_name="inbound"} 1' in metrics


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_a_refused_websocket_is_a_real_503(server):
    key = base64.b64encode(os.urandom(16)).decode()
    handshake = (
        "GET /chat HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
    ).encode()
    with serving(server, "closed") as (_, port):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(handshake)
            answer = read_until(connection, lambda data: b"}" in data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503") and b"retry-after: 30" in head.lower()
    assert b'"status": 503' in body


def test_pipelined_requests_do_not_inherit_each_others_context():
    """uvicorn starts request n + 1 inside the `send` of request n, in a copy of its context variables."""
    requests = [f"GET /whoami HTTP/1.1\r\nhost: localhost\r\nx-request-id: req-{n}\r\n\r\n".encode() for n in range(5)]
    bare = b"GET /whoami HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with serving("uvicorn", "bare") as (_, port):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(b"".join(requests) + bare)
            answer = read_until(connection, lambda data: data.count(b"HTTP/1.1 200") == 6 and data.endswith(b"}"))
    bodies = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in answer.split(b"HTTP/1.1 200")[1:]]
    ids = [body["request_id"] for body in bodies]
    assert ids[:5] == [f"req-{n}" for n in range(5)]
    assert len(ids) == 6 and len(ids[5]) == 32
    traces = {body["trace_id"] for body in bodies}
    assert len(traces) == 6
