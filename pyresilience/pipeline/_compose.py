"""Composition: what layers become when a function is bound.

Here and in the roots a function that stands in a slot is loaded first and called then: called as `self.func(...)`, 3.11
looks it up as a method each time.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pyresilience._promises import declares
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._threads import WorkerPool, shared_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyresilience.pipeline._call import Binding, Call, Entry, Layer, LayerFunction


class _Last:
    """The innermost layer, and the step after it, which is a plain function."""

    __slots__ = ("call_next", "func", "layer")

    def __init__(self, func: LayerFunction, layer: Any, call_next: Callable[[Call[Any]], Any]) -> None:
        self.func = func
        self.layer = layer
        self.call_next = call_next

    def enter(self, call: Call[Any]) -> Any:
        func = self.func
        return func(self.layer, call, self.call_next)


class _Link:
    """Any other layer, and the link after it. Its method is bound on the way: it need not be kept."""

    __slots__ = ("after", "func", "layer")

    def __init__(self, func: LayerFunction, layer: Any, after: _Last | _Link) -> None:
        self.func = func
        self.layer = layer
        self.after = after

    def enter(self, call: Call[Any]) -> Any:
        func = self.func
        return func(self.layer, call, self.after.enter)


class _Whole:
    """The outermost layer of a pipeline that limits the whole of a call."""

    __slots__ = ("func", "layer", "nanoseconds")

    def __init__(self, func: LayerFunction, layer: Any, nanoseconds: int) -> None:
        self.func = func
        self.layer = layer
        self.nanoseconds = nanoseconds


def _until_deadline(whole: _Whole, call: Call[Any], call_next: Callable[[Call[Any]], Any]) -> Any:
    """Fix the deadline of a call; it bounds every wait, and `TotalTimeout` enforces it."""
    call.started = sources.now()
    call.deadline = call.started + whole.nanoseconds
    func = whole.func
    return func(whole.layer, call, call_next)


class Composition:
    """What layers become for any number of functions: folded once, and asked once what they say of themselves.

    Attributes:
        total: nanoseconds for the whole of a call; None without a limit.
        judge: what tells a value that counts as a failure.
        pool: the worker threads for sync functions with a deadline; None when a timeout opted out of them.
        limited: whether there is a deadline for worker threads to keep to: a layer with `in_thread`.
        keyed: whether bindings keep how keys are made of a function's arguments: for a cache, which may also be hidden
            in a layer that is not ours.
        async_only: the layer that cannot guard a sync function, and why, if there is one.
        trusted: whether all layers are of classes that promise with `never_suspends` not to suspend in a thread, and to
            set a deadline only if they have `in_thread`.
    """

    __slots__ = ("_entries", "_layers", "async_only", "judge", "keyed", "limited", "pool", "total", "trusted")

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers
        self._entries: dict[Any, Entry] = {}
        self.total: int | None = min(attributes(layers, "total_nanoseconds"), default=None)
        self.judge: Callable[[Any], bool] | None = next(iter(attributes(layers, "judge")), None)
        self.pool = worker_pool(layers)
        self.limited = any(hasattr(layer, "in_thread") for layer in layers)
        self.keyed = any(getattr(layer, "keyed", True) for layer in layers)
        self.trusted = all("never_suspends" in vars(type(layer)) for layer in layers)
        reasons = ((layer, getattr(layer, "async_only", None)) for layer in layers)
        self.async_only: tuple[Layer, str] | None = next(((layer, reason) for layer, reason in reasons if reason), None)

    def entry(
        self,
        innermost: Callable[[Call[Any]], Any],
        adapt: Callable[[LayerFunction, Layer], LayerFunction] | None = None,
    ) -> Entry:
        """What a call enters; see `fold`."""
        entry = self._entries.get(innermost)
        if entry is None:
            entry = self._entries[innermost] = fold(self._layers, innermost, total=self.total, adapt=adapt)
        return entry


def hoist_deadline(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """A total timeout bounds every wait, so it goes outside all layers but those that answer in its place."""
    totals: list[Layer] = [total for make in attributes(layers, "total_layers") for total in make()]
    if not totals:
        return layers
    rest = [layer for layer in layers if not getattr(layer, "only_total", False)]
    outside = 0
    while outside < len(rest) and getattr(rest[outside], "outside_deadline", False):
        outside += 1
    return (*rest[:outside], *totals, *rest[outside:])


def shortcut(layers: tuple[Layer, ...], binding: Binding) -> Callable[[tuple[Any, ...]], Any] | None:
    """What the outermost layer knows without a call; a fallback around it has nothing to do with answers."""
    for layer in layers:
        if declares(layer, "shortcut"):
            known: Callable[[tuple[Any, ...]], Any] | None = getattr(layer, "shortcut")(binding)  # noqa: B009
            return known
        if not declares(layer, "only_failures"):
            break
    return None


def attributes(layers: tuple[Layer, ...], attribute: str) -> list[Any]:
    values = (getattr(layer, attribute, None) for layer in layers)
    return [value for value in values if value is not None]


def worker_pool(layers: tuple[Layer, ...]) -> WorkerPool | None:
    """The worker threads for sync functions with a deadline; None when a timeout opted out of them."""
    pool: WorkerPool | None = shared_pool
    for layer in layers:
        if getattr(layer, "in_thread", True) is False:
            return None
        pool = getattr(layer, "pool", None) or pool
    return pool


def fold(
    layers: tuple[Layer, ...],
    innermost: Callable[[Call[Any]], Any],
    *,
    total: int | None = None,
    adapt: Callable[[LayerFunction, Layer], LayerFunction] | None = None,
) -> Entry:
    """Compose from the innermost outwards, with the plain function of each layer's class.

    Args:
        layers: the outermost first.
        innermost: the step around the guarded function.
        total: nanoseconds for the whole of a call.
        adapt: what a layer's function is replaced by.
    """
    func: LayerFunction = _straight_on
    outermost: Layer | None = None
    call_next = innermost
    after: _Last | _Link | None = None
    for layer in reversed(layers):
        if outermost is not None:
            after = _Last(func, outermost, innermost) if after is None else _Link(func, outermost, after)
            call_next = after.enter
        func = function_layer if inspect.isfunction(layer) else type(layer).__call__
        if adapt is not None:
            func = adapt(func, layer)
        outermost = layer
    if total is not None:
        return _until_deadline, _Whole(func, outermost, total), call_next
    return func, outermost, call_next


def _straight_on(_layer: None, call: Call[Any], call_next: Callable[[Call[Any]], Any]) -> Any:
    """The entry of a pipeline without layers."""
    return call_next(call)


def function_layer(layer: Callable[..., Any], call: Call[Any], call_next: Callable[[Call[Any]], Any]) -> Any:
    return layer(call, call_next)


def layer_name(layer: Layer) -> str:
    """How messages and `repr` call a layer."""
    return layer.__name__ if inspect.isfunction(layer) else type(layer).__name__
