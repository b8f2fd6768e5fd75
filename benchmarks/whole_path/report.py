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
from benchmarks.whole_path.results import Comparison, draw, tables
from benchmarks.whole_path.service import APPLICATIONS, BARE
from benchmarks.whole_path.turn import Turn

if TYPE_CHECKING:
    from benchmarks.environment import Environment

TURNS = 5
"""Of each variant and number of connections."""
SECONDS = 0.75
CROWDED, CROWDED_SECONDS = 512, 4.0
"""From so many connections on, a client's pool takes milliseconds for a request: fewer would be too few to tell."""
CLIENT_CONNECTIONS = (1, 8, 64, 512)
SERVER_CONNECTIONS = (1, 64, 512)
PACKAGE = "benchmarks.whole_path"


@dataclass(frozen=True, slots=True)
class Load:
    """How a variant is measured, and the most connections that it is asked for."""

    turn: Callable[[int], Turn]
    most: int = SERVER_CONNECTIONS[-1]


def run(environment: Environment) -> str:
    """Measure both sides and write what came of it."""
    comparisons = [clients(environment), applications(environment)]
    parts = [f"CPython {environment.version}, the middle of {TURNS} turns of {SECONDS:g} s each (least to most)."]
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


def clients(environment: Environment) -> Comparison:
    bare = {name: client.bare for name, client in CLIENTS.items()}
    comparison = Comparison("clients", "Clients", CLIENT_CONNECTIONS, bare)
    with server(environment, f"{PACKAGE}.origin") as origin:
        loads = {name: Load(_client(environment, origin, name), client.most) for name, client in CLIENTS.items()}
        _take_turns(comparison, loads)
    return comparison


def _client(environment: Environment, origin: Server, name: str) -> Callable[[int], Turn]:
    def turn(connections: int) -> Turn:
        seconds = SECONDS if connections < CROWDED else CROWDED_SECONDS
        arguments = [name, "--port", str(origin.port), "--seconds", str(seconds), "--connections", str(connections)]
        return Turn(**measured(environment, f"{PACKAGE}.client", arguments))

    return turn


def applications(environment: Environment) -> Comparison:
    """All servers are there from the beginning; those whose turn it is not have nothing to do."""
    bare = dict.fromkeys(APPLICATIONS, BARE)
    comparison = Comparison("applications", "Applications under uvicorn", SERVER_CONNECTIONS, bare)
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
        every = found.pop("all")
        return Turn(**{**found, "processor": spent / every * 1e6})

    return turn


def _take_turns(comparison: Comparison, loads: dict[str, Load]) -> None:
    for connections in comparison.connections:
        print(f"  {comparison.title}, {connections} connections", file=sys.stderr, flush=True)
        for number in range(TURNS):
            for name in loads if number % 2 == 0 else reversed(loads):
                if name in comparison.errors or connections > loads[name].most:
                    continue
                try:
                    comparison.add(name, connections, loads[name].turn(connections))
                except RuntimeError as error:
                    comparison.errors[name] = str(error)
