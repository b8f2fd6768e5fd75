"""What makes two calls the same for a cache."""

from __future__ import annotations

import inspect
import weakref
from types import MethodType
from typing import Any

ATOMS = frozenset({str, bytes, int, type(None)})
"""Types of arguments that stand in a key as they are."""


class Unhashable(TypeError):
    """An argument cannot be part of a key."""


class CallKeys:
    """The keys of one function's calls: the function and all its arguments, defaults included, however they are passed.

    Values are equal for a key when they are equal and of one type: `1`, `1.0` and `True` are three keys. Objects that
    are only equal to themselves, such as the instance of a method, are referred to weakly: a key does not keep them
    alive.
    """

    __slots__ = ("_arity", "_function", "_signature")

    def __init__(self, fn: Any) -> None:
        self._function = function_key(fn)
        self._signature = signature_of(fn)
        self._arity = _positional(self._signature)

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The key of any call.

        Raises:
            Unhashable: an argument has no hash.
        """
        if self._signature is not None and (kwargs or len(args) != self._arity):
            try:
                bound = self._signature.bind(*args, **kwargs)
            except TypeError:
                pass  # the call itself will fail, and say better why
            else:
                bound.apply_defaults()
                args, kwargs = bound.args, bound.kwargs
        try:
            parts = tuple([arg if type(arg) in ATOMS else frozen(arg) for arg in args])
            if kwargs:
                named = tuple((name, frozen(value)) for name, value in sorted(kwargs.items()))
                key: Any = self._function, parts, named
            else:
                key = self._function, parts
            hash(key)
        except TypeError as error:
            raise Unhashable(str(error)) from None
        return key


def _positional(signature: inspect.Signature | None) -> int:
    """How many arguments, all in their places, are complete as they stand; -1 when that cannot be said."""
    if signature is None:
        return -1
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    plain = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return len(kinds) if all(kind in plain for kind in kinds) else -1


def function_key(fn: Any) -> Any:
    """The function itself; a method of one object without a reference to the object."""
    return (fn.__func__, frozen(fn.__self__)) if isinstance(fn, MethodType) else fn


def frozen(value: Any) -> Any:
    """A stand-in for one argument that tells types apart and keeps no identity-hashed object alive."""
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind in ATOMS:
        return value
    if issubclass(kind, tuple):
        return kind, tuple([frozen(item) for item in value])
    if kind is frozenset:
        return kind, frozenset([frozen(item) for item in value])
    by_identity: Any = object.__hash__
    if kind.__hash__ is by_identity:
        try:
            return weakref.ref(value)
        except TypeError:
            return kind, value
    return kind, value


def signature_of(fn: Any) -> inspect.Signature | None:
    """The signature that arguments are sorted by, or None where Python cannot tell."""
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return None
