"""A curve: figures over a growing number of something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.harness import Outcome, interleave, settled_heap

Points = list[tuple[float, float]]


@dataclass(slots=True)
class Curve:
    """One plot.

    Attributes:
        series: the name of each line to its points, x and y.
        logarithmic: whether x is.
        ours: the names of the lines that are ours.
        facts: further figures, for the sentence.
    """

    key: str
    title: str
    x: str
    unit: str
    ours: list[str]
    logarithmic: bool = True
    series: dict[str, Points] = field(default_factory=dict[str, Points])
    facts: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, name: str, x: float, y: float) -> None:
        self.series.setdefault(name, []).append((x, y))

    def first(self, name: str) -> float:
        return self.series[name][0][1]

    def last(self, name: str) -> float:
        return self.series[name][-1][1]

    def growth(self, name: str) -> float:
        """The last figure as a multiple of the first."""
        return self.last(name) / self.first(name)


class Study(Protocol):
    """A module of this package: it measures in a process of its own."""

    def measure(self) -> Curve: ...

    def says(self, curve: Curve) -> str:
        """What the curve shows, with its figures."""
        ...


def minima(repeats: Mapping[str, Callable[[], float]], count: int) -> dict[str, float]:
    """The least of each over `count` interleaved repeats.

    Raises:
        RuntimeError: one of them failed.
    """
    outcome = Outcome()
    with settled_heap():
        interleave(dict(repeats), count, outcome)
    for name, reason in outcome.errors.items():
        raise RuntimeError(f"{name}: {reason}")
    return outcome.figures


def from_json(content: dict[str, Any]) -> Curve:
    series = {name: [(x, y) for x, y in points] for name, points in content.pop("series").items()}
    return Curve(**content, series=series)
