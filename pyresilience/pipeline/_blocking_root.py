"""The outermost step of a pipeline around a sync function: as `_async_root`, and drives the layers."""

from __future__ import annotations

import inspect
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience._promises import declares
from pyresilience.errors import ResilienceError
from pyresilience.pipeline import _inventory as inventory
from pyresilience.pipeline._call import Binding, Call, Layer
from pyresilience.pipeline._compose import function_layer, layer_name
from pyresilience.pipeline._endings import failed, postponed, succeeded
from pyresilience.pipeline._in_flight import Place, Places, of_calls
from pyresilience.policies._store import MISSING
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import BlockingRuntime, new_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pyresilience.pipeline._call import Entry, LayerFunction

R = TypeVar("R")
drains = inventory.drains


class BlockingCall(Call[R]):
    """A call driven in the thread of a sync caller."""

    __slots__ = ()

    runtime = BlockingRuntime()
    blocking = True

    def deadline_passed(self) -> bool:
        return sources.now() >= self.deadline  # nothing is cancelled here: no scope


class DrivingPlace(Place):
    """A place of a sync call, with what drives the coroutine of that call until an exception ends it."""

    __slots__ = ("drive",)

    def __init__(self) -> None:
        super().__init__()
        self.drive = new_driver()


class DrivingPlaces(Places[DrivingPlace]):
    """As `Places`, each of which has a driver as long as it is free.

    Attributes:
        leave_spoiled: give a place back whose driver has ended; a call that finds no other gives it a new one.
    """

    def __init__(self) -> None:
        super().__init__(DrivingPlace)
        self._spoiled: list[DrivingPlace] = []
        self.leave_spoiled = self._spoiled.append

    def new(self) -> DrivingPlace:
        try:
            place = self._spoiled.pop()
        except IndexError:
            return super().new()
        try:
            place.drive = new_driver()
        except BaseException:
            self._spoiled.append(place)
            raise
        return place


places = DrivingPlaces()
of_calls.append(places)
take_place = places.take
leave_place = places.leave
leave_spoiled = places.leave_spoiled


def blocking_root(binding: Binding) -> Callable[..., Any]:
    """The function that callers of a guarded sync function really call: drives the coroutine with one `send`."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        call: BlockingCall[Any] = BlockingCall()
        call.binding = binding
        call.args = args
        call.kwargs = kwargs
        call.attempt = 1
        call.ran = 0
        call.deadline = inf
        call.ending = None
        call.held = None
        call.stragglers = ()
        call.tokens = None
        coroutine: Any = None
        try:
            owner = binding.owner
        except AttributeError:  # its first call
            owner = inventory.enter(binding)
        dispatch = binding.dispatch
        try:
            place = take_place()
        except IndexError:
            place = places.new()
        try:
            place.owner = owner
            if dispatch.heard:
                call.started = sources.now()
            enter = binding.enter
            coroutine = enter(binding.layer, call, binding.call_next)
            drive = place.drive
            result = drive(coroutine)
            coroutine = None  # done, and its driver is ready for another
        except BaseException as error:
            try:
                if coroutine is not None:
                    coroutine.close()  # an interrupt may have come before it began
            finally:
                instead = failed(call, error)
            if instead is not None:
                context = instead.__context__
                try:
                    raise instead
                finally:
                    instead.__context__ = context  # what the pipeline carried it in is nobody's business
                    del instead, context
            raise
        else:
            if call.held is not None:
                postponed(call, place)  # type: ignore[unreachable]  # a layer took it meanwhile
            elif dispatch.heard:
                succeeded(call)
            elif call.ending is not None:
                call.ending = None  # type: ignore[unreachable]  # an error that a layer left leads back to this call
            return result
        finally:
            place.owner = None
            if coroutine is None:
                leave_place(place)
            else:
                leave_spoiled(place)
            if drains:
                inventory.call_ended()

    return guarded


def blocking_shortcut(root: Callable[..., Any], binding: Binding, known: Callable[[tuple[Any, ...]], Any]) -> Any:
    """As `async_shortcut`."""
    inventory.enter(binding)
    dispatch = binding.dispatch

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not kwargs and not dispatch:
            value = known(args)
            if value is not MISSING:
                return value
        return root(*args, **kwargs)

    return guarded


class _Watch:
    """The outermost layer of a pipeline in which some layer may suspend."""

    __slots__ = ("func", "layer", "layers")

    def __init__(self, func: LayerFunction, layer: Any, layers: tuple[Layer, ...]) -> None:
        self.func = func
        self.layer = layer
        self.layers = layers


def watched(entry: Entry, layers: tuple[Layer, ...]) -> Entry:
    """`entry`, with a watch on whether everything ends without suspending, as nothing of ours ever does."""
    func, layer, call_next = entry
    return _watching, _Watch(func, layer, layers), call_next


async def _watching(watch: _Watch, call: Call[Any], call_next: Any) -> Any:
    coroutine = watch.func(watch.layer, call, call_next)
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise _suspended(coroutine, watch.layers)


def _suspended(coroutine: Coroutine[Any, Any, Any], layers: tuple[Layer, ...]) -> ResilienceError:
    """Close a coroutine that waits where only blocking works, and say which layer it was."""
    codes = {_code(layer): layer_name(layer) for layer in layers}
    culprit = "the pipeline"
    awaited: Any = coroutine
    while awaited is not None:
        culprit = codes.get(getattr(awaited, "cr_code", None), culprit)
        awaited = getattr(awaited, "cr_await", None)
    coroutine.close()
    return ResilienceError(
        f"{culprit} suspended while guarding a sync function; a layer for sync functions may only wait with "
        "`await call.sleep(...)` and by awaiting `call_next(call)`"
    )


def _code(layer: Layer) -> Any:
    if inspect.isfunction(layer):
        return layer.__code__
    return getattr(type(layer).__call__, "__code__", None)


def awaited(func: LayerFunction, layer: Layer) -> LayerFunction:
    """For the blocking root, which drives a coroutine: a layer that returns some other awaitable is put into one."""
    if inspect.iscoroutinefunction(layer if func is function_layer else func) or declares(layer, "forwards"):
        return func

    async def awaiting(layer: Layer, call: Call[Any], call_next: Any) -> Any:
        return await func(layer, call, call_next)

    return awaiting
