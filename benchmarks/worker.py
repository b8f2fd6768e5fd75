"""Measures one case in this interpreter and prints its outcome as JSON. Started by `run.py`, never by hand.

Each case has a process of its own: what one library does to the process disturbs no other case.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import types
from pathlib import Path

HERE = Path(__file__).parent


def adopt_package() -> None:
    """Make `benchmarks` importable without putting our source tree on the path.

    The tree holds our `pyresilience`, and in one of the environments another package of that name is measured.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE]
    package = types.ModuleType("benchmarks")
    package.__path__ = [str(HERE)]
    sys.modules["benchmarks"] = package


def main() -> None:
    adopt_package()
    from benchmarks.catalogue import CASES
    from benchmarks.harness import measure
    from benchmarks.model import Effort, Role, Variant
    from benchmarks.suite import Select

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--select", type=Select, choices=Select, default=Select.ALL)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--heavy-repeats", type=int, required=True)
    options = parser.parse_args()

    def wanted(variant: Variant) -> bool:
        if options.select is Select.ALL or variant.role is Role.FLOOR:
            return True
        return variant.role is not Role.PEER if options.select is Select.OURS else variant.documented

    results = os.dup(1)  # what libraries print goes to where errors go
    os.dup2(2, 1)
    outcome = measure(CASES[options.case], wanted, Effort(options.seconds, options.repeats, options.heavy_repeats))
    with open(results, "w") as stream:
        json.dump({"figures": outcome.figures, "errors": outcome.errors}, stream)


if __name__ == "__main__":
    main()
