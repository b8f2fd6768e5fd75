"""Which colour a callable has, and whether it can be guarded at all."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def function_name(fn: Any) -> str:
    """The name that events show for a callable; `functools.partial` and callable objects included."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def is_async(fn: Any) -> bool:
    """Whether calling `fn` gives a coroutine.

    Raises:
        TypeError: `fn` is not callable, or is a generator function of either kind.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not callable(fn):
        raise TypeError(f"only a callable can be guarded, not {fn!r} of type {type(fn).__name__}")
    bodies = (fn, getattr(type(fn), "__call__", None))  # noqa: B004  # the method itself is wanted, to look into it
    for body in bodies:
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise TypeError(
                f"{function_name(fn)!r} is a generator function and cannot be guarded: calling it runs none of its "
                "body, so there is nothing yet that could be retried, timed or counted; guard the function that "
                "consumes it, or one that fetches a single item"
            )
    return is_coroutine_callable(fn)


def is_coroutine_callable(fn: object) -> bool:
    """Whether `fn` is an `async def` function, or an object with an `async def __call__`."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004
