"""Virtual time for trio, with its public `Clock` and `Instrument` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from pyresilience.testing import POLL_SECONDS

if TYPE_CHECKING:
    from pyresilience.testing import VirtualTime


class _VirtualClock(trio.abc.Clock):
    def __init__(self, time: VirtualTime, watcher: _Watcher) -> None:
        self._time = time
        self._watcher = watcher
        self._activity = time.activity

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._time.seconds

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks when no task can run. First it has to look for I/O once more; then time may move on."""
        activity, self._activity = self._activity, self._time.activity
        if self._watcher.stepped:
            self._watcher.stepped = False
            return 0
        return 0 if self._time.idle(deadline, activity) else POLL_SECONDS


class _Watcher(trio.abc.Instrument):
    """Notes that a task ran."""

    def __init__(self) -> None:
        self.stepped = True

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.stepped = True


def trio_options(time: VirtualTime) -> dict[str, Any]:
    """Keywords for `trio.run`."""
    watcher = _Watcher()
    return {"clock": _VirtualClock(time, watcher), "instruments": [watcher]}
