"""What guarded calls cost, against code written by hand for the same purpose and against other libraries.

`uv run benchmarks/run.py` measures everything in a few minutes and writes the results, the tables and the plots into
`benchmarks/` and `docs/`. `--quick` ends within a minute and writes nothing; with `--check` it exits with 1 when a
ratio of ours to the floor is worse than the committed baseline by more than 25 %. Three other commands measure
something else and write parts of their own: `--instructions`, `--scale` and `--whole-path`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # the package `benchmarks`, in place of its folder

import benchmarks.instructions.report  # noqa: E402
import benchmarks.scale.report  # noqa: E402
import benchmarks.whole_path.report  # noqa: E402
from benchmarks import floors, plots, report  # noqa: E402
from benchmarks.catalogue import CASES  # noqa: E402
from benchmarks.environment import default_cache, prepare  # noqa: E402
from benchmarks.page import publish  # noqa: E402
from benchmarks.places import HERE, PAGE, PLOTS  # noqa: E402
from benchmarks.results import (  # noqa: E402
    Baseline,
    Regression,
    Results,
    baseline_of,
    confirmed,
    lacking,
    load_baseline,
    minor,
    save_baseline,
)
from benchmarks.spread import checked_only, load_stability  # noqa: E402
from benchmarks.suite import FULL, QUICK, Suite  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.harness import Outcome
    from benchmarks.model import Case

BASELINE = HERE / "baseline.json"
STABILITY = HERE / "stability.json"
ROUNDS = 5
"""How often a check measures again what seems worse."""
NO_MORE_ROUNDS = 50
"""Seconds after which a quick check does not begin another round."""
DRAWN = ("six_policies", "retry_storm", "asgi_everything")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no files; ends within 60 seconds")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is worse than the baseline")
    parser.add_argument("--write-baseline", action="store_true", help="make this run the baseline")
    parser.add_argument("--instructions", action="store_true", help="count the instructions of a call (needs valgrind)")
    parser.add_argument("--scale", action="store_true", help="curves over pipelines, hosts, waiters, listeners, ...")
    parser.add_argument("--whole-path", action="store_true", help="requests per second from a client to a server")
    counts = benchmarks.whole_path.report.CONNECTIONS
    parser.add_argument("--connections", type=int, nargs="+", choices=counts, help="--whole-path with some; no files")
    parser.add_argument("--only", metavar="CASE", nargs="+", choices=CASES, help=f"of {', '.join(CASES)}; no files")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where the results go as well")
    parser.add_argument("--python", metavar="VERSION", help="measure another Python, such as 3.13")
    parser.add_argument("--cache", metavar="FOLDER", type=Path, default=default_cache(), help="of the environments")
    options = parser.parse_args()
    others = [options.instructions, options.scale, options.whole_path]
    if sum(others) > 1 or (any(others) and (options.quick or options.check or options.write_baseline or options.json)):
        parser.error("--instructions, --scale and --whole-path are commands of their own")
    if options.only and (options.scale or options.whole_path):
        parser.error("--only names cases, which --scale and --whole-path do not have")
    if options.connections and not options.whole_path:
        parser.error("--connections is for --whole-path")
    if options.check and options.write_baseline:
        parser.error("--check compares with the baseline that --write-baseline replaces: give one of them")
    if options.write_baseline and (options.quick or options.only):
        parser.error("--write-baseline takes a full run, without --quick and --only")
    return options


def save(cases: Sequence[Case], results: Results) -> None:
    results.save(HERE / "results.json")
    PLOTS.mkdir(exist_ok=True)
    (PLOTS / "benchmarks.svg").write_text(plots.overview(cases, results))
    for key in DRAWN:
        (PLOTS / f"benchmarks-{key.replace('_', '-')}.svg").write_text(plots.bars(CASES[key], results))
    publish(PAGE, report.page(cases, results))


def check(cases: Sequence[Case], results: Results, suite: Suite, python: str, baseline: Baseline) -> list[Regression]:
    """Compare with the baseline. What seems worse is measured again before it counts, as long as there is time.

    A quick run is held to those ratios only that were found to be steady in quick runs.
    """
    if python != minor(results.python):
        print(f"not checked: the baseline is of Python {python}, this is {results.python}, and ratios differ")
        return []
    say_unchecked("the baseline does not hold", lacking(cases, baseline))
    quick = results.mode == QUICK.mode
    if quick:
        stability = load_stability(STABILITY)
        say_unchecked("benchmarks/stability.py has never judged", lacking(cases, stability))
        baseline = checked_only(baseline, stability)
    rounds = iter(range(ROUNDS))

    def again(doubtful: Sequence[Case]) -> dict[str, Outcome] | None:
        late = suite.spent > NO_MORE_ROUNDS and quick
        return None if late or next(rounds, None) is None else suite.again(doubtful, FULL.effort)

    return confirmed(cases, results.outcomes, baseline, again)


def say_unchecked(why: str, variants: Sequence[str]) -> None:
    if variants:
        print(f"not checked, as {why} them: {', '.join(variants)}")


def measure_calls(options: argparse.Namespace, cases: Sequence[Case], peers: Environment) -> bool:
    """Measure the cases, and say whether none of them has become worse."""
    present = floors.digest(CASES.values())
    before = load_baseline(BASELINE, present) if options.check else None
    namesake = prepare(HERE / "namesake.txt", options.cache, options.python)
    suite = Suite(peers=peers, namesake=namesake, started=time.monotonic())  # however long the environments took
    results = suite.run(cases, QUICK if options.quick else FULL)
    found = check(cases, results, suite, *before) if before else []
    print(report.conditions(results), report.details(cases, results), report.summary(cases, results), sep="\n\n")
    if options.json:
        results.save(options.json)
    if not options.quick and not options.only:
        save(cases, results)
    if options.write_baseline:
        save_baseline(BASELINE, minor(results.python), present, baseline_of(cases, results))
    if options.check:
        print("\n" + report.check_report(found))
    return not found


def main() -> int:
    started = time.monotonic()
    options = arguments()
    cases = [CASES[key] for key in options.only or CASES]
    print("environments", file=sys.stderr, flush=True)
    peers = prepare(HERE / "peers.txt", options.cache, options.python)
    fine = True
    if options.instructions:
        print(benchmarks.instructions.report.run(cases, peers, write=not options.only))
    elif options.scale:
        print(benchmarks.scale.report.run(peers))
    elif options.whole_path:
        print(benchmarks.whole_path.report.run(peers, options.connections or ()))
    else:
        fine = measure_calls(options, cases, peers)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
