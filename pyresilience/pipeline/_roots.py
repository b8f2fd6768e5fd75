"""The outermost step of a pipeline: makes the call, tracks it, and emits its one terminal event.

What the two roots have in common stands in each of them: a function around it would be one more frame on every call.
"""

from __future__ import annotations

import inspect
from math import inf
from typing import TYPE_CHECKING, Any

from pyresilience.errors import ResilienceError, ResilienceTimeoutError
from pyresilience.events._bus import deliver
from pyresilience.events._events import EventType
from pyresilience.pipeline import _inventory as inventory
from pyresilience.pipeline._call import AsyncCall, Binding, BlockingCall, Call, Layer
from pyresilience.policies._store import MISSING
from pyresilience.runtime import _sources as sources
from pyresilience.runtime._blocking import unwrap
from pyresilience.runtime._protocol import DeadlineExpired

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pyresilience.pipeline._pipeline import Pipeline


drains = inventory.drains

ANSWERS = frozenset({EventType.CACHE_HIT, EventType.FALLBACK_USED, EventType.FAILURE})
"""How a call that returns a value may end, other than in `SUCCESS`."""


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
        pipeline = binding.pipeline
        entered = pipeline.entered
        try:
            entered.append(None)  # inside: an interrupt may arrive as soon as it returns, and not before
            if pipeline.timed:
                _start(call, pipeline)
            result = await binding.enter(binding.layer, call, binding.call_next)
        except BaseException as error:
            instead = _failed(call, error)
            if instead is not None:
                context = instead.__context__
                try:
                    raise instead
                finally:
                    instead.__context__ = context  # what the pipeline carried it in is nobody's business
                    del instead, context
            raise
        else:
            if pipeline.timed or call.held is not None:
                _succeeded(call, entered)
            return result
        finally:
            if call.held is None:
                entered.pop()
                if drains:
                    inventory.call_ended()

    return guarded


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
        call.scope = None
        call.tokens = None
        pipeline = binding.pipeline
        entered = pipeline.entered
        try:
            entered.append(None)  # inside: an interrupt may arrive as soon as it returns, and not before
            if pipeline.timed:
                _start(call, pipeline)
            coroutine = binding.enter(binding.layer, call, binding.call_next)
            try:
                coroutine.send(None)
            except StopIteration as stop:
                result = stop.value
            else:
                raise _suspended(coroutine, pipeline.layers)
        except BaseException as error:
            instead = _failed(call, error)
            if instead is not None:
                context = instead.__context__
                try:
                    raise instead
                finally:
                    instead.__context__ = context  # what the pipeline carried it in is nobody's business
                    del instead, context
            raise
        else:
            if pipeline.timed or call.held is not None:
                _succeeded(call, entered)
            return result
        finally:
            if call.held is None:
                entered.pop()
                if drains:
                    inventory.call_ended()

    return guarded


def async_shortcut(root: Callable[..., Any], binding: Binding, known: Callable[[tuple[Any, ...]], Any]) -> Any:
    """`root`, unless the answer is `known` and nobody listens: then no call is made."""
    pipeline = binding.pipeline

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if not kwargs and not pipeline.dispatch:
            value = known(args)
            if value is not MISSING:
                return value
        return await root(*args, **kwargs)

    return guarded


def blocking_shortcut(root: Callable[..., Any], binding: Binding, known: Callable[[tuple[Any, ...]], Any]) -> Any:
    """As `async_shortcut`."""
    pipeline = binding.pipeline

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not kwargs and not pipeline.dispatch:
            value = known(args)
            if value is not MISSING:
                return value
        return root(*args, **kwargs)

    return guarded


def _start(call: Call[Any], pipeline: Pipeline) -> None:
    call.started = sources.now()
    if pipeline.total is not None:
        call.deadline = call.started + pipeline.total


def _succeeded(call: Call[Any], entered: list[None]) -> None:
    """The pipeline has answered; with a hold, the end comes when the work ends."""
    if call.held is not None:
        call.held.then(lambda error: _released(call, entered, error))
    else:
        _emit_success(call)


def _released(call: Call[Any], entered: list[None], error: BaseException | None) -> None:
    try:
        if error is None:
            _emit_success(call)
        else:
            _emit_failure(call, error)
    finally:
        entered.pop()
        inventory.call_ended()


def _emit_success(call: Call[Any]) -> None:
    ending, call.ending = call.ending, None
    if ending is None or ending[0] not in ANSWERS:  # a refusal that some layer has answered is history
        ending = EventType.SUCCESS, None, ""
    kind, error, detail = ending
    listeners = call.binding.pipeline.dispatch.get(kind)
    if not listeners:
        return
    attempt = 0 if kind is EventType.CACHE_HIT else call.attempt
    duration = None
    started = getattr(call, "started", 0)
    if kind is EventType.SUCCESS and started:
        duration = (sources.now() - started) / sources.NANOSECONDS
    deliver(listeners, kind, call.binding.name, attempt, None if error is None else unwrap(error), detail, duration)


def _emit_failure(call: Call[Any], error: BaseException) -> None:
    """A rejection that was announced is itself the end when the function never ran; otherwise one event follows."""
    ending, call.ending = call.ending, None
    if not isinstance(error, Exception):
        call.emit(EventType.CANCELLED, error=error, detail="function abandoned" if call.stragglers else "")
    elif ending is None or ending[1] is not error or call.ran:
        call.emit(EventType.FAILURE, error=error)


def _failed(call: Call[Any], error: BaseException) -> BaseException | None:
    """End a call that raised; the error to raise instead, if another than the one that arrived."""
    instead: BaseException | None = None
    original = unwrap(error)
    try:
        if isinstance(error, DeadlineExpired):
            started = getattr(call, "started", 0)
            seconds = (error.deadline - started) / sources.NANOSECONDS if started else None
            message = f"{call.name}: a deadline around the call has passed"
            instead = original = ResilienceTimeoutError(message, seconds=seconds)
            call.emit(EventType.TIMEOUT, error=original)
        elif original is not error:
            instead = original
        if call.tokens is not None:
            call.refund()
        _emit_failure(call, original)
        return instead
    finally:
        call.held = None
        del error, instead, original  # a frame in its own traceback would be a cycle


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


def layer_name(layer: Layer) -> str:
    """How messages and `repr` call a layer."""
    return layer.__name__ if inspect.isfunction(layer) else type(layer).__name__
