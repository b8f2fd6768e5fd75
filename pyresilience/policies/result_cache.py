"""The store of a cache on its own, to be filled and asked by hand."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar, overload

from pyresilience.policies import _validate as validate
from pyresilience.policies._store import MISSING
from pyresilience.policies.cache import CacheConfig
from pyresilience.runtime import _sources as sources

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class _ResultCache(Generic[K, V]):
    """A bounded map with expiry, for use on its own; thread-safe."""

    def __init__(self, config: CacheConfig | None = None) -> None:
        config = validate.config_of(CacheConfig, config)
        self.config = config
        self._lock = threading.Lock()
        self._store = config.store()

    def __len__(self) -> int:
        return len(self._store)

    @property
    def size(self) -> int:
        """Entries now, those that have expired but were not asked for since included."""
        return len(self._store)

    def _get(self, key: K, default: D) -> V | D:
        with self._lock:
            value: V = self._store.get(key, sources.now())
        return default if value is MISSING else value

    def _set(self, key: K, value: V) -> None:
        with self._lock:
            self._store.set(key, value, sources.now())

    def _clear(self) -> None:
        with self._lock:
            self._store.clear()


class ResultCache(_ResultCache[K, V]):
    """An LRU cache with expiry, to be used directly."""

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: object = None) -> object:
        """The value kept for `key`, or `default`."""
        return self._get(key, default)

    def set(self, key: K, value: V) -> None:
        """Keep `value`, for `ttl` seconds."""
        self._set(key, value)

    def clear(self) -> None:
        """Forget every entry."""
        self._clear()


class AsyncResultCache(_ResultCache[K, V]):
    """`ResultCache` with methods to await; none of them ever suspends."""

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: object = None) -> object:
        """The value kept for `key`, or `default`."""
        return self._get(key, default)

    async def set(self, key: K, value: V) -> None:
        """Keep `value`, for `ttl` seconds."""
        self._set(key, value)

    async def clear(self) -> None:
        """Forget every entry."""
        self._clear()
