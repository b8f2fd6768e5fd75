"""Layers folded around functions."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from pyresilience.events._bus import DispatchTable, Listener, check_listeners
from pyresilience.pipeline import _in_flight as in_flight
from pyresilience.pipeline import _inventory as inventory
from pyresilience.pipeline._adapt import function_name, is_async
from pyresilience.pipeline._blocking_root import awaited, blocking_root, blocking_shortcut, watched
from pyresilience.pipeline._call import Binding, Entry, KeyedBinding, Layer
from pyresilience.pipeline._compose import Composition, hoist_deadline, layer_name, shortcut
from pyresilience.runtime._blocking import invoke_blocking, invoke_inline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from pyresilience.runtime._threads import WorkerPool

P = ParamSpec("P")
R = TypeVar("R")


class Config(Protocol):
    """A recipe for a layer: frozen, validated, shareable."""

    def build(self) -> Layer:
        """A fresh live layer with state of its own."""
        ...


Member = Config | Layer
"""What a pipeline is made of: a config builds a fresh layer, a live layer is shared wherever it is used."""


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

    __slots__ = ("__weakref__", "_composition", "_members", "dispatch", "name")

    dispatch: DispatchTable

    def __init__(self, *layers: Member, name: str | None = None, listeners: Iterable[Listener] = ()) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        own = check_listeners("listeners", listeners)
        live = hoist_deadline(tuple(_layer_of(member) for member in layers))
        self.name = name
        self._members: Layer | tuple[Layer, ...] = live[0] if len(live) == 1 else live
        self._composition: Composition | bool = False  # True: it was made once, and not kept
        for position, layer in enumerate(live):
            attached = getattr(layer, "attached", None)
            if attached is not None:
                attached(live[position + 1 :])
        if name is not None or own or any(member is layer for member in layers for layer in live):
            inventory.add(self, own)

    def __repr__(self) -> str:
        body = " > ".join(layer_name(layer) if inspect.isfunction(layer) else repr(layer) for layer in self._live)
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
        if is_async(fn):
            from pyresilience.pipeline._async_root import async_root, async_shortcut

            make, with_shortcut = async_root, async_shortcut
            binding = self._bind_async(fn)
        else:
            make, with_shortcut = blocking_root, blocking_shortcut
            binding = self._bind(fn)
        root = make(binding)
        known = shortcut(self._live, binding)
        return functools.wraps(fn)(root if known is None else with_shortcut(root, binding, known))

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
        from pyresilience.pipeline._async_root import async_root

        return await async_root(self._bind_async(fn, in_thread=not is_async(fn)))(*args, **kwargs)

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
        result: R = blocking_root(self._bind(fn))(*args, **kwargs)
        return result

    # ------------------------------------------------------------------ composing it

    @property
    def _live(self) -> tuple[Layer, ...]:
        members = self._members
        return members if type(members) is tuple else (cast("Layer", members),)

    def _composed(self, *, keep: bool = False) -> Composition:
        """The composition. It is not kept for one function alone, unless its calls ask for the pool in it."""
        made = self._composition
        if isinstance(made, Composition):
            return made
        composition = Composition(self._live)
        self._composition = composition if made or keep else True
        return composition

    def _bind(self, fn: Callable[..., Any]) -> Binding:
        name = self.name or function_name(fn)
        composition = self._composed()
        if composition.async_only is not None:
            layer, reason = composition.async_only
            raise TypeError(f"{layer_name(layer)} cannot guard the sync function {name!r}: {reason}")
        if composition.limited:
            self._composition = composition
        innermost = invoke_inline if composition.trusted and not composition.limited else invoke_blocking
        entry = composition.entry(innermost, awaited)
        return self._binding(fn, name, composition, entry if composition.trusted else watched(entry, self._live))

    def _bind_async(self, fn: Callable[..., Any], *, in_thread: bool = False) -> Binding:
        from pyresilience.runtime._anyio import direct, invoke_async, invoke_in_thread

        composition = self._composed(keep=in_thread)
        entry = composition.entry(invoke_in_thread if in_thread else invoke_async, direct)
        return self._binding(fn, self.name or function_name(fn), composition, entry)

    def _binding(self, fn: Callable[..., Any], name: str, composition: Composition, entry: Entry) -> Binding:
        binding = (KeyedBinding if composition.keyed else Binding)(self, fn, name, composition.judge, entry)
        if hasattr(self, "dispatch"):
            inventory.enter(binding)
        return binding

    # ------------------------------------------------------------------ looking at it

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The live layers, the outermost first."""
        inventory.add(self)  # from now on others may use them without calling this pipeline
        return self._live

    @property
    def total(self) -> int | None:
        """Nanoseconds for the whole of a call; None without a limit."""
        return self._composed().total

    @property
    def pool(self) -> WorkerPool | None:
        """The worker threads for sync functions with a deadline; None when a timeout opted out of them."""
        return self._composed(keep=True).pool

    @property
    def in_flight(self) -> int:
        """How many calls have begun and not yet ended, those whose work is still held included.

        Looks at all calls in flight of the process: some 100 ns for each.
        """
        return in_flight.pipelines().count(self)

    def find(self, kind: type[R]) -> R | None:
        """The outermost layer of a kind, such as `pipeline.find(CircuitBreaker)`."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    def reset_after_fork(self) -> None:
        """Forget what threads of the parent process held."""
        for layer in self._live:
            reset = getattr(layer, "reset_after_fork", None)
            if reset is not None:
                reset()


def _layer_of(member: Any) -> Layer:
    if isinstance(member, type):
        raise TypeError(f"a pipeline is made of configs and layers, not classes; did you mean {member.__name__}(...)?")
    build = getattr(member, "build", None)
    if build is not None:
        layer: Layer = build()
        return layer
    if not callable(member):
        raise TypeError(f"a pipeline is made of configs and layers, not {member!r}")
    return member  # type: ignore[no-any-return]  # pyright: ignore[reportReturnType]
