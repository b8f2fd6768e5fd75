"""What the demo prints when the load is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pyresilience_middleware.cli._verdict import Check, Summary, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from pyresilience_middleware.cli._load import Reply

CAPTION = (
    "answered: status 200, answers of the fallback included; they are counted in the next column as well. "
    "p50 and p99 in milliseconds over all requests, failed ones included. "
    "upstream: calls that reached it, retries included."
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the running app said over HTTP while the circuit was open."""

    health: str
    metrics: str


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured.

    Attributes:
        calls: calls that reached the upstream, by phase and caller.
        evidence: None when the circuit was never seen open.
    """

    replies: Sequence[Reply]
    calls: Mapping[str, Mapping[str, int]]
    evidence: Evidence | None

    def summary(self, endpoint: str, phase: str | None = None) -> Summary:
        """The requests to one endpoint, of one phase or of all."""
        replies = [reply for reply in self.replies if reply.endpoint == endpoint and phase in (None, reply.phase)]
        calls = (counts.get(endpoint, 0) for name, counts in self.calls.items() if phase in (None, name))
        return summarise(replies, sum(calls))


def table(results: Results, phases: Sequence[str]) -> Table:
    """Bare against guarded, in each phase and over all of them."""
    rendered = Table(title="bare against guarded", caption=CAPTION, caption_justify="left")
    rendered.add_column("phase", no_wrap=True)
    rendered.add_column("app", no_wrap=True)
    for column in ("answered", "fallback", "p50", "p99", "upstream"):
        rendered.add_column(column, justify="right", no_wrap=True)
    for phase in (*phases, None):
        for endpoint in ("bare", "guarded"):
            cells = _cells(results.summary(endpoint, phase))
            label = ("all" if phase is None else phase) if endpoint == "bare" else ""
            rendered.add_row(label, endpoint, *cells, style="bold" if phase is None else None)
        rendered.add_section()
    return rendered


def _cells(summary: Summary) -> tuple[str, ...]:
    share = 100 * summary.answered / max(1, summary.requests)
    return (
        f"{summary.answered}/{summary.requests} {share:5.1f} %",
        str(summary.by_fallback),
        f"{summary.p50 * 1000:.0f}",
        f"{summary.p99 * 1000:.0f}",
        str(summary.upstream_calls),
    )


def print_evidence(console: Console, evidence: Evidence | None) -> None:
    if evidence is None:
        console.print("The circuit was never seen open: there is no /health and /metrics to show.")
        return
    console.print("[bold]GET /health[/bold] while the circuit was open:")
    console.print_json(evidence.health)
    console.print("[bold]GET /metrics[/bold] at the same time, without comments and buckets:")
    for line in evidence.metrics.splitlines():
        if line and not line.startswith("#") and "_bucket{" not in line:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def print_verdict(console: Console, checks: Sequence[Check]) -> None:
    console.print("[bold]The guarded app[/bold]")
    for check in checks:
        mark = "[green]yes[/green]" if check.holds else "[red] no[/red]"
        console.print(f"  {mark}  {check.claim}: {check.seen}", highlight=False, soft_wrap=True)


def shows_open(health: Mapping[str, Any]) -> bool:
    """Whether a body of `/health` shows an open circuit."""
    return any(entry["circuit_breaker"] == "open" for entry in health["functions"].values())
