"""Checks of config fields. A message names the field, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.pipeline._adapt import is_coroutine_callable
from pyresilience.policies._kept import kept

if TYPE_CHECKING:
    from collections.abc import Callable


Config = TypeVar("Config")

HUGE = 10**9
"""No count and no duration may be larger: nanoseconds and timers have to hold it."""


def integer(owner: object, field: str, minimum: int) -> None:
    value = getattr(owner, field)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{_where(owner, field)} must be an int, not {value!r}")
    if not minimum <= value <= HUGE:
        raise ValueError(f"{_where(owner, field)} must be at least {minimum} and at most {HUGE}, not {_short(value)}")


def number(
    owner: object,
    field: str,
    *,
    minimum: float = 0.0,
    maximum: float = HUGE,
    above: bool = False,
    infinite: bool = False,
    unit: str = " seconds",
) -> None:
    """A number in [minimum, maximum]; with `above` not the minimum itself, with `infinite` also `inf`."""
    value = getattr(owner, field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{_where(owner, field)} must be a number, not {value!r}")
    if infinite and value == math.inf:
        return
    if not (value > minimum if above else value >= minimum) or value > maximum:
        allowed = f"{'more than' if above else 'at least'} {minimum:g} and at most {maximum:g}{unit}"
        allowed += ", or inf" if infinite else ""
        raise ValueError(f"{_where(owner, field)} must be {allowed}, not {_short(value)}")


def boolean(owner: object, field: str) -> None:
    value = getattr(owner, field)
    if not isinstance(value, bool):
        raise TypeError(f"{_where(owner, field)} must be True or False, not {value!r}")


def error_types(owner: object, field: str) -> None:
    """One exception class or a sequence of them; stored as a tuple."""
    given: Any = getattr(owner, field)
    if isinstance(given, type):
        given = (given,)
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise TypeError(f"{_where(owner, field)} must be a tuple of exception classes, not {given!r}")
    kinds: tuple[Any, ...] = tuple(given)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{_where(owner, field)} must contain exception classes only, not {kind!r}")
    object.__setattr__(owner, field, kinds)


def function(owner: object, field: str, *, optional: bool = True) -> None:
    """A plain function: it is called where nothing can be awaited."""
    value: Callable[..., Any] | None = getattr(owner, field)
    if value is None and optional:
        return
    if not callable(value):
        raise TypeError(f"{_where(owner, field)} must be callable, not {value!r}")
    if is_coroutine_callable(value):
        raise TypeError(f"{_where(owner, field)} must be a plain function, not the async {value!r}")


def choice(owner: object, field: str, allowed: tuple[str, ...]) -> None:
    value = getattr(owner, field)
    if not isinstance(value, str):
        raise TypeError(f"{_where(owner, field)} must be a str, not {value!r}")
    if value not in allowed:
        raise ValueError(f"{_where(owner, field)} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def config_of(kind: type[Config], value: Config | None) -> Config:
    """The config of a layer, from the argument of its constructor; layers with equal configs share one (see `kept`).

    Raises:
        TypeError: it is the config of something else.
    """
    if value is None:
        value = kind()
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, not {value!r}")
    return kept(value) if type(value) is kind else value  # a subclass may hold more


def _short(value: object) -> str:
    """As `repr`, without thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a number of {value.bit_length()} bits"
    return repr(value)


def _where(owner: object, field: str) -> str:
    return f"{type(owner).__name__}.{field}"
