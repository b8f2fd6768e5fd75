"""What makes two calls the same for a cache."""

from __future__ import annotations

import inspect
import weakref
from types import MethodType
from typing import Any

_ATOMS = frozenset({str, bytes, int, type(None)})


class Unhashable(TypeError):
    """An argument cannot be part of a key."""


def call_key(fn: Any, signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A hashable key of the function and all its arguments, defaults included, however they were passed.

    Values are equal for the key when they are equal and of one type: `1`, `1.0` and `True` are three keys. Objects
    that are only equal to themselves, such as the instance of a method, are referred to weakly: the key does not
    keep them alive.

    Raises:
        Unhashable: an argument has no hash.
    """
    if signature is not None and (kwargs or len(args) != len(signature.parameters)):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            pass  # the call itself will fail, and say better why
        else:
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
    try:
        parts = tuple([arg if type(arg) in _ATOMS else frozen(arg) for arg in args])
        if kwargs:
            named = tuple((name, frozen(value)) for name, value in sorted(kwargs.items()))
            key: Any = (_function(fn), parts, named)
        else:
            key = (_function(fn), parts)
        hash(key)
    except TypeError as error:
        raise Unhashable(str(error)) from None
    return key


def _function(fn: Any) -> Any:
    """The function itself; a method of one object without a reference to the object."""
    return (fn.__func__, frozen(fn.__self__)) if isinstance(fn, MethodType) else fn


def frozen(value: Any) -> Any:
    """A stand-in for one argument that tells types apart and keeps no identity-hashed object alive."""
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind in _ATOMS:
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
