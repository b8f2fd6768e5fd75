"""How steady the ratios of quick runs are, and which of them a check can rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path

from benchmarks.catalogue import CASES
from benchmarks.harness import Outcome
from benchmarks.model import Role
from benchmarks.page import table
from benchmarks.results import TOLERANCE, Baseline, lacking, ratios

STEADY = 1.2
"""The largest ratio of a variant may be so many times its smallest, in runs on a quiet machine."""


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Of the ratio to the floor of one variant, over several quick runs.

    Attributes:
        quiet: largest divided by smallest, of the runs on a quiet machine.
        loaded: the same, of all runs, those beside a busy neighbour included.
        alarms: of the checks of each run against each other one, how many would have failed at the first look.
        checked: whether a quick check judges this variant.
    """

    quiet: float
    loaded: float
    alarms: int
    checked: bool


Stability = dict[str, dict[str, Steadiness]]
"""Case to variant to how steady it is."""


def spread(values: Sequence[float]) -> float:
    """Largest divided by smallest; infinite when there is nothing to compare."""
    return max(values) / min(values) if len(values) > 1 else float("inf")


def false_alarms(values: Sequence[float]) -> int:
    """How many pairs of runs of the same code a check would have taken for a regression."""
    return sum(now > before * TOLERANCE for before, now in permutations(values, 2))


def judge(quiet: Sequence[Baseline], loaded: Sequence[Baseline]) -> Stability:
    """Every variant that any run has measured. One that a run lacks is not steady."""
    found: Stability = {}
    everything = [*quiet, *loaded]
    for case in dict.fromkeys(key for run in everything for key in run):
        for variant in dict.fromkeys(name for run in everything for name in run.get(case, {})):
            found.setdefault(case, {})[variant] = _steadiness(
                [run.get(case, {}).get(variant) for run in quiet], [run.get(case, {}).get(variant) for run in loaded]
            )
    return found


def _steadiness(quiet: Sequence[float | None], loaded: Sequence[float | None]) -> Steadiness:
    calm = [value for value in quiet if value is not None]
    everything = [*calm, *(value for value in loaded if value is not None)]
    complete = len(everything) == len(quiet) + len(loaded)
    alarms = false_alarms(everything)
    checked = complete and spread(calm) <= STEADY and not alarms
    return Steadiness(round(spread(calm), 3), round(spread(everything), 3), alarms, checked)


def combined(earlier: Stability, now: Stability) -> Stability:
    """Two series of runs as one: what was not steady in one of them is not steady."""
    return {
        case: {name: _worse(earlier.get(case, {}).get(name, found), found) for name, found in named.items()}
        for case, named in now.items()
    }


def _worse(one: Steadiness, other: Steadiness) -> Steadiness:
    if one is other:
        return one
    return Steadiness(
        max(one.quiet, other.quiet),
        max(one.loaded, other.loaded),
        one.alarms + other.alarms,
        one.checked and other.checked,
    )


def checked_variants(stability: Stability, case: str) -> set[str]:
    return {name for name, found in stability.get(case, {}).items() if found.checked}


def checked_only(baseline: Baseline, stability: Stability) -> Baseline:
    """The part of a baseline that a quick check judges."""
    return {
        case: {name: ratio for name, ratio in ratios.items() if name in checked_variants(stability, case)}
        for case, ratios in baseline.items()
    }


def save_stability(path: Path, runs: Mapping[str, int], stability: Stability) -> None:
    variants = {case: {name: asdict(found) for name, found in named.items()} for case, named in stability.items()}
    path.write_text(json.dumps({"runs": runs, "variants": variants}, indent=1, ensure_ascii=False) + "\n")


def runs_of(path: Path) -> dict[str, int]:
    """From how many runs the findings of `load_stability` come."""
    found: dict[str, int] = json.loads(path.read_text())["runs"]
    return found


def load_stability(path: Path) -> Stability:
    """What `stability.py` has found.

    Raises:
        SystemExit: nothing, or it is not readable.
    """
    try:
        content = json.loads(path.read_text())["variants"]
        return {case: {name: Steadiness(**found) for name, found in named.items()} for case, named in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"nothing in {path.name}: {error}; benchmarks/stability.py makes it") from error


def our_ratios(results: Path) -> Baseline:
    """Case to variant of ours to its ratio to the floor, of the results of a run."""
    cases = json.loads(results.read_text())["cases"]
    found: Baseline = {}
    for key, content in cases.items():
        if key in CASES:
            ours = CASES[key].names(Role.OURS)
            outcome = Outcome(**content["here"])
            found[key] = {name: ratio for name, ratio in ratios(CASES[key], outcome).items() if name in ours}
    return found


def describe(quiet: int, loaded: int, stability: Stability) -> str:
    """Of so many runs: a table of the verdicts, and what no run has measured."""
    rows: list[list[str]] = []
    for key, named in stability.items():
        for name, found in named.items():
            variant = name.removeprefix("pyresilience").removeprefix(", ")
            verdict = "yes" if found.checked else "no"
            rows.append([CASES[key].title, variant, f"{found.quiet:.2f}", f"{found.loaded:.2f}", verdict])
    total = sum(found.checked for named in stability.values() for found in named.values())
    first = (
        f"{quiet} quick runs and {loaded} more beside a busy neighbour: {total} of {len(rows)} ratios are checked. The "
        "figures are the largest ratio divided by the smallest."
    )
    never = lacking(CASES.values(), stability)
    last = f"\n\nNot checked, as no run has measured them: {', '.join(never)}." if never else ""
    return first + "\n\n" + table(["case", "", "quiet", "all runs", "checked"], rows) + last
