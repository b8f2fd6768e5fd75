"""Runs clients and applications in turns, and writes JSON, plots and their part of the page."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks.page import WHOLE_PATH, publish
from benchmarks.places import HERE, PAGE, PLOTS
from benchmarks.whole_path.client import CLIENTS
from benchmarks.whole_path.processes import Server, measured, server
from benchmarks.whole_path.results import CONNECTIONS, Comparison, draw, processor, rates
from benchmarks.whole_path.service import APPLICATIONS, BARE
from benchmarks.whole_path.turn import Turn

if TYPE_CHECKING:
    from benchmarks.environment import Environment

TURNS = {1: 3, 64: 3, 512: 2}
"""Of each variant, by the number of connections."""
SECONDS = 0.5
PACKAGE = "benchmarks.whole_path"


@dataclass(frozen=True, slots=True)
class Load:
    """How a variant is measured, and the most connections that it is asked for."""

    turn: Callable[[int], Turn]
    most: int = CONNECTIONS[-1]


def run(environment: Environment) -> str:
    """Measure both sides and write what came of it."""
    comparisons = [clients(environment), applications(environment)]
    parts = [f"CPython {environment.version}, the best of {min(TURNS.values())} or {max(TURNS.values())} turns."]
    PLOTS.mkdir(exist_ok=True)
    for comparison in comparisons:
        plot = f"benchmarks-whole-path-{comparison.key}.svg"
        (PLOTS / plot).write_text(draw(comparison))
        parts += [f"### {comparison.title}", f"![{comparison.title}](assets/{plot})"]
        parts += [rates(comparison), processor(comparison)]
    results = {"python": environment.version, **{found.key: asdict(found) for found in comparisons}}
    (HERE / "whole_path.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    content = "\n\n".join(parts)
    publish(PAGE, content, WHOLE_PATH)
    return content


def clients(environment: Environment) -> Comparison:
    comparison = Comparison("clients", "Clients", {name: client.bare for name, client in CLIENTS.items()})
    with server(environment, f"{PACKAGE}.origin") as origin:
        loads = {name: Load(_client(environment, origin, name), client.most) for name, client in CLIENTS.items()}
        _take_turns(comparison, loads)
    return comparison


def _client(environment: Environment, origin: Server, name: str) -> Callable[[int], Turn]:
    def turn(connections: int) -> Turn:
        arguments = [name, "--port", str(origin.port), "--seconds", str(SECONDS), "--connections", str(connections)]
        return Turn(**measured(environment, f"{PACKAGE}.client", arguments))

    return turn


def applications(environment: Environment) -> Comparison:
    """All servers are there from the beginning; those whose turn it is not have nothing to do."""
    comparison = Comparison("applications", "Applications under uvicorn", dict.fromkeys(APPLICATIONS, BARE))
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


def _application(environment: Environment, service: Server) -> Callable[[int], Turn]:
    def turn(connections: int) -> Turn:
        arguments = ["--port", str(service.port), "--seconds", str(SECONDS), "--connections", str(connections)]
        before = service.processor()
        found = measured(environment, f"{PACKAGE}.load", arguments)
        spent = service.processor() - before
        return Turn(found["rate"], found["median"], found["p99"], spent / found["all"] * 1e6)

    return turn


def _take_turns(comparison: Comparison, loads: dict[str, Load]) -> None:
    for connections in CONNECTIONS:
        print(f"  {comparison.title}, {connections} connections", file=sys.stderr, flush=True)
        for number in range(TURNS[connections]):
            for name in loads if number % 2 == 0 else reversed(loads):
                if name in comparison.errors or connections > loads[name].most:
                    continue
                try:
                    comparison.add(name, connections, loads[name].turn(connections))
                except RuntimeError as error:
                    comparison.errors[name] = str(error)
