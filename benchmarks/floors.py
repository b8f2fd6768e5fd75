"""Which floors a baseline belongs to: a ratio to one floor says nothing about a ratio to another."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from benchmarks.cases import asgi, by_hand, footprint, http_client, on_trio, stack

if TYPE_CHECKING:
    from benchmarks.model import Case

MODULES: tuple[ModuleType, ...] = (by_hand, on_trio)
ELSEWHERE: tuple[Callable[..., Any], ...] = (
    asgi.Nothing,
    asgi.requests,
    footprint.wraps,
    footprint.wraps_six,
    http_client.by_hand,
    http_client.requests,
    stack.cached_children,
    stack.heard_by_hand,
)
"""What floors consist of beside those modules."""


def digest(cases: Iterable[Case]) -> str:
    """A short hash of the code of all floors, and of what each case calls its own."""
    parts = [inspect.getsource(module) for module in MODULES] + [inspect.getsource(part) for part in ELSEWHERE]
    parts += [f"{case.key}: {case.floor}, {case.meter.unit}" for case in cases]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
