"""Equal configs are kept once, however many functions are decorated with one of their own."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar, cast

Config = TypeVar("Config")

MOST = 256
PLAIN = (int, float, bool, str, type(None))

_kept: dict[tuple[Any, ...], Any] = {}


def kept(config: Config) -> Config:
    """A config that is equal to `config` down to the types of its values; the same for all that are.

    Only numbers, texts and exception classes are compared. A config that holds anything else, such as a function, is
    itself what is returned. The last few that were kept live as long as the process.
    """
    values: list[Any] = [type(config)]
    for field in fields(config):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # one of the policies'
        value = getattr(config, field.name)
        if type(value) not in PLAIN and not _classes(value):
            return config
        values += [type(value), value]
    key = tuple(values)
    if key not in _kept and len(_kept) >= MOST:
        _kept.clear()
    same: Config = _kept.setdefault(key, config)
    return same


def _classes(value: Any) -> bool:
    return type(value) is tuple and all(type(item) is type for item in cast("tuple[object, ...]", value))
