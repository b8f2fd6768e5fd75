"""What a documentation page contains that can be checked: code, tables, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
POLICY_PAGES = sorted((ROOT / "docs" / "policies").glob("*.md"))

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_OUTPUT = re.compile(r"^\s*#> ?(?P<line>.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Block:
    """One fenced block of Python; `line` is where its code begins."""

    page: Path
    line: int
    code: str

    @property
    def expected(self) -> list[str]:
        """The lines that it says it prints."""
        return [match["line"].rstrip() for match in _OUTPUT.finditer(self.code)]

    @property
    def where(self) -> str:
        return f"{page_id(self.page)}:{self.line}"


@dataclass(frozen=True)
class Table:
    """A table whose cells are kept as they are written."""

    header: list[str]
    rows: list[list[str]]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks that can be run: all that are marked as Python, but for `python notest`."""
    text = page.read_text()
    found = [match for match in _FENCE.finditer(text) if match["info"].strip() == "python"]
    return [Block(page, text.count("\n", 0, match.start("code")) + 1, match["code"]) for match in found]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", page.read_text())


def tables(page: Path) -> list[Table]:
    groups: list[list[list[str]]] = [[]]
    for line in prose(page).splitlines():
        if line.startswith("|"):
            groups[-1].append([cell.strip() for cell in _CELL.split(line)[1:-1]])
        elif groups[-1]:
            groups.append([])
    return [Table(rows[0], rows[2:]) for rows in groups if rows]


def links(page: Path) -> list[str]:
    return [match["target"] for match in _LINK.finditer(prose(page))]


def headings(page: Path, level: int) -> list[str]:
    marks = "#" * level
    return [line.removeprefix(f"{marks} ") for line in prose(page).splitlines() if line.startswith(f"{marks} ")]


def anchors(page: Path) -> set[str]:
    """The fragments that headings of the page can be linked by."""
    titles = [title for level in range(1, 5) for title in headings(page, level)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
