"""Every block of Python in the documentation runs, and prints what it says.

The blocks of a page share a namespace, in their order. Blocks that await run in an event loop of their own, the
others without one; all of it in virtual time, on asyncio and trio.
"""

from __future__ import annotations

import ast
import contextlib
import contextvars
import inspect
import io
import logging
import time as real_time
from pathlib import Path
from typing import Any

import pytest

from pyresilience import unsubscribe
from pyresilience.pipeline import _inventory
from pyresilience.pipeline._roster import Roster
from pyresilience.testing import VirtualTime
from tests.docs.pages import PAGES, Block, blocks, page_id

RUNNABLE = [page for page in PAGES if blocks(page)]


@pytest.fixture
def virtual(monkeypatch):
    """A clock that `time.sleep` and `time.monotonic` of the page see too."""
    clock = VirtualTime()
    monkeypatch.setattr(real_time, "sleep", clock.sleep)
    monkeypatch.setattr(real_time, "monotonic", lambda: clock.seconds)
    return clock


@pytest.fixture(autouse=True)
def _empty_inventory(monkeypatch):
    """Pages show the state of the whole process, which other tests have used as well."""
    monkeypatch.setattr(_inventory, "_pipelines", Roster())
    heard = _inventory._subscribed
    yield
    for listener in _inventory._subscribed[len(heard) :]:
        unsubscribe(listener)
    assert _inventory._subscribed == heard


@pytest.fixture(autouse=True)
def _root_logger():
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def run(block: Block, namespace: dict[str, Any], virtual: VirtualTime, backend: str) -> list[str]:
    """Run a block and return the lines that it printed."""
    source = "\n" * (block.line - 1) + block.code
    code = compile(source, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            virtual.run(lambda: eval(code, namespace), backend=backend)
        else:
            with virtual:
                eval(code, namespace)
    return [line.rstrip() for line in printed.getvalue().splitlines()]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("page", RUNNABLE, ids=page_id)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page: Path, backend: str, virtual: VirtualTime):
    namespace: dict[str, Any] = {"__name__": "page"}
    context = contextvars.copy_context()
    for block in blocks(page):
        assert context.run(run, block, namespace, virtual, backend) == block.expected, block.where


def test_few_blocks_are_left_out():
    """Only what cannot run here, such as a server that never ends, is marked `notest`."""
    left_out = sum(page.read_text().count("```python notest") for page in PAGES)
    assert left_out <= 4
