"""The parts of the documentation page that commands write; each replaces its own and leaves the others alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Section:
    begin: str
    end: str


def section(name: str, command: str) -> Section:
    return Section(f"<!-- {name}: written by {command} -->", f"<!-- end of {name} -->")


FIGURES = section("figures", "benchmarks/run.py")
INSTRUCTIONS = section("instructions", "benchmarks/run.py --instructions")
SCALE = section("scale", "benchmarks/run.py --scale")
WHOLE_PATH = section("whole path", "benchmarks/run.py --whole-path")
STABILITY = section("stability", "benchmarks/stability.py")


def publish(path: Path, content: str, where: Section = FIGURES) -> None:
    """Replace what stands between the marks of a page.

    Raises:
        ValueError: the page does not have them.
    """
    begin, end = where.begin, where.end
    text = path.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{path.name} must contain one {begin!r} and, after it, one {end!r}")
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    path.write_text(f"{before}\n\n{content}\n\n{after}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
