"""Of each variant and number of connections, the best of its turns, beside the variant without a guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.page import table
from benchmarks.plots import LEFT, RIGHT, ROW, WIDTH, svg, text
from benchmarks.whole_path.turn import Turn, best

CONNECTIONS = (1, 64, 512)
OURS = "pyresilience"


@dataclass(slots=True)
class Comparison:
    """Variants that do the same work.

    Attributes:
        bare: variant to the one that it is compared with.
        turns: variant, then number of connections, to what was measured.
        errors: variant to the reason why nothing was.
    """

    key: str
    title: str
    bare: Mapping[str, str]
    turns: dict[str, dict[int, list[Turn]]] = field(default_factory=dict[str, dict[int, list[Turn]]])
    errors: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, variant: str, connections: int, turn: Turn) -> None:
        self.turns.setdefault(variant, {}).setdefault(connections, []).append(turn)

    def best(self, variant: str, connections: int) -> Turn | None:
        turns = self.turns.get(variant, {}).get(connections)
        return best(turns) if turns else None

    def ratio(self, variant: str, connections: int) -> float | None:
        """Its rate as a share of the rate without a guard."""
        own, bare = self.best(variant, connections), self.best(self.bare[variant], connections)
        return own.rate / bare.rate if own and bare else None


def rates(comparison: Comparison) -> str:
    header = ["", *(f"{count:,} connections, requests/s" for count in CONNECTIONS)]
    header += [f"p99 at {count:,}, ms" for count in CONNECTIONS]
    rows: list[list[str]] = []
    for variant in comparison.bare:
        if variant in comparison.errors:
            rows.append([variant, comparison.errors[variant].replace("|", "\\|"), *[""] * (len(header) - 2)])
            continue
        found = [comparison.best(variant, count) for count in CONNECTIONS]
        shown = f"**{variant}**" if OURS in variant else variant
        rows.append([shown, *(_rate(comparison, variant, count) for count in CONNECTIONS)])
        rows[-1] += [f"{turn.p99:.2f}" if turn else "" for turn in found]
    return table(header, rows)


def processor(comparison: Comparison) -> str:
    """CPU time, which the neighbours of the process disturb less than the rate."""
    header = ["CPU time for a request, µs", *(f"{count:,} connections" for count in CONNECTIONS)]
    rows: list[list[str]] = []
    for variant in comparison.bare:
        if variant not in comparison.errors:
            shown = f"**{variant}**" if OURS in variant else variant
            rows.append([shown, *(_spent(comparison, variant, count) for count in CONNECTIONS)])
    return table(header, rows)


def _spent(comparison: Comparison, variant: str, connections: int) -> str:
    own, bare = comparison.best(variant, connections), comparison.best(comparison.bare[variant], connections)
    if own is None or bare is None:
        return ""
    more = "" if comparison.bare[variant] == variant else f" ({own.processor - bare.processor:+,.0f})"
    return f"{own.processor:,.0f}{more}"


def _rate(comparison: Comparison, variant: str, connections: int) -> str:
    turn, ratio = comparison.best(variant, connections), comparison.ratio(variant, connections)
    if turn is None or ratio is None:
        return ""
    return f"{turn.rate:,.0f}" + ("" if comparison.bare[variant] == variant else f" ({ratio:.2f} x)")


def draw(comparison: Comparison) -> str:
    """Requests per second as bars, a group for each number of connections."""
    parts = [text(16, 26, comparison.title, "title"), text(16, 46, "requests per second, more is better", "quiet")]
    y = 62.0
    for count in CONNECTIONS:
        parts.append(text(LEFT - 14, y + 17, f"{count:,} connections", "title", "end"))
        y += ROW
        found = {name: turn for name in comparison.bare if (turn := comparison.best(name, count))}
        parts += _bars(found, y)
        y += ROW * len(found) + 8
    return svg(y + 8, comparison.title, parts)


def _bars(found: Mapping[str, Turn], top: float) -> Sequence[str]:
    highest = max((turn.rate for turn in found.values()), default=1.0)
    parts: list[str] = []
    for index, (name, turn) in enumerate(found.items()):
        y, width = top + ROW * index, turn.rate / highest * (WIDTH - LEFT - RIGHT)
        css = "ours" if OURS in name else "other"
        parts.append(text(LEFT - 14, y + 17, name, anchor="end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y + 4}" width="{width:.1f}" height="18" rx="2" class="{css}">'
            f"<title>{escape(name)}: p99 {turn.p99:.2f} ms</title></rect>"
        )
        parts.append(text(LEFT + width + 8, y + 17, f"{turn.rate:,.0f}"))
    return parts
