"""The tables of a run, in Markdown: what was to be reached, and every figure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.model import BEST_PEER, Bar, Case, Kind, Role
from benchmarks.page import table
from benchmarks.results import CaseResult, Regression, Results, Verdict, best_peer, floor_of, ratios, verdicts

NAMESAKE = "the package of our name"


def figure(value: float, unit: str) -> str:
    """As many digits as mean something."""
    if unit == "B":
        return f"{value:,.0f} B"
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"


def times(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.0f} x"


def goal(bar: Bar, unit: str) -> str:
    what = {None: "floor", BEST_PEER: "the best peer"}.get(bar.against, bar.against)
    if bar.kind is Kind.VALUE:
        return f"≤ {bar.limit:,.0f} {unit}"
    if bar.kind is Kind.PLUS:
        return f"≤ {what} + {bar.limit:g} {unit}"
    return f"≤ {what}" if bar.limit == 1 else f"≤ {bar.limit:g} x {what}"


def standing(verdict: Verdict, unit: str) -> str:
    """How far it is, in the terms of the bar."""
    if verdict.bar.kind is Kind.TIMES:
        hidden = not verdict.reached and round(verdict.score, 2) <= verdict.bar.limit
        score = f"{verdict.score:.3f} x" if hidden else times(verdict.score)
    else:
        sign = "+" if verdict.bar.kind is Kind.PLUS and verdict.score >= 0 else ""
        score = sign + figure(verdict.score, unit)
    return f"{score} ✓" if verdict.reached else f"**{score} missed**"


def summary(cases: Sequence[Case], results: Results) -> str:
    """One row for each variant of ours."""
    rows: list[list[str]] = []
    for case in cases:
        result = results.cases[case.key]
        base, peer = floor_of(case, result.here), best_peer(case, result.here)
        for name in case.names(Role.OURS):
            value = result.here.figures.get(name)
            if value is None:
                rows.append([case.title, name, "", "", "", f"**not measured**: {result.here.errors.get(name)}", "", ""])
                continue
            found = [verdict for verdict in verdicts(case, result.here) if verdict.variant == name]
            rows.append(
                [
                    case.title,
                    name.removeprefix("pyresilience").removeprefix(", "),
                    figure(value, result.unit),
                    times(value / base) if base else "",
                    "; ".join(goal(verdict.bar, result.unit) for verdict in found),
                    "; ".join(standing(verdict, result.unit) for verdict in found),
                    f"{peer}, {figure(result.here.figures[peer], result.unit)}" if peer else "",
                    _namesake(case, result, name),
                ]
            )
    header = ["case", "", "ours", "x floor", "to reach", "where we are", "best peer", f"{NAMESAKE}, x floor"]
    return table(header, rows)


def _namesake(case: Case, result: CaseResult, name: str) -> str:
    ratio = ratios(case, result.namesake).get(name)
    if ratio is not None:
        return times(ratio)
    return "failed" if name in result.namesake.errors else ""


def details(cases: Sequence[Case], results: Results) -> str:
    """Everything that was measured, each case from the quickest to the slowest."""
    parts: list[str] = []
    for case in cases:
        result = results.cases[case.key]
        factors = ratios(case, result.here)
        floors, ours = case.names(Role.FLOOR), case.names(Role.OURS)
        rows: list[list[str]] = []
        for name, value in sorted(result.here.figures.items(), key=lambda item: item[1]):
            shown = f"floor: {case.floor}" if name in floors else f"**{name}**" if name in ours else name
            rows.append([shown, figure(value, result.unit), times(factors[name]) if factors else ""])
        rows += [[name, "-", reason.replace("|", "\\|")] for name, reason in result.here.errors.items()]
        for name, ratio in ratios(case, result.namesake).items():
            if name in ours:
                suffix = name.removeprefix("pyresilience")
                value = result.namesake.figures[name]
                rows.append([f"{NAMESAKE}{suffix}", figure(value, result.unit), f"{times(ratio)} its own floor"])
        rows += [
            [f"{NAMESAKE}{name.removeprefix('pyresilience')}", "-", reason.replace("|", "\\|")]
            for name, reason in result.namesake.errors.items()
        ]
        parts.append(f"### {case.title}\n\n" + table(["", "minimum", "x floor"], rows))
    return "\n\n".join(parts)


def conditions(results: Results) -> str:
    machine = f"CPython {results.python} on {results.system}, {results.processors} processors"
    load = f"load average {results.load[0]:.1f} before and {results.load[1]:.1f} after"
    lines = [f"{machine}; {load}; a {results.mode} run."]
    lines += [f"Not installed: {requirement} ({reason})." for requirement, reason in results.missing.items()]
    return "\n".join(lines)


def page(cases: Sequence[Case], results: Results) -> str:
    """What stands between the marks of the documentation page."""
    return "\n\n".join([conditions(results), summary(cases, results), "## Every figure", details(cases, results)])


def check_report(found: Sequence[Regression]) -> str:
    if not found:
        return "check: nothing is worse than the baseline allows"
    return "check: worse than the baseline allows\n" + "\n".join(f"  {regression}" for regression in found)
