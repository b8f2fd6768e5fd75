"""Settlement: what a call gives back once its work has really ended.

The `await` of a layer can be over while the work is not: an abandoned worker thread still runs the function, or a
response body still streams. Whoever keeps working holds the call; permits and verdicts are then given to the hold
instead of being settled at once.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("pyresilience")


class Hold:
    """Work that outlives its attempt. Thread-safe; every callback runs exactly once."""

    __slots__ = ("_callbacks", "_error", "_lock", "_open")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 1
        self._callbacks: list[Callable[[BaseException | None], None]] | None = []
        self._error: BaseException | None = None

    def again(self) -> None:
        """One more piece of work holds the call; it must `release` as well."""
        with self._lock:
            if self._callbacks is None:
                raise RuntimeError("a hold that was released cannot be taken again")
            self._open += 1

    def then(self, callback: Callable[[BaseException | None], None]) -> None:
        """Run `callback(error)` when the work ends, or now if it has; `error` is what it ended in."""
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def release(self, error: BaseException | None = None) -> None:
        """The work has ended, in `error` if given. The first error is the one that counts."""
        with self._lock:
            if self._callbacks is None:
                raise RuntimeError("a hold was released more often than it was taken")
            if self._error is None:
                self._error = error
            self._open -= 1
            if self._open:
                return
            callbacks, self._callbacks = self._callbacks, None
        interrupt: BaseException | None = None
        for callback in callbacks:
            try:
                callback(self._error)
            except Exception:
                logger.exception("settling a call failed")
            except BaseException as stop:
                interrupt = stop  # once everything else has been given back
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt
