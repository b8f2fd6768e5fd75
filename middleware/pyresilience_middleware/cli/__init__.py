"""The `pyresilience` command."""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from collections.abc import Sequence

from pyresilience import __version__

INTERRUPTED = 130
DEMO_PACKAGES = ("httpx2", "rich", "starlette", "uvicorn")

DEMO = """\
Start a flaky upstream and an app, each in a process of its own on 127.0.0.1, send the app a load over HTTP that it
answers once with a bare client and once through a pyresilience pipeline, and show the difference.
"""
EXIT_CODES = """\
exit codes: 0 the guarded app answered at least 10 points more requests, its p99 was no worse, it sent at most half
as many calls to the upstream while that was down, and /health showed the circuit open; 1 one of these does not hold,
or the demo could not be run; 2 wrong usage, or a package is missing; 130 stopped by Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`, or else with the arguments of the process; the exit code.

    Raises:
        SystemExit: after `--help` and `--version`, and with code 2 when the arguments are wrong.
    """
    parser, demo = _parsers()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.error("no command given; there is one: demo")
    try:
        require(*DEMO_PACKAGES)
    except ImportError as missing:
        demo.exit(2, f"pyresilience demo: {missing}\n")
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


def require(*packages: str) -> None:
    """Check that packages can be imported, without importing them.

    Raises:
        ImportError: names all packages to install.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} is not installed; pip install {' '.join(packages)}")


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(prog="pyresilience", description="Resilience for Python services.")
    parser.add_argument("--version", action="version", version=f"pyresilience {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="a bare app against a guarded one, on the same faults",
        description=DEMO,
        epilog=EXIT_CODES,
    )
    demo.add_argument("--seed", type=int, metavar="N", help="repeat a fault script; each run prints its seed")
    demo.add_argument(
        "--duration", type=_duration, default=15.0, metavar="SECONDS", help="of load, 2 to 16 (default: %(default)g)"
    )
    demo.add_argument("--serve", action="store_true", help="keep everything running afterwards, and print the URLs")
    demo.add_argument(
        "--pipeline",
        metavar="MODULE:FUNCTION",
        help="guard with a pipeline of your own: a function that is given the fallback handler and returns a Pipeline",
    )
    return parser, demo


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 2 <= seconds <= 16:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 2 to 16, not {text!r}")
    return seconds


def _run(arguments: argparse.Namespace) -> int:
    import anyio
    from rich.console import Console

    from pyresilience_middleware.cli._demo import Options, run
    from pyresilience_middleware.cli._processes import DemoError

    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    options = Options(seed, arguments.duration, arguments.pipeline, arguments.serve)
    try:
        return anyio.run(run, options, Console())
    except DemoError as error:
        print(f"pyresilience demo: {error}", file=sys.stderr)
        return 1
