"""Curves as SVG: lines over a growing number, from zero upwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.plots import line, svg, text

if TYPE_CHECKING:
    from benchmarks.scale.curve import Curve, Points

TOP, BOTTOM, LEFT, RIGHT = 62, 362, 70, 700
LEGEND = RIGHT + 24
DASHES = ("", "7 4", "2 4", "9 3 2 3")


def draw(curve: Curve) -> str:
    highest = max(y for points in curve.series.values() for _, y in points)
    ticks = round_steps(highest)
    parts = [text(16, 26, curve.title, "title"), text(16, 46, curve.unit, "quiet")]
    for tick in ticks:
        y = height(tick, ticks[-1])
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(text(LEFT - 8, y + 4, f"{tick:g}", "quiet", "end"))
    for x in marks(curve):
        across = position(x, curve)
        parts += [line(across, BOTTOM, BOTTOM + 5, "floor"), text(across, BOTTOM + 20, f"{x:,g}", "quiet", "middle")]
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 40, curve.x, "quiet", "middle"))
    for index, (name, points) in enumerate(curve.series.items()):
        parts += _line(curve, name, points, index, ticks[-1])
    return svg(BOTTOM + 54, curve.title, parts)


def _line(curve: Curve, name: str, points: Points, index: int, highest: float) -> list[str]:
    css = "mine" if name in curve.ours else "theirs"
    dashes = DASHES[index % len(DASHES)]
    path = " ".join(f"{position(x, curve):.1f},{height(y, highest):.1f}" for x, y in points)
    drawn = f'class="{css}" stroke-dasharray="{dashes}"' if dashes else f'class="{css}"'
    y = TOP + 14 + 24 * index
    return [
        f'<polyline points="{path}" {drawn}/>',
        f'<line x1="{LEGEND}" x2="{LEGEND + 34}" y1="{y - 4}" y2="{y - 4}" {drawn}/>',
        text(LEGEND + 42, y, name),
    ]


def marks(curve: Curve) -> list[float]:
    """What is written below the plot: every x, or for a linear one at most eleven of them."""
    values = sorted({x for points in curve.series.values() for x, _ in points})
    return values if curve.logarithmic else values[:: max(1, math.ceil((len(values) - 1) / 10))]


def position(x: float, curve: Curve) -> float:
    values = [value for points in curve.series.values() for value, _ in points]
    scale = math.log if curve.logarithmic else float
    low, high = scale(min(values)), scale(max(values))
    share = (scale(x) - low) / (high - low) if high > low else 0.0
    return LEFT + 12 + share * (RIGHT - LEFT - 24)


def height(y: float, highest: float) -> float:
    return BOTTOM - y / highest * (BOTTOM - TOP)


def round_steps(highest: float) -> list[float]:
    """From 0 to at least `highest` in four to ten steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(step for step in (power / 10, power / 5, power / 2, power) if highest <= 10 * step)
    return [round(index * step, 10) for index in range(math.ceil(highest / step - 1e-9) + 1)]
