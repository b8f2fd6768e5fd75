"""Weak references to things that come and go."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

FEW = 1000


class Roster(Generic[T]):
    """Things in the order in which they came, as long as somebody else holds them. Thread-safe.

    Less memory than a `WeakSet`, which watches each: those that are gone are looked for when the list has doubled.

    Attributes:
        refs: only ever changed by single operations of the list, and made shorter by `make_room` alone.
    """

    __slots__ = ("_crowded", "_lock", "refs")

    def __init__(self) -> None:
        self.refs: list[weakref.ref[T]] = []
        self._crowded = FEW
        self._lock = threading.RLock()

    def __iter__(self) -> Iterator[T]:
        return (thing for ref in self.refs.copy() if (thing := ref()) is not None)

    def make_room(self) -> None:
        """To be called before something is added."""
        if len(self.refs) < self._crowded:
            return
        with self._lock:
            if len(self.refs) < self._crowded:
                return
            seen = self.refs.copy()
            self._crowded = 2 * len(seen)  # a signal handler that comes this way meanwhile passes
            self.refs[: len(seen)] = [ref for ref in seen if ref() is not None]
            self._crowded = max(FEW, 2 * len(self.refs))

    def reset_after_fork(self) -> None:
        """Some other thread may have held the lock."""
        self._lock = threading.RLock()
