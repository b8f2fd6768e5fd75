"""Layers folded around functions."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from pyresilience.events._bus import DispatchTable, Listener, check_listeners, dispatch_table
from pyresilience.pipeline import _inventory as inventory
from pyresilience.pipeline._adapt import function_name, is_async
from pyresilience.pipeline._call import Binding, Call, Entry, Layer
from pyresilience.pipeline._roots import async_root, async_shortcut, blocking_root, blocking_shortcut, layer_name
from pyresilience.runtime._anyio import invoke_async, invoke_in_thread
from pyresilience.runtime._blocking import invoke_blocking
from pyresilience.runtime._threads import WorkerPool, shared_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

P = ParamSpec("P")
R = TypeVar("R")


class Config(Protocol):
    """A recipe for a layer: frozen, validated, shareable."""

    def build(self) -> Layer:
        """A fresh live layer with state of its own."""
        ...


SPARE = 4
"""Entries that the list of calls in flight always has, so that a call grows and shrinks it without an allocation."""

Member = Config | Layer
"""What a pipeline is made of: a config builds a fresh layer, a live layer is shared wherever it is used."""


class _Link:
    """One layer and what comes after it. A bound method of this is cheaper than a closure, and smaller."""

    __slots__ = ("call_next", "func", "layer")

    def __init__(self, func: Callable[..., Any], layer: Any, call_next: Callable[[Call[Any]], Any]) -> None:
        self.func = func
        self.layer = layer
        self.call_next = call_next

    def enter(self, call: Call[Any]) -> Any:
        return self.func(self.layer, call, self.call_next)


class Pipeline:
    """Layers around functions; the first listed is the outermost and sees each call first.

    ```python
    pipeline = Pipeline(RetryConfig(max_attempts=3), CircuitBreakerConfig(), name="payments")


    @pipeline
    async def charge(amount: int) -> Receipt: ...
    ```

    One pipeline may guard several functions, `async def` and `def`, in several event loops and threads; they share
    the state of its layers.

    Args:
        layers: configs, which build a layer of their own, or live layers, which are shared.
        name: shown in events, errors, health and metrics in place of the function's name.
        listeners: callables that receive the events of this pipeline's calls.

    Raises:
        TypeError: a member is neither a config nor a layer, or a listener is not callable.
    """

    __slots__ = (
        "__weakref__",
        "_async_entry",
        "_blocking_entry",
        "_listeners",
        "_thread_entry",
        "dispatch",
        "entered",
        "judge",
        "layers",
        "name",
        "pool",
        "timed",
        "total",
    )

    def __init__(self, *layers: Member, name: str | None = None, listeners: Iterable[Listener] = ()) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        self.name = name
        self._listeners = check_listeners("listeners", listeners)
        self.layers: tuple[Layer, ...] = _hoist_deadline(tuple(_live(member) for member in layers))
        self.entered = [None] * SPARE
        self.total: int | None = min(_attributes(self.layers, "total_nanoseconds"), default=None)
        judges = _attributes(self.layers, "judge")
        self.judge: Callable[[Any], bool] | None = judges[0] if judges else None
        self.pool: WorkerPool | None = _pool(self.layers)
        self.dispatch: DispatchTable = {}
        self.timed = False
        self._async_entry: Entry | None = None
        self._thread_entry: Entry | None = None
        self._blocking_entry: Entry | None = None
        for position, layer in enumerate(self.layers):
            attached = getattr(layer, "attached", None)
            if attached is not None:
                attached(self.layers[position + 1 :])
        inventory.add(self)
        self.refresh_listeners()  # after it is known: who subscribes meanwhile is heard as well

    def refresh_listeners(self) -> None:
        """Take the process-wide listeners into account; called when those change."""
        self.dispatch = dispatch_table((*self._listeners, *inventory.subscribed()))
        self.timed = bool(self.dispatch) or self.total is not None

    def __repr__(self) -> str:
        body = " > ".join(layer_name(layer) if inspect.isfunction(layer) else repr(layer) for layer in self.layers)
        return f"Pipeline({body})" if self.name is None else f"Pipeline({self.name!r}: {body})"

    # ------------------------------------------------------------------ using it

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate a function of either colour; signature and types stay as they are.

        Methods, `classmethod` and `staticmethod` objects, `functools.partial` and callable objects can be
        decorated as well.

        Raises:
            TypeError: `fn` is not callable, is a class, or is a generator function; or it is a sync function and
                a layer works for async functions only.
        """
        if isinstance(fn, (classmethod, staticmethod)):
            return self._descriptor(fn)  # type: ignore[no-any-return]
        if inspect.isclass(fn):
            raise TypeError(f"a class cannot be guarded, only a function: decorate a factory for {fn.__name__!r}")
        asynchronous = is_async(fn)
        binding = self._bind(fn, asynchronous)
        root = (async_root if asynchronous else blocking_root)(binding)
        known = _shortcut(self.layers, binding)
        if known is not None:
            root = (async_shortcut if asynchronous else blocking_shortcut)(root, binding, known)
        return functools.wraps(fn)(root)

    def _descriptor(self, descriptor: Any) -> Any:
        return type(descriptor)(self(descriptor.__func__))

    @overload
    async def call(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function through the pipeline from async code.

        An async function is awaited; a sync one runs in a worker thread of ours with this task's context
        variables. Cancelling the call cancels an async function and abandons a sync one.

        Raises:
            CallRejectedError: a layer refused the call.
            ResilienceTimeoutError: a deadline of the pipeline has passed.
            TypeError: `fn` cannot be guarded.
            Exception: whatever the function raised.
        """
        return await async_root(self._bind(fn, True, in_thread=not is_async(fn)))(*args, **kwargs)

    def call_sync(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a sync function through the pipeline, in this thread (in a worker thread when it has a deadline).

        Raises:
            CallRejectedError: a layer refused the call.
            ResilienceTimeoutError: a deadline of the pipeline has passed.
            TypeError: `fn` is async or cannot be guarded, or a layer works for async functions only.
            Exception: whatever the function raised.
        """
        if is_async(fn):
            raise TypeError(f"{function_name(fn)!r} is async: use `await pipeline.call(...)`")
        result: R = blocking_root(self._bind(fn, False))(*args, **kwargs)
        return result

    # ------------------------------------------------------------------ composing it

    def _bind(self, fn: Callable[..., Any], asynchronous: bool, *, in_thread: bool = False) -> Binding:
        name = self.name or function_name(fn)
        if not asynchronous:
            if self._blocking_entry is None:
                self._refuse_async_only(name)
                self._blocking_entry = _fold(self.layers, invoke_blocking, _awaited)
            return Binding(self, fn, name, self._blocking_entry)
        if in_thread:
            if self._thread_entry is None:
                self._thread_entry = _fold(self.layers, invoke_in_thread)
            return Binding(self, fn, name, self._thread_entry)
        if self._async_entry is None:
            self._async_entry = _fold(self.layers, invoke_async)
        return Binding(self, fn, name, self._async_entry)

    def _refuse_async_only(self, name: str) -> None:
        for layer in self.layers:
            reason = getattr(layer, "async_only", None)
            if reason:
                raise TypeError(f"{layer_name(layer)} cannot guard the sync function {name!r}: {reason}")

    # ------------------------------------------------------------------ looking at it

    @property
    def in_flight(self) -> int:
        """How many calls have begun and not yet ended, those whose work is still held included."""
        return len(self.entered) - SPARE

    def find(self, kind: type[R]) -> R | None:
        """The outermost layer of a kind, such as `pipeline.find(CircuitBreaker)`."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    def reset_after_fork(self) -> None:
        """Forget what threads of the parent process held."""
        self.entered = [None] * SPARE  # a call that goes on in this process leaves the list it has entered
        for layer in self.layers:
            reset = getattr(layer, "reset_after_fork", None)
            if reset is not None:
                reset()


def _live(member: Any) -> Layer:
    if isinstance(member, type):
        raise TypeError(f"a pipeline is made of configs and layers, not classes; did you mean {member.__name__}(...)?")
    build = getattr(member, "build", None)
    if build is not None:
        layer: Layer = build()
        return layer
    if not callable(member):
        raise TypeError(f"a pipeline is made of configs and layers, not {member!r}")
    return member  # type: ignore[no-any-return]  # pyright: ignore[reportReturnType]


def _hoist_deadline(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """A total timeout bounds every wait, so it goes outside all layers but those that answer in its place."""
    totals = [total for layer in layers for total in getattr(layer, "totals", ())]
    if not totals:
        return layers
    rest = [layer for layer in layers if not getattr(layer, "only_total", False)]
    outside = 0
    while outside < len(rest) and getattr(rest[outside], "outside_deadline", False):
        outside += 1
    return (*rest[:outside], *totals, *rest[outside:])


def _shortcut(layers: tuple[Layer, ...], binding: Binding) -> Callable[[tuple[Any, ...]], Any] | None:
    """What the outermost layer knows without a call; a fallback around it has nothing to do with answers."""
    for layer in layers:
        shortcut = getattr(layer, "shortcut", None)
        if shortcut is not None:
            return shortcut(binding)  # type: ignore[no-any-return]
        if not getattr(layer, "only_failures", False):
            break
    return None


def _attributes(layers: tuple[Layer, ...], attribute: str) -> list[Any]:
    values = (getattr(layer, attribute, None) for layer in layers)
    return [value for value in values if value is not None]


def _pool(layers: tuple[Layer, ...]) -> WorkerPool | None:
    """The worker threads for sync functions with a deadline; None when a timeout opted out of them."""
    pool: WorkerPool | None = shared_pool
    for layer in layers:
        if getattr(layer, "in_thread", True) is False:
            return None
        pool = getattr(layer, "pool", None) or pool
    return pool


def _fold(
    layers: tuple[Layer, ...], innermost: Callable[[Call[Any]], Any], adapt: Callable[[Entry], Entry] | None = None
) -> Entry:
    """Compose from the innermost outwards, with the plain function of each layer's class."""
    call_next = innermost
    entry: Entry = (_straight_on, None, innermost)
    for layer in reversed(layers):
        entry = _function_layer if inspect.isfunction(layer) else type(layer).__call__, layer, call_next
        if adapt is not None:
            entry = adapt(entry)
        call_next = _Link(*entry).enter
    return entry


def _awaited(entry: Entry) -> Entry:
    """For the blocking root, which drives a coroutine: a layer that returns some other awaitable is put into one."""
    enter, layer, call_next = entry
    if inspect.iscoroutinefunction(layer if enter is _function_layer else enter) or getattr(layer, "forwards", False):
        return entry

    async def awaiting(_layer: Any, call: Call[Any], _call_next: Any) -> Any:
        return await enter(layer, call, call_next)

    return awaiting, layer, call_next


def _straight_on(_layer: None, call: Call[Any], call_next: Callable[[Call[Any]], Any]) -> Any:
    """The entry of a pipeline without layers."""
    return call_next(call)


def _function_layer(layer: Callable[..., Any], call: Call[Any], call_next: Callable[[Call[Any]], Any]) -> Any:
    return layer(call, call_next)
