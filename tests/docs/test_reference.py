"""What the documentation says about names, defaults and pages is what there is."""

from __future__ import annotations

import dataclasses
import inspect
import re
from math import inf
from pathlib import Path
from typing import Any

import pytest

import pyresilience
from pyresilience import EventType
from pyresilience_middleware import ResilienceAdapter, ResilienceMiddleware, ResilienceTransport
from tests.docs.pages import PAGES, POLICY_PAGES, ROOT, Table, anchors, headings, links, page_id, tables

SKELETON = [
    "What it is for",
    "Usage",
    "Defaults",
    "Events",
    "On its own",
    "Patterns",
    "Anti-patterns",
    "Cancellation and threads",
]
CONFIGS = {name: getattr(pyresilience, name) for name in pyresilience.__all__ if name.endswith("Config")}
WITH_TABLE: dict[str, type[Any]] = {
    **CONFIGS,
    "ResilienceMiddleware": ResilienceMiddleware,
    "ResilienceTransport": ResilienceTransport,
}
PUBLIC = [name for name in pyresilience.__all__ if not name.startswith("__")]


def defaults(kind: type[Any]) -> dict[str, Any]:
    """The fields of a config, or the keywords of a class, with their defaults."""
    if dataclasses.is_dataclass(kind):
        return {
            field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            for field in dataclasses.fields(kind)
            if field.name != "_"
        }
    parameters = inspect.signature(kind).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def code(cell: str) -> str:
    """What stands between the backticks of a cell."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match is not None, f"{cell!r} should be code"
    return match[1]


def tables_of_defaults() -> list[tuple[str, str, Table]]:
    return [
        (page_id(page), code(table.header[0]), table)
        for page in PAGES
        for table in tables(page)
        if table.header[1:2] == ["default"]
    ]


TABLES = tables_of_defaults()


@pytest.mark.parametrize(("page", "name", "table"), TABLES, ids=[name for _, name, _ in TABLES])
def test_a_table_of_defaults_has_every_field_with_its_default(page: str, name: str, table: Table):
    known = {**{name: getattr(pyresilience, name) for name in pyresilience.__all__}, "inf": inf}
    told = {code(row[0]): eval(code(row[1]), known) for row in table.rows}
    assert told == defaults(WITH_TABLE[name]), page


def test_every_config_has_one_table_of_defaults():
    assert sorted(name for _, name, _ in TABLES) == sorted(WITH_TABLE)


def test_the_adapter_of_requests_takes_what_the_transport_takes():
    own = {name: default for name, default in defaults(ResilienceAdapter).items() if not name.startswith("pool_")}
    assert own == defaults(ResilienceTransport)


@pytest.mark.parametrize("page", POLICY_PAGES, ids=page_id)
def test_the_pages_of_policies_have_one_skeleton(page: Path):
    assert headings(page, 2) == SKELETON


def test_every_event_type_is_explained():
    observability = ROOT / "docs" / "observability.md"
    (table,) = [table for table in tables(observability) if table.header[0] == "event type"]
    assert [code(row[0]) for row in table.rows] == [kind.name for kind in EventType]


def test_events_of_policy_pages_exist():
    for page in POLICY_PAGES:
        (table,) = [table for table in tables(page) if table.header[0] == "event"]
        for row in table.rows:
            for name in re.findall(r"`([A-Z_]+)`", row[0]):
                assert name in EventType.__members__, page_id(page)


def test_every_public_name_is_documented():
    text = "\n".join(page.read_text() for page in PAGES)
    undocumented = [name for name in PUBLIC if not re.search(rf"\b{name}\b", text)]
    assert undocumented == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page: Path):
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def test_every_page_can_be_reached_from_the_index():
    seen: set[Path] = set()
    pending = [ROOT / "docs" / "index.md"]
    while pending:
        page = pending.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        pending += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
    assert seen >= set((ROOT / "docs").rglob("*.md"))


def test_nothing_tells_people_to_install_another_projects_package():
    """Our name on the package index belongs to somebody else."""
    for page in PAGES:
        assert not re.search(r"pip3? install \S*pyresilience|uv add pyresilience", page.read_text()), page_id(page)


def test_the_readme_has_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "pip install uv && uv run pyresilience demo" in readme
    assert "pip install uv && uv run pytest" in readme
