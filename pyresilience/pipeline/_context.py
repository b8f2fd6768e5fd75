"""What code inside a guarded function can ask about the call it belongs to."""

from __future__ import annotations

from math import inf

from pyresilience.runtime import _sources as sources
from pyresilience.runtime._threads import ambient_deadline


def remaining_time() -> float:
    """Seconds until the guarded function that this code runs in has to be over; `inf` without a deadline.

    In async code every anyio deadline around counts. Negative when the deadline has passed.
    """
    import anyio

    try:
        around = anyio.current_effective_deadline() - anyio.current_time()
    except RuntimeError:  # no event loop runs in this thread
        around = inf
    deadline = ambient_deadline.get()
    return around if deadline == inf else min(around, sources.seconds_until(deadline))
