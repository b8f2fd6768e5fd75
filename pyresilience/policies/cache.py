"""Cache: answer from an earlier result, and let concurrent misses share one call."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.errors import ResilienceTimeoutError
from pyresilience.events._events import EventType
from pyresilience.pipeline._call import KeyedBinding
from pyresilience.policies import _validate as validate
from pyresilience.policies._cache_key import ATOMS, CallKeys, Unhashable, function_key
from pyresilience.policies._lock import let_go
from pyresilience.policies._store import MISSING, ExpiringLru
from pyresilience.policies._wait_queue import Ticket
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._protocol import DeadlineExpired

if TYPE_CHECKING:
    from pyresilience.pipeline._call import Binding, Call, CallNext

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """How much is kept, and for how long.

    Attributes:
        max_size: entries; the one unused for longest goes first.
        ttl: seconds that an entry is good for; 0: no expiry.
        key: a function of the call's arguments that gives the key, for arguments that have no hash or of which not
            all matter. Without it, all arguments count, and a call with one that has no hash is not cached.
    """

    max_size: int = 256
    ttl: float = 300.0
    _: KW_ONLY
    key: Callable[..., Hashable] | None = None

    def __post_init__(self) -> None:
        validate.integer(self, "max_size", 1)
        validate.number(self, "ttl")
        validate.function(self, "key")

    def build(self) -> Cache:
        return Cache(self)

    def store(self) -> ExpiringLru:
        """An empty store of this size; a `ttl` above 0 is at least a nanosecond."""
        return ExpiringLru(self.max_size, max(round(self.ttl * sources.NANOSECONDS), 1 if self.ttl else 0))


class Flight:
    """One run of the function that several callers wait for. Guarded by the lock of its cache."""

    __slots__ = ("ended", "error", "followers", "traceback", "value")

    def __init__(self) -> None:
        self.followers: list[Ticket] = []
        self.ended = False
        self.value: Any = MISSING
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None


_leading: ContextVar[tuple[Flight, ...]] = ContextVar("pyresilience_leading", default=())
"""The flights that the running code is part of; it must not wait for one of them."""


class Cache:
    """Answers a call from an earlier result of the same function with equal arguments.

    Errors are not cached, nor what `retry_on_result` calls a failure. When several calls miss on one key at the same
    time, the first runs and the others wait for its value or error. If the first is cancelled, one of those that
    wait takes its place; nobody else notices.

    The value itself is kept and handed out, not a copy: do not change what you got from a cache.
    """

    __slots__ = ("_flights", "_lock", "_store", "_warned", "config")

    never_suspends = True

    outside_deadline = True
    keyed = True  # bindings keep how keys are made of a function's arguments

    def __init__(self, config: CacheConfig | None = None) -> None:
        config = validate.config_of(CacheConfig, config)
        self.config = config
        self._lock = threading.RLock()
        self._store = config.store()
        self._flights: dict[Any, Flight] = {}
        self._warned = False

    def __repr__(self) -> str:
        return f"Cache(max_size={self.config.max_size}, ttl={self.config.ttl:g}s)"

    def __len__(self) -> int:
        return len(self._store)

    def clear(self) -> None:
        """Forget every entry. Calls under way still store their result."""
        with self._lock:
            self._store.clear()

    async def __call__(self, call: Call[R], call_next: CallNext[R]) -> R:
        try:
            key = self._key(call)
        except Unhashable as error:
            self._warn(call, error)
            call.emit(EventType.CACHE_MISS, detail=f"not cached: {error}", attempt=0)
            return await call_next(call)
        while True:
            leading: Flight | None = None
            try:
                with self._lock:
                    value: Any = self._store.get(key, sources.now())
                    flight = None
                    if value is MISSING:
                        flight = self._flights.get(key)
                        if flight is None:
                            leading = self._flights[key] = Flight()
                if value is not MISSING:
                    return self._hit(call, value, "")  # type: ignore[no-any-return]
                if leading is not None:
                    return await self._lead(call, call_next, key, leading)
            except BaseException:
                if leading is not None:  # cancelled or interrupted, at whatever point
                    self._land(key, leading)
                raise
            finally:
                del leading  # it may hold the error whose traceback holds this frame
            assert flight is not None
            if flight in _leading.get() or call.runtime.stalls_event_loop():
                call.emit(EventType.CACHE_MISS, detail="not shared: waiting would be a deadlock", attempt=0)
                return await call_next(call)
            await self._follow(call, flight)
            if flight.error is not None:
                try:
                    raise flight.error.with_traceback(flight.traceback)
                finally:
                    del flight
            if flight.value is not MISSING:
                return self._hit(call, flight.value, "joined")  # type: ignore[no-any-return]

    def _hit(self, call: Call[Any], value: Any, detail: str) -> Any:
        """End the call with a value that an earlier or another call gave."""
        call.ending = (EventType.CACHE_HIT, None, detail)
        return value

    def _key(self, call: Call[Any]) -> Any:
        binding = call.binding
        if self.config.key is not None:
            key = (binding.fn, self.config.key(*call.args, **call.kwargs))
            try:
                hash(key)
            except TypeError as error:
                raise Unhashable(str(error)) from None
            return key
        keys = binding.keys if isinstance(binding, KeyedBinding) else None
        if keys is None:
            keys = CallKeys(binding.fn)
            if isinstance(binding, KeyedBinding):
                binding.keys = keys
        return keys.of(call.args, call.kwargs)

    def shortcut(self, binding: Binding) -> Callable[[tuple[Any, ...]], Any] | None:
        """For a cache that nothing but a fallback stands around: what to ask before a call is even made.

        The function gives the value kept for these arguments, or `MISSING` when the call has to be made.
        """
        if self.config.key is not None:
            return None
        function = function_key(binding.fn)
        try:
            hash(function)
        except TypeError:  # a method of an object without a hash
            return None
        get = self._store.get

        def known(args: tuple[Any, ...]) -> Any:
            for arg in args:
                if type(arg) not in ATOMS:
                    return MISSING
            lock = self._lock
            try:
                lock.acquire()
                value = get((function, args), sources.now())
                lock.release()
            except BaseException:
                let_go(lock)
                raise
            return value

        return known

    async def _lead(self, call: Call[R], call_next: CallNext[R], key: Any, flight: Flight) -> R:
        token = None
        try:
            token = _leading.set((*_leading.get(), flight))
            call.emit(EventType.CACHE_MISS, attempt=0)
            result = await call_next(call)
            if call.held is not None:  # a stream is nobody else's
                self._land(key, flight)
                return result
            judge = call.binding.judge
            failed = call.ending is not None or (judge is not None and judge(result))
            self._land(key, flight, result, store=not failed)
            return result
        except Exception as error:
            self._land(key, flight, error=error)
            raise
        finally:
            if token is not None:
                try:
                    _leading.reset(token)
                except ValueError:
                    pass  # closed in another context than it was started in
            del flight

    def _land(
        self, key: Any, flight: Flight, value: Any = MISSING, *, store: bool = False, error: Exception | None = None
    ) -> None:
        """End a flight. Without value and error it was cancelled, and a follower starts another.

        The first ending counts; landing again only wakes the followers again, should an interrupt have kept the
        first from it.
        """
        now = sources.now()
        with self._lock:
            if not flight.ended:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if store:
                    self._store.set(key, value, now)
                if flight.followers:
                    flight.value = value
                    if error is not None:
                        flight.error, flight.traceback = error, error.__traceback__
                flight.ended = True
        for ticket in flight.followers:
            ticket.wake()

    async def _follow(self, call: Call[Any], flight: Flight) -> None:
        ticket = Ticket(call.runtime.waiter())
        with self._lock:
            if flight.ended:
                # Nobody counted us in, so nothing was kept for us: look again.
                return
            flight.followers.append(ticket)
        left = inf
        try:
            left = call.remaining()
            ended = await call.runtime.wait(ticket.waiter, left, call.deadline)
        except DeadlineExpired:
            ended = False
        finally:
            with self._lock:
                if not flight.ended:
                    flight.followers.remove(ticket)
        if not ended and not flight.ended:
            detail = f"timed out after {left:.2f}s while another call ran"
            error = ResilienceTimeoutError(f"{call.name}: {detail}", seconds=left)
            call.emit(EventType.TIMEOUT, error=error, detail=detail, attempt=0)
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def _warn(self, call: Call[Any], error: Unhashable) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"calls of {call.name!r} with these arguments are not cached: {error}; pass CacheConfig(key=...)",
                RuntimeWarning,
                stacklevel=2,
            )

    def reset_after_fork(self) -> None:
        """Flights of the parent's threads never land here."""
        self._lock = threading.RLock()
        self._flights = {}
