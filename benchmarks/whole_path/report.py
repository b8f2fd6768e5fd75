"""Runs clients and applications in turns, and writes JSON, plots and their part of the page."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from benchmarks.page import WHOLE_PATH, publish
from benchmarks.places import HERE, PAGE, PLOTS
from benchmarks.whole_path.client import CLIENTS
from benchmarks.whole_path.processes import Server, measured, server
from benchmarks.whole_path.results import Comparison, draw, tables
from benchmarks.whole_path.service import APPLICATIONS, BARE
from benchmarks.whole_path.turn import Turn

if TYPE_CHECKING:
    from benchmarks.environment import Environment

CONNECTIONS = (1, 64, 512)
PACKAGE = "benchmarks.whole_path"


@dataclass(frozen=True, slots=True)
class Plan:
    """How often a variant takes its turn, and how long it lasts."""

    turns: int = 5
    seconds: float = 0.75


USUAL = Plan()
PLANS: Mapping[str, Mapping[int, Plan]] = {"httpx2": {512: Plan(seconds=2)}, "httpx": {512: Plan(turns=4)}}
"""Library to number of connections with which its pool takes milliseconds for a request.

With 512 of httpx a turn is one request on each, which takes five seconds, after seven in which they are opened.
"""


@dataclass(frozen=True, slots=True)
class Load:
    """How a variant is measured with so many connections for so many seconds, and the plans that are not as usual."""

    turn: Callable[[int, float], Turn]
    plans: Mapping[int, Plan] = field(default_factory=dict[int, Plan])


def run(environment: Environment, only: Collection[int] = ()) -> str:
    """Measure both sides. Unless it is only with some numbers of connections, write what came of it."""
    counts = [count for count in CONNECTIONS if not only or count in only]
    comparisons = [clients(environment, counts), applications(environment, counts)]
    if only:
        return "\n\n".join(tables(comparison) for comparison in comparisons)
    usual = f"the middle of {USUAL.turns} turns (least to most), of {USUAL.seconds:g} s unless said otherwise"
    parts = [f"CPython {environment.version}, {usual}."]
    PLOTS.mkdir(exist_ok=True)
    for comparison in comparisons:
        plot = f"benchmarks-whole-path-{comparison.key}.svg"
        (PLOTS / plot).write_text(draw(comparison))
        parts += [f"### {comparison.title}", f"![{comparison.title}](assets/{plot})"]
        parts.append(tables(comparison))
    results = {"python": environment.version, **{found.key: asdict(found) for found in comparisons}}
    (HERE / "whole_path.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    content = "\n\n".join(parts)
    publish(PAGE, content, WHOLE_PATH)
    return content


def clients(environment: Environment, counts: Sequence[int]) -> Comparison:
    bare = {name: client.bare for name, client in CLIENTS.items()}
    comparison = Comparison("clients", "Clients", counts, bare)
    with server(environment, f"{PACKAGE}.origin") as origin:
        loads = {
            name: Load(_client(environment, origin, name), PLANS[client.library]) for name, client in CLIENTS.items()
        }
        _take_turns(comparison, loads)
    return comparison


def _client(environment: Environment, origin: Server, name: str) -> Callable[[int, float], Turn]:
    def turn(connections: int, seconds: float) -> Turn:
        arguments = [name, "--port", str(origin.port), "--seconds", str(seconds), "--connections", str(connections)]
        return Turn(**measured(environment, f"{PACKAGE}.client", arguments))

    return turn


def applications(environment: Environment, counts: Sequence[int]) -> Comparison:
    """All servers are there from the beginning; those whose turn it is not have nothing to do."""
    bare = dict.fromkeys(APPLICATIONS, BARE)
    comparison = Comparison("applications", "Applications under uvicorn", counts, bare)
    loads: dict[str, Load] = {}
    with contextlib.ExitStack() as stack:
        for name in APPLICATIONS:
            try:
                service = stack.enter_context(server(environment, f"{PACKAGE}.service", name))
            except RuntimeError as error:
                comparison.errors[name] = str(error)
            else:
                loads[name] = Load(_application(environment, service))
        _take_turns(comparison, loads)
    return comparison


def _application(environment: Environment, service: Server) -> Callable[[int, float], Turn]:
    def turn(connections: int, seconds: float) -> Turn:
        arguments = ["--port", str(service.port), "--seconds", str(seconds), "--connections", str(connections)]
        before = service.processor()
        found = measured(environment, f"{PACKAGE}.load", arguments)
        spent = service.processor() - before
        every = found.pop("all")
        return Turn(**{**found, "processor": spent / every * 1e6})

    return turn


def _take_turns(comparison: Comparison, loads: dict[str, Load]) -> None:
    for connections in comparison.connections:
        print(f"  {comparison.title}, {connections} connections", file=sys.stderr, flush=True)
        plans = {name: load.plans.get(connections, USUAL) for name, load in loads.items()}
        for number in range(max(plan.turns for plan in plans.values())):
            for name in loads if number % 2 == 0 else reversed(loads):
                if name in comparison.errors or number >= plans[name].turns:
                    continue
                try:
                    comparison.add(name, connections, loads[name].turn(connections, plans[name].seconds))
                except RuntimeError as error:
                    comparison.errors[name] = str(error)
