"""Callgrind: counts the instructions of a process, and writes a file whenever a certain function is called."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Outcome
from benchmarks.model import Role
from benchmarks.places import our_variables

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.model import Case

MARK = "getpgid"
LENGTHS = {False: (100, 500, 2000), True: (30, 50, 250)}
"""Calls to warm up, and of the two stretches whose difference counts; True: of a peer."""
TIMEOUT = 300
SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)


def required() -> str:
    """The path of valgrind.

    Raises:
        SystemExit: it is not there.
    """
    found = shutil.which("valgrind")
    if found is None:
        raise SystemExit("instructions are counted with valgrind, which is not installed (apt-get install valgrind)")
    return found


def count(case: Case, environment: Environment) -> Outcome:
    """Instructions per call of every variant."""
    valgrind = required()
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        command = [valgrind, "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={counts}"]
        command += [str(environment.python), "-m", "benchmarks.instructions.worker", case.key]
        try:
            done = subprocess.run(
                command,
                env=our_variables(PYTHONHASHSEED="0"),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _nothing(case, f"took more than {TIMEOUT} s")
        if done.returncode:
            return _nothing(case, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        answer = json.loads(done.stdout)
        return Outcome(per_call(case, answer["counted"], stretches(counts)), answer["errors"])


def _nothing(case: Case, reason: str) -> Outcome:
    print(f"  {case.key}: {reason}", file=sys.stderr)
    return Outcome(errors={variant.name: reason for variant in case.variants})


def stretches(counts: Path) -> list[int]:
    """What was counted up to each mark, since the one before it."""
    files = sorted(counts.parent.glob(f"{counts.name}.*"), key=lambda path: int(path.suffix[1:]))
    found: list[int] = []
    for path in files:
        summary = SUMMARY.search(path.read_text())
        if summary is None:
            raise ValueError(f"callgrind wrote no summary into {path.name}")
        found.append(int(summary[1]))
    return found


def per_call(case: Case, names: Sequence[str], counted: Sequence[int]) -> dict[str, float]:
    """From three marks a variant: the longer stretch less the shorter, so that what calls share drops out.

    Raises:
        ValueError: there are not as many marks.
    """
    if len(counted) != 3 * len(names):
        raise ValueError(f"{len(names)} variants have {3 * len(names)} marks, not {len(counted)}")
    peers = case.names(Role.PEER)
    figures: dict[str, float] = {}
    for index, name in enumerate(names):
        _, short, long = LENGTHS[name in peers]
        figures[name] = (counted[3 * index + 2] - counted[3 * index + 1]) / (long - short)
    return figures
