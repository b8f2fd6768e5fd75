"""The outermost step of a pipeline around an async function: makes the call, counts it, and ends it.

`_blocking_root` has the same body without `await`: a function for what they share would be one more frame on each call.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.pipeline import _inventory as inventory
from pyresilience.pipeline._call import Binding, Call
from pyresilience.pipeline._endings import failed, postponed, succeeded
from pyresilience.pipeline._in_flight import Place, Places, of_calls
from pyresilience.policies._store import MISSING
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._anyio import AnyioRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")
drains = inventory.drains
places = Places(Place)
of_calls.append(places)
take_place = places.take
leave_place = places.leave


class AsyncCall(Call[R]):
    """A call in an event loop."""

    __slots__ = ()

    runtime = AnyioRuntime()
    blocking = False


def async_root(binding: Binding) -> Callable[..., Any]:
    """The function that callers of a guarded async function really call."""

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call: AsyncCall[Any] = AsyncCall()
        call.binding = binding
        call.args = args
        call.kwargs = kwargs
        call.attempt = 1
        call.ran = 0
        call.deadline = inf
        call.ending = None
        call.held = None
        call.stragglers = ()
        call.scope = None
        call.tokens = None
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
            result = await enter(binding.layer, call, binding.call_next)
        except BaseException as error:
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
            leave_place(place)
            if drains:
                inventory.call_ended()

    return guarded


def async_shortcut(root: Callable[..., Any], binding: Binding, known: Callable[[tuple[Any, ...]], Any]) -> Any:
    """`root`, unless the answer is `known` and nobody listens: then no call is made."""
    inventory.enter(binding)
    dispatch = binding.dispatch

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if not kwargs and not dispatch:
            value = known(args)
            if value is not MISSING:
                return value
        return await root(*args, **kwargs)

    return guarded
