"""Of each variant and number of connections, what its turns have measured, beside the variant without a guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.page import table
from benchmarks.plots import LEFT, RIGHT, ROW, WIDTH, svg, text
from benchmarks.whole_path.turn import Figures, Range, Turn, figures

OURS = "pyresilience"
ENOUGH = 2_000
"""Requests in all turns of a variant; with fewer, the slowest in a hundred are a handful."""
WITHIN = "within the spread"


@dataclass(slots=True)
class Comparison:
    """Variants that do the same work.

    Attributes:
        connections: the numbers of them, each a comparison of its own.
        bare: variant to the one that it is compared with.
        turns: variant, then number of connections, to what was measured.
        errors: variant to the reason why nothing was.
    """

    key: str
    title: str
    connections: Sequence[int]
    bare: Mapping[str, str]
    turns: dict[str, dict[int, list[Turn]]] = field(default_factory=dict[str, dict[int, list[Turn]]])
    errors: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, variant: str, connections: int, turn: Turn) -> None:
        self.turns.setdefault(variant, {}).setdefault(connections, []).append(turn)

    def figures(self, variant: str, connections: int) -> Figures | None:
        """None where there were no turns, or too few requests in them."""
        turns = self.turns.get(variant, {}).get(connections)
        found = figures(turns) if turns and variant not in self.errors else None
        return found if found and found.requests >= ENOUGH else None


def tables(comparison: Comparison) -> str:
    """One for each number of connections."""
    return "\n\n".join(_table(comparison, count) for count in comparison.connections)


def _table(comparison: Comparison, connections: int) -> str:
    plural = "" if connections == 1 else "s"
    header = [f"{connections:,} connection{plural}", "requests/s", "beside no guard", "p99, ms", "CPU time, µs", "more"]
    rows: list[list[str]] = []
    for variant in comparison.bare:
        shown = f"**{variant}**" if OURS in variant else variant
        if variant in comparison.errors:
            rows.append([shown, comparison.errors[variant].replace("|", "\\|"), "", "", "", ""])
        elif found := comparison.figures(variant, connections):
            rows.append([shown, *_row(found, _reference(comparison, variant, connections))])
        elif connections in comparison.turns.get(variant, {}):
            rows.append([shown, f"fewer than {ENOUGH:,} requests", "", "", "", ""])
    return table(header, rows)


def _reference(comparison: Comparison, variant: str, connections: int) -> Figures | None:
    """None for a variant that is what others are compared with."""
    bare = comparison.bare[variant]
    return comparison.figures(bare, connections) if bare != variant else None


def _row(own: Figures, bare: Figures | None) -> list[str]:
    share = more = ""
    if bare:
        share = f"{own.rate.middle / bare.rate.middle:.2f} x" if own.rate.differs(bare.rate) else WITHIN
        extra = own.processor.middle - bare.processor.middle
        more = f"{extra:+,.0f}" if own.processor.differs(bare.processor) else WITHIN
    return [_shown(own.rate, ",.0f"), share, _shown(own.p99, ".2f"), _shown(own.processor, ",.0f"), more]


def _shown(found: Range, form: str) -> str:
    return f"{found.middle:{form}} ({found.least:{form}} to {found.most:{form}})"


def draw(comparison: Comparison) -> str:
    """Requests per second as bars, a group for each number of connections."""
    what = "requests per second, the middle of the turns, more is better"
    parts = [text(16, 26, comparison.title, "title"), text(16, 46, what, "quiet")]
    y = 62.0
    for count in comparison.connections:
        parts.append(text(LEFT - 14, y + 17, f"{count:,} connections", "title", "end"))
        y += ROW
        found = {name: cell for name in comparison.bare if (cell := comparison.figures(name, count))}
        parts += _bars(found, y)
        y += ROW * len(found) + 8
    return svg(y + 8, comparison.title, parts)


def _bars(found: Mapping[str, Figures], top: float) -> Sequence[str]:
    highest = max((cell.rate.middle for cell in found.values()), default=1.0)
    parts: list[str] = []
    for index, (name, cell) in enumerate(found.items()):
        y, width = top + ROW * index, cell.rate.middle / highest * (WIDTH - LEFT - RIGHT)
        css = "ours" if OURS in name else "other"
        parts.append(text(LEFT - 14, y + 17, name, anchor="end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y + 4}" width="{width:.1f}" height="18" rx="2" class="{css}">'
            f"<title>{escape(name)}: {_shown(cell.rate, ',.0f')}</title></rect>"
        )
        parts.append(text(LEFT + width + 8, y + 17, f"{cell.rate.middle:,.0f}"))
    return parts
