"""Where things are, and what the processes that measure are given."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "assets"


def bare_variables() -> dict[str, str]:
    """The environment without anything that changes what Python does or finds."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def our_variables(**more: str) -> dict[str, str]:
    """The environment of a process that imports ours from the source tree."""
    return {**bare_variables(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "middleware")]), **more}
