"""Whether the guarded app was better than the bare one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pyresilience_middleware.cli._load import Reply


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the requests to one endpoint.

    Attributes:
        answered: requests answered with 200, by the upstream or by the fallback.
        by_fallback: those of them that the fallback answered.
        p50, p99: seconds, over all requests, failed ones included.
        upstream_calls: calls that reached the upstream.
    """

    requests: int
    answered: int
    by_fallback: int
    p50: float
    p99: float
    upstream_calls: int


def summarise(replies: Collection[Reply], upstream_calls: int) -> Summary:
    seconds = sorted(reply.seconds for reply in replies)
    return Summary(
        requests=len(replies),
        answered=sum(reply.answered for reply in replies),
        by_fallback=sum(reply.by_fallback for reply in replies),
        p50=percentile(seconds, 50),
        p99=percentile(seconds, 99),
        upstream_calls=upstream_calls,
    )


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` of 100 values do not exceed; 0 when there are none."""
    return ascending[ceil(len(ascending) * percent / 100) - 1] if ascending else 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """A claim about the guarded app, and whether it held."""

    claim: str
    holds: bool
    seen: str


def verdict(bare: Summary, guarded: Summary, bare_down: int, guarded_down: int, *, seen_open: bool) -> list[Check]:
    """What the demo claims; it has succeeded when every claim holds.

    Args:
        bare_down, guarded_down: calls that reached the upstream while it was down.
        seen_open: `/health` showed an open circuit.
    """
    # In integers: a gain of exactly 10 points counts. 100 * (g/n - b/m) >= 10
    gain = guarded.answered * bare.requests - bare.answered * guarded.requests
    return [
        Check(
            "answered at least 10 points more requests",
            bare.requests > 0 and guarded.requests > 0 and 10 * gain >= bare.requests * guarded.requests,
            f"{_share(guarded.answered, guarded)} against {_share(bare.answered, bare)}; "
            f"{_share(guarded.answered - guarded.by_fallback, guarded)} without the fallback",
        ),
        Check(
            "its p99 was no worse",
            guarded.p99 <= bare.p99,
            f"{guarded.p99:.2f} s against {bare.p99:.2f} s",
        ),
        Check(
            "sent at most half as many calls to the upstream while that was down",
            bare_down > 0 and 2 * guarded_down <= bare_down,
            f"{guarded_down} against {bare_down}",
        ),
        Check("/health showed the circuit open", seen_open, "seen" if seen_open else "not seen"),
    ]


def _share(answered: int, summary: Summary) -> str:
    return f"{100 * answered / summary.requests:.1f} %" if summary.requests else "nothing sent"
