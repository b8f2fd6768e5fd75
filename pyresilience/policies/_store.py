"""A bounded map whose entries expire. Pure: time is an argument, in nanoseconds."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Any

MISSING: Any = object()


class ExpiringLru:
    """At most `max_size` entries; the one unused for longest goes first. A `ttl` of 0 means no expiry."""

    __slots__ = ("_entries", "_max_size", "_ttl")

    def __init__(self, max_size: int, ttl: int) -> None:
        self._max_size = max_size
        self._ttl = ttl
        self._entries: OrderedDict[Any, tuple[Any, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Any, now: int) -> Any:
        """The value, or `MISSING`; an entry is gone once its time has come."""
        entries = self._entries
        try:
            value, expires = entries[key]
        except KeyError:
            return MISSING
        if now >= expires:
            del entries[key]
            return MISSING
        entries.move_to_end(key)
        return value

    def set(self, key: Any, value: Any, now: int) -> None:
        self._entries[key] = value, (now + self._ttl if self._ttl else inf)
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()
