"""What the class of a callable promises about it."""

from __future__ import annotations


def declares(callable_object: object, promise: str) -> bool:
    """Whether the class whose `__call__` an object has defines `promise` as well; a subclass with its own has not."""
    for kind in type(callable_object).__mro__:
        if "__call__" in vars(kind):
            return promise in vars(kind)
    return False
