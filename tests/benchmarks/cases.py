"""Cases whose figures are known beforehand."""

from __future__ import annotations

from benchmarks.harness import Outcome
from benchmarks.model import Case, Role, Variant
from benchmarks.results import CaseResult, Results


class Scripted:
    """A meter whose subjects are lists of figures; an exception among them is raised."""

    unit = "µs"

    def __init__(self, *, heavy=False):
        self.heavy = heavy
        self.order = []

    def prepare(self, subject, run, seconds):
        name, figures = subject
        remaining = iter(figures)

        def repeat():
            self.order.append(name)
            figure = next(remaining)
            if isinstance(figure, Exception):
                raise figure
            return figure

        return repeat


def variant(name, role, figures=()):
    return Variant(name, role, lambda: (name, list(figures)))


def case(*bars, variants=None, meter=None, key="guard"):
    default = (
        variant("by hand", Role.FLOOR),
        variant("ours", Role.OURS),
        variant("slow peer", Role.PEER),
        variant("quick peer", Role.PEER),
    )
    return Case(key, f"The {key}", "a loop", meter or Scripted(), default if variants is None else variants, bars)


FIGURES = {"by hand": 2.0, "ours": 5.0, "slow peer": 20.0, "quick peer": 10.0}


def results(figures=FIGURES, *, errors=None, namesake=None, key="guard", python="3.11.7"):
    here = Outcome(dict(figures), dict(errors or {}))
    return Results(
        python=python,
        system="Linux x86_64",
        processors=2,
        load=(0.5, 1.0),
        mode="full",
        pins={},
        missing={},
        cases={key: CaseResult("µs", here, namesake or Outcome())},
    )
