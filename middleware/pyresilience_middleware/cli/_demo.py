"""The demo from its start to its end: processes, phases, report."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import httpx2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pyresilience_middleware.cli._faults import DOWN, SCRIPT, Phase
from pyresilience_middleware.cli._load import Load, Reply
from pyresilience_middleware.cli._processes import Child, DemoError, server
from pyresilience_middleware.cli._report import (
    Evidence,
    Results,
    print_evidence,
    print_verdict,
    shows_open,
    table,
)
from pyresilience_middleware.cli._verdict import verdict

if TYPE_CHECKING:
    from rich.console import Console

LIMIT = 24.0
"""Seconds after which the demo gives up: with the time that processes have to stop it is over within 30."""
PER_SECOND = 50
"""Requests to each endpoint."""
CHILDREN = "pyresilience_middleware.cli"


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the demo.

    Attributes:
        duration: seconds of load.
        pipeline: `MODULE:FUNCTION` that makes the pipeline; None: the demo's own.
        serve: keep the processes running after the report.
    """

    seed: int
    duration: float
    pipeline: str | None = None
    serve: bool = False


async def run(options: Options, console: Console) -> int:
    """Run the demo and print what it found; the exit code: 0 when every claim held, else 1.

    However it ends, by an error, by cancellation or by death of this process, no other process stays behind.

    Raises:
        DemoError: a process did not start or stopped answering, or the whole did not end in time.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=5, trust_env=False))
        try:
            with anyio.fail_after(LIMIT):
                upstream, app = await _start(stack, options, console)
                results = await _measure(client, upstream, app, options, console)
        except TimeoutError:
            raise DemoError(f"the demo did not end within {LIMIT:g} seconds") from None
        except httpx2.HTTPError as error:
            raise DemoError(f"a process of the demo stopped answering: {error!r}") from error
        code = _report(results, console)
        if options.serve:
            _print_urls(upstream, app, console)
            await anyio.sleep_forever()
    return code


async def _start(stack: AsyncExitStack, options: Options, console: Console) -> tuple[Child, Child]:
    upstream = await stack.enter_async_context(server(f"{CHILDREN}._upstream", "--seed", str(options.seed)))
    own = ("--pipeline", options.pipeline) if options.pipeline else ()
    app = await stack.enter_async_context(server(f"{CHILDREN}._app", "--upstream", upstream.url, *own))
    for name, child in (("upstream", upstream), ("app", app)):
        console.print(f"{name:>8}  {child.url}  process {child.pid}", highlight=False)
    console.print(f"    seed  {options.seed}  (--seed {options.seed} repeats the faults)", highlight=False)
    return upstream, app


async def _measure(
    client: httpx2.AsyncClient, upstream: Child, app: Child, options: Options, console: Console
) -> Results:
    replies: list[Reply] = []
    evidence: list[Evidence] = []
    requests = max(1, int(options.duration * PER_SECOND / len(SCRIPT)))
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        bar = progress.add_task("", total=2 * requests * len(SCRIPT))

        def on_reply(reply: Reply) -> None:
            replies.append(reply)
            progress.advance(bar)

        endpoints = {"bare": f"{app.url}/bare", "guarded": f"{app.url}/guarded"}
        load = Load(endpoints, per_second=PER_SECOND, on_reply=on_reply)
        for url in endpoints.values():
            await client.get(url)  # what an app does only once, at its first request, is not measured
        for phase in SCRIPT:
            progress.update(bar, description=f"{phase.name}: {phase.about}")
            await _enter(client, upstream, phase, requests)
            async with anyio.create_task_group() as group:
                if phase is DOWN:
                    group.start_soon(_watch, client, app, evidence)
                await load.run(client, phase.name, requests)
                group.cancel_scope.cancel()
    calls = (await client.get(f"{upstream.url}/calls")).raise_for_status().json()
    return Results(replies, calls, evidence[0] if evidence else None)


async def _enter(client: httpx2.AsyncClient, upstream: Child, phase: Phase, requests: int) -> None:
    response = await client.put(f"{upstream.url}/phase/{phase.name}", params={"requests": requests})
    response.raise_for_status()


async def _watch(client: httpx2.AsyncClient, app: Child, evidence: list[Evidence]) -> None:
    """Look at the app until the circuit is open both before and after its metrics were read."""
    while not evidence:
        await anyio.sleep(0.05)
        try:
            before = await client.get(f"{app.url}/health")
            metrics = await client.get(f"{app.url}/metrics")
            after = await client.get(f"{app.url}/health")
        except httpx2.HTTPError:
            continue
        if shows_open(before.json()) and shows_open(after.json()):
            evidence.append(Evidence(before.text, metrics.text))


def _report(results: Results, console: Console) -> int:
    checks = verdict(
        results.summary("bare"),
        results.summary("guarded"),
        results.summary("bare", DOWN.name).upstream_calls,
        results.summary("guarded", DOWN.name).upstream_calls,
        seen_open=results.evidence is not None,
    )
    console.print(table(results, [phase.name for phase in SCRIPT]))
    print_evidence(console, results.evidence)
    print_verdict(console, checks)
    return 0 if all(check.holds for check in checks) else 1


def _print_urls(upstream: Child, app: Child, console: Console) -> None:
    console.print("[bold]Still running[/bold]; Ctrl-C stops it.")
    for path in ("/bare", "/guarded", "/health", "/metrics"):
        console.print(f"  {app.url}{path}", highlight=False)
    console.print(f"  {upstream.url}/rate", highlight=False)
    console.print(f"Phases of the upstream ({', '.join(phase.name for phase in SCRIPT)}) are entered with")
    console.print(f"  curl -X PUT {upstream.url}/phase/down", highlight=False, soft_wrap=True)
