"""All studies of scale, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.scale import hosts, listeners, memory, pipelines, threads, waiters

if TYPE_CHECKING:
    from benchmarks.scale.curve import Study

STUDIES: dict[str, Study] = {
    "pipelines": pipelines,
    "hosts": hosts,
    "waiters": waiters,
    "listeners": listeners,
    "threads": threads,
    "memory": memory,
}
