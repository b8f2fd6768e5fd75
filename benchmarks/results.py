"""What a run has found: ratios to the floor, the bars reached and missed, and what became worse."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Outcome
from benchmarks.model import BEST_PEER, Bar, Case, Kind, Role

TOLERANCE = 1.25
"""How much worse than the baseline a ratio may be."""


@dataclass(slots=True)
class CaseResult:
    """The outcome of a case, and that of the package of the same name, which has a process and floors of its own."""

    unit: str
    here: Outcome
    namesake: Outcome = field(default_factory=Outcome)


@dataclass(slots=True)
class Results:
    python: str
    system: str
    processors: int
    load: tuple[float, float]
    mode: str
    pins: dict[str, str]
    missing: dict[str, str]
    cases: dict[str, CaseResult]

    @property
    def outcomes(self) -> dict[str, Outcome]:
        return {key: result.here for key, result in self.cases.items()}

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a variant of ours stands to a bar."""

    variant: str
    bar: Bar
    score: float

    @property
    def reached(self) -> bool:
        return self.score <= self.bar.limit


def floor_of(case: Case, outcome: Outcome) -> float | None:
    return next((outcome.figures[name] for name in case.names(Role.FLOOR) if name in outcome.figures), None)


def best_peer(case: Case, outcome: Outcome) -> str | None:
    measured = [name for name in case.names(Role.PEER) if name in outcome.figures]
    return min(measured, key=outcome.figures.__getitem__, default=None)


def ratios(case: Case, outcome: Outcome) -> dict[str, float]:
    """Every variant that was measured, as a multiple of the floor. Empty without a floor."""
    base = floor_of(case, outcome)
    return {} if not base else {name: figure / base for name, figure in outcome.figures.items()}


def verdicts(case: Case, outcome: Outcome) -> list[Verdict]:
    """Each of our variants against each bar whose reference was measured."""
    found: list[Verdict] = []
    for name in case.names(Role.OURS):
        for bar in case.bars:
            score = _score(case, outcome, name, bar)
            if score is not None:
                found.append(Verdict(name, bar, score))
    return found


def _score(case: Case, outcome: Outcome, name: str, bar: Bar) -> float | None:
    figure = outcome.figures.get(name)
    if figure is None or bar.kind is Kind.VALUE:
        return figure
    if bar.against is None:
        reference = floor_of(case, outcome)
    elif bar.against == BEST_PEER:
        reference = outcome.figures.get(best_peer(case, outcome) or "")
    else:
        reference = outcome.figures.get(bar.against)
    if not reference:
        return None
    return figure / reference if bar.kind is Kind.TIMES else figure - reference


@dataclass(frozen=True, slots=True)
class Regression:
    """A ratio of ours that is worse than the baseline allows; without `now`, it could not be measured."""

    case: str
    variant: str
    before: float
    now: float | None

    def __str__(self) -> str:
        if self.now is None:
            return f"{self.case}, {self.variant}: was {self.before:.2f} x floor, was not measured now"
        return (
            f"{self.case}, {self.variant}: {self.now:.2f} x floor, was {self.before:.2f} "
            f"(+{self.now / self.before - 1:.0%}, allowed +{TOLERANCE - 1:.0%})"
        )


Baseline = dict[str, dict[str, float]]
"""Case to variant of ours to its ratio to the floor."""


def baseline_of(cases: Iterable[Case], results: Results) -> Baseline:
    return {
        case.key: {
            name: round(ratio, 3)
            for name, ratio in ratios(case, results.cases[case.key].here).items()
            if name in case.names(Role.OURS)
        }
        for case in cases
    }


def lacking(cases: Iterable[Case], known: Mapping[str, Container[str]]) -> list[str]:
    """Our variants that something by case and variant does not hold, as `case: variant`."""
    return [
        f"{case.key}: {name}" for case in cases for name in case.names(Role.OURS) if name not in known.get(case.key, ())
    ]


def regressions(cases: Iterable[Case], outcomes: Mapping[str, Outcome], baseline: Baseline) -> list[Regression]:
    """What is worse than the baseline by more than the tolerance. A case that the baseline lacks is no regression."""
    found: list[Regression] = []
    for case in cases:
        now = ratios(case, outcomes[case.key])
        for name, before in baseline.get(case.key, {}).items():
            ratio = now.get(name)
            if ratio is None or ratio > before * TOLERANCE:
                found.append(Regression(case.key, name, before, ratio))
    return found


def confirmed(
    cases: Sequence[Case],
    outcomes: Mapping[str, Outcome],
    baseline: Baseline,
    again: Callable[[Sequence[Case]], Mapping[str, Outcome] | None],
) -> list[Regression]:
    """The regressions that stay when their cases are measured again.

    A slow moment of the machine, or an unlucky layout of one process, does not last. What seems worse counts only if
    it is worse each time, by the floor of that time; `again` measures some cases, or returns None to end it.
    """
    found = regressions(cases, outcomes, baseline)
    while found:
        suspects = {(regression.case, regression.variant) for regression in found}
        doubtful = [case for case in cases if any(case.key == key for key, _ in suspects)]
        fresh = again(doubtful)
        if fresh is None:
            break
        still = regressions(doubtful, fresh, baseline)
        found = [regression for regression in still if (regression.case, regression.variant) in suspects]
    return found


def load_baseline(path: Path, floors: str) -> tuple[str, Baseline]:
    """The version of Python that the baseline is of, as `3.11`, and the baseline.

    Args:
        floors: the digest of the floors that are measured now.

    Raises:
        SystemExit: there is none, it is not readable, or its ratios are to other floors.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        python, baseline, measured = content["python"], content["ratios"], content.get("floors")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"no baseline in {path.name}: {error}; --write-baseline makes one") from error
    if measured != floors:
        raise SystemExit(f"the floors have changed since the baseline in {path.name}: --write-baseline makes a new one")
    return python, baseline


def save_baseline(path: Path, python: str, floors: str, baseline: Baseline) -> None:
    content = {"python": python, "floors": floors, "ratios": baseline}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
