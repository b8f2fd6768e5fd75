"""Plots as SVG, written by hand; they adapt to light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from benchmarks.model import Case, Kind, Role
from benchmarks.report import figure, times
from benchmarks.results import Results, ratios

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2933; }
.title { font-weight: 600; font-size: 15px; }
.quiet { fill: #616e7c; font-size: 12px; }
.grid { stroke: #d5dbe1; }
.floor { stroke: #616e7c; stroke-width: 1.5; }
.bar { stroke: #c2410c; stroke-width: 2; }
.ours { fill: #0f766e; }
.peer { fill: none; stroke: #8a97a5; stroke-width: 1.5; }
.other { fill: #b6c0ca; }
.mine { fill: none; stroke: #0f766e; stroke-width: 2.5; }
.theirs { fill: none; stroke: #8a97a5; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb; }
  .quiet { fill: #9aa5b1; }
  .grid { stroke: #3b444e; }
  .floor { stroke: #9aa5b1; }
  .bar { stroke: #fb923c; }
  .ours { fill: #2dd4bf; }
  .peer { stroke: #7b8794; }
  .other { fill: #52606d; }
  .mine { stroke: #2dd4bf; }
  .theirs { stroke: #7b8794; }
}"""
ROW = 26
LEFT = 400
WIDTH = 1020
RIGHT = 110
LARGEST = 400


def svg(height: float, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n{body}\n</svg>\n'
    )


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x: float, top: float, bottom: float, css: str) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" class="{css}"/>'


def position(ratio: float) -> float:
    """Where a multiple of the floor stands, on a logarithmic scale from 1 to `LARGEST`; what is outside, at the end."""
    share = math.log(min(max(ratio, 1.0), LARGEST)) / math.log(LARGEST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def overview(cases: Sequence[Case], results: Results) -> str:
    """Ours, the peers and the goal as multiples of the floor: a row for each of our variants."""
    rows = [
        (case, name) for case in cases for name in case.names(Role.OURS) if name in results.cases[case.key].here.figures
    ]
    top, bottom = 62, 62 + ROW * len(rows)
    parts = [
        text(16, 26, "Cost of a guarded call as a multiple of the code by hand (logarithmic)", "title"),
        text(
            16, 46, "filled: pyresilience · rings: peers · bar: the goal, where it is a multiple of the floor", "quiet"
        ),
    ]
    for ratio in (1, 2, 5, 10, 20, 50, 100, 200, 400):
        parts.append(line(position(ratio), top, bottom, "floor" if ratio == 1 else "grid"))
        parts.append(text(position(ratio), bottom + 18, f"{ratio} x", "quiet", "middle"))
    for index, (case, name) in enumerate(rows):
        parts += _strip(case, name, results, top + ROW * (index + 0.5))
    return svg(bottom + 34, "Cost of a guarded call as a multiple of the code by hand", parts)


def _strip(case: Case, name: str, results: Results, y: float) -> list[str]:
    factors = ratios(case, results.cases[case.key].here)
    variant = name.removeprefix("pyresilience").removeprefix(", ")
    label = f"{case.title} ({variant})" if variant else case.title
    parts = [text(LEFT - 14, y + 4, label if len(label) <= 62 else label[:61] + "…", anchor="end")]
    for bar in case.bars:
        if bar.kind is Kind.TIMES and (bar.against is None or bar.against in factors):
            limit = bar.limit * (factors[bar.against] if bar.against else 1.0)
            parts.append(line(position(limit), y - 9, y + 9, "bar"))
    parts += [
        f'<circle cx="{position(factors[peer]):.1f}" cy="{y:.1f}" r="4" class="peer"><title>{escape(peer)} '
        f"{times(factors[peer])}</title></circle>"
        for peer in case.names(Role.PEER)
        if peer in factors
    ]
    parts.append(f'<circle cx="{position(factors[name]):.1f}" cy="{y:.1f}" r="6" class="ours"/>')
    parts.append(text(WIDTH - 16, y + 4, times(factors[name]), anchor="end"))
    return parts


def bars(case: Case, results: Results) -> str:
    """One case: every variant as a bar, the quickest first."""
    result = results.cases[case.key]
    figures = sorted(result.here.figures.items(), key=lambda item: item[1])
    widest = max((value for _, value in figures), default=1.0)
    parts = [text(16, 26, case.title, "title")]
    for index, (name, value) in enumerate(figures):
        y = 44 + ROW * index
        css = "ours" if name in case.names(Role.OURS) else "other"
        label = f"by hand: {case.floor}" if name in case.names(Role.FLOOR) else name
        width = max(1.0, value / widest * (WIDTH - LEFT - RIGHT))
        parts.append(text(LEFT - 14, y + 17, label, anchor="end"))
        parts.append(f'<rect x="{LEFT}" y="{y + 4}" width="{width:.1f}" height="18" rx="2" class="{css}"/>')
        parts.append(text(LEFT + width + 8, y + 17, figure(value, result.unit)))
    return svg(44 + ROW * len(figures) + 16, case.title, parts)
