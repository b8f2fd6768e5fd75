"""Makes the studies, each in a process of its own, and writes JSON, plots and their part of the page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks import lines
from benchmarks.page import SCALE, publish
from benchmarks.places import HERE, PAGE, PLOTS, our_variables
from benchmarks.scale.curve import Curve, from_json
from benchmarks.scale.studies import STUDIES

if TYPE_CHECKING:
    from benchmarks.environment import Environment

TIMEOUT = 300


def run(environment: Environment) -> str:
    """Make all studies and write what they show.

    Raises:
        SystemExit: one of them failed; nothing is written then.
    """
    curves: list[Curve] = []
    for index, key in enumerate(STUDIES):
        print(f"  {index + 1}/{len(STUDIES)} {key}", file=sys.stderr, flush=True)
        curves.append(study(key, environment))
    content = f"CPython {environment.version}.\n\n{describe(curves)}"
    results = {"python": environment.version, "curves": {curve.key: asdict(curve) for curve in curves}}
    (HERE / "scale.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    PLOTS.mkdir(exist_ok=True)
    for curve in curves:
        (PLOTS / f"benchmarks-scale-{curve.key}.svg").write_text(lines.draw(curve))
    publish(PAGE, content, SCALE)
    return content


def study(key: str, environment: Environment) -> Curve:
    command = [str(environment.python), "-m", "benchmarks.scale.worker", key]
    done = subprocess.run(command, env=our_variables(), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        raise SystemExit(f"the study of {key} failed: {done.stderr.strip()}")
    return from_json(json.loads(done.stdout))


def describe(curves: Sequence[Curve]) -> str:
    parts: list[str] = []
    for curve in curves:
        plot = f"![{curve.title}](assets/benchmarks-scale-{curve.key}.svg)"
        parts += [f"### {curve.title}", plot, STUDIES[curve.key].says(curve)]
    return "\n\n".join(parts)
