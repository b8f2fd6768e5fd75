"""Virtual time for asyncio: a loop whose selector never waits."""

from __future__ import annotations

import asyncio
import selectors
from math import inf
from typing import TYPE_CHECKING, Any

from pyresilience.testing import POLL_SECONDS

if TYPE_CHECKING:
    from pyresilience.testing import VirtualTime


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, time: VirtualTime) -> None:
        self._virtual = time
        super().__init__(_VirtualSelector(time))

    def time(self) -> float:
        return self._virtual.seconds

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Threads of the executor, such as those that look names up, take real time to end."""
        self._virtual.work_started()
        try:
            await super().shutdown_default_executor()
        finally:
            self._virtual.work_ended()


class _VirtualSelector(selectors.BaseSelector):
    """Polls real files; when none is ready, time moves on instead of passing."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        time = self._time
        while True:
            activity = time.activity
            ready = self._real.select(0)
            if ready or (timeout is not None and timeout <= 0):
                return ready
            if time.idle(inf if timeout is None else time.seconds + timeout, activity):
                return self._real.select(0)
            ready = self._real.select(POLL_SECONDS)
            if ready:
                return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def asyncio_options(time: VirtualTime) -> dict[str, Any]:
    """Keywords for `asyncio.Runner`."""
    return {"loop_factory": lambda: _VirtualLoop(time)}
