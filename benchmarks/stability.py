"""Which ratios to the floor are steady enough for a check on every change.

`uv run benchmarks/stability.py` runs `benchmarks/run.py --quick` again and again, some of the times beside a busy
neighbour that it starts and ends itself, and writes `benchmarks/stability.json` and a part of the documentation page.
A quick check judges a variant if its largest ratio on the quiet machine is at most 1.2 times its smallest, and if no
run would have raised an alarm at the first look with any other run, the disturbed ones included, as its baseline. With
`--add` it has to be steady in the runs of another day as well, which the file holds already.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # the package `benchmarks`, in place of its folder

from benchmarks.page import STABILITY, publish  # noqa: E402
from benchmarks.places import HERE, PAGE  # noqa: E402
from benchmarks.spread import combined, describe, judge, load_stability, our_ratios, runs_of, save_stability  # noqa: E402

FINDINGS = HERE / "stability.json"
RUN_TIMEOUT = 180
BUSY = "while True: sum(range(10_000))"


@contextlib.contextmanager
def busy_neighbour() -> Generator[None]:
    """A process that never waits."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def quick_run(folder: Path, number: int, *, busy: bool) -> Path:
    """The results of one quick run, as the check of a pull request makes it."""
    path = folder / f"{'loaded' if busy else 'quiet'}-{number}.json"
    print(path.stem, file=sys.stderr, flush=True)
    with busy_neighbour() if busy else contextlib.nullcontext():
        command = [sys.executable, str(HERE / "run.py"), "--quick", "--json", str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=RUN_TIMEOUT)
    return path


def collect(folder: Path, options: argparse.Namespace) -> tuple[Sequence[Path], Sequence[Path]]:
    if options.results is None:
        for number in range(options.quiet + options.loaded):
            quick_run(folder, number, busy=number >= options.quiet)
    return sorted(folder.glob("quiet-*.json")), sorted(folder.glob("loaded-*.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiet", type=int, default=8, help="runs on the machine as it is")
    parser.add_argument("--loaded", type=int, default=3, help="runs beside a busy neighbour")
    parser.add_argument("--add", action="store_true", help="to what earlier runs have found, in place of that")
    parser.add_argument("--results", metavar="FOLDER", type=Path, help="of earlier runs: quiet-*.json, loaded-*.json")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where the results of the runs stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.results or options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        quiet, loaded = collect(folder, options)
        stability = judge([our_ratios(path) for path in quiet], [our_ratios(path) for path in loaded])
    if not stability:
        raise SystemExit("there are no results")
    runs = {"quiet": len(quiet), "loaded": len(loaded)}
    if options.add:
        stability = combined(load_stability(FINDINGS), stability)
        runs = {kind: count + runs[kind] for kind, count in runs_of(FINDINGS).items()}
    content = describe(runs["quiet"], runs["loaded"], stability)
    save_stability(FINDINGS, runs, stability)
    publish(PAGE, content, STABILITY)
    print(content)


if __name__ == "__main__":
    main()
