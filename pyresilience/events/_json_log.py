"""Events as lines of JSON in a log."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, cast

from pyresilience.events._events import ResilienceEvent, context_now, resilience_context
from pyresilience.events._log_record import LineLog

if TYPE_CHECKING:
    from pyresilience.events._events import EventType

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

TEXT_LENGTH = 512
_MAX_DEPTH = 8
_MAX_VALUES = 256
_INT64 = range(-(2**63), 2**64)
_PRINTABLE_BITS = 1024
_MAX_LINES = 1024


class JsonEventLogger:
    """A listener that logs each event as one line of JSON.

    A line has `event_type`, `function_name` and `attempt`, then `detail` when there is one, `error_type` and
    `error_message` when there is an error, and `context` when `resilience_context` is set. It is valid JSON whatever
    the values are: texts are cut at 512 characters, URLs in them lose user name, password, query and fragment,
    numbers that JSON does not know become null or text, other objects what `str` makes of them.

    Uses orjson when it is installed; the lines are the same without it.

    Args:
        logger: where to log; the logger `pyresilience` by default.
        level: the level of each line. Events cost next to nothing while the logger is not enabled for it.

    Raises:
        TypeError: an argument is not what it has to be.
    """

    def __init__(
        self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None, level: int = logging.INFO
    ) -> None:
        if logger is None:
            logger = logging.getLogger("pyresilience")
        if not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
            raise TypeError(f"JsonEventLogger.logger must be a logging.Logger or LoggerAdapter, not {logger!r}")
        if isinstance(level, bool) or not isinstance(level, int):
            raise TypeError(f"JsonEventLogger.level must be an int such as logging.INFO, not {level!r}")
        self._logger = logger
        self._level = level
        self._encode = best_encoder()
        self._lines: dict[tuple[EventType, str, int], str] = {}
        if isinstance(logger, logging.Logger) and getattr(type(logger), "log", None) is logging.Logger.log:
            self._log = LineLog(logger, level, __file__, "JsonEventLogger").log
        else:
            self._log = _AdapterLog(logger, level).log

    def __repr__(self) -> str:
        return f"JsonEventLogger({self._logger.name!r}, {logging.getLevelName(self._level)})"

    def __call__(self, event: ResilienceEvent, /) -> None:
        if self._logger.isEnabledFor(self._level):
            self._log(self._line(event))

    def _take_facts(
        self,
        event_type: EventType,
        function_name: str,
        attempt: int,
        error: BaseException | None,
        detail: str,
        duration: float | None,
    ) -> None:
        """Log a line; it takes an event only if nothing like it was logged before."""
        if not self._logger.isEnabledFor(self._level):
            return
        line = None
        if error is None and not detail and resilience_context.get() is None:
            line = self._lines.get((event_type, function_name, attempt))
        if line is None:
            event = ResilienceEvent(event_type, function_name, attempt, error, detail, context_now(), duration)
            line = self._line(event)
        self._log(line)

    def _line(self, event: ResilienceEvent) -> str:
        """The line of an event; kept for the next of its kind if nothing but its type, name and attempt is in it."""
        fields = record(event)
        line = self._encode(fields)
        if len(fields) == 3 and len(event.function_name) <= TEXT_LENGTH:
            if len(self._lines) >= _MAX_LINES:
                self._lines.clear()
            self._lines[event.event_type, event.function_name, event.attempt] = line
        return line


class _AdapterLog:
    """Logs lines through an adapter, or a logger with a `log` of its own."""

    __slots__ = ("_level", "_logger")

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger], level: int) -> None:
        self._logger = logger
        self._level = level

    def log(self, line: str) -> None:
        """Log a line as it is."""
        self._logger.log(self._level, line)


def record(event: ResilienceEvent) -> dict[str, Json]:
    """The fields of one line, in their order."""
    fields: dict[str, Json] = {
        "event_type": event.event_type.value,
        "function_name": safe_text(event.function_name),
        "attempt": _integer(event.attempt),
    }
    if event.detail:
        fields["detail"] = safe_text(event.detail)
    if event.error is not None:
        fields["error_type"] = safe_text(type(event.error).__name__)
        fields["error_message"] = object_text(event.error)
    if event.context:
        fields["context"] = plain(event.context)
    return fields


# ---------------------------------------------------------------------- encoders


class _Float(float):
    """A float that orjson leaves to us: it writes 1e-07 and 1e+16 differently from the standard library."""


def best_encoder() -> Callable[[dict[str, Json]], str]:
    """orjson if it is installed, else the standard library; both give the same text for what `plain` returns."""
    try:
        return orjson_encoder()
    except ImportError:
        return stdlib_encoder()


def orjson_encoder() -> Callable[[dict[str, Json]], str]:
    from orjson import Fragment, dumps

    def float_text(value: float) -> Fragment:
        return Fragment(float.__repr__(value))

    return lambda fields: dumps(fields, float_text).decode()


def stdlib_encoder() -> Callable[[dict[str, Json]], str]:
    import json

    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


# ---------------------------------------------------------------------- values


def plain(value: object) -> Json:
    """`value` as what every JSON encoder takes and writes alike. Never raises, whatever the objects in it do."""
    return _Plain().convert(value, 0)


class _Plain:
    """One conversion. It stops at a number of values, so that what refers to itself ends soon."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def convert(self, value: object, depth: int) -> Json:
        try:
            return self._convert(value.value if isinstance(value, Enum) else value, depth)
        except Exception:  # a container that another thread changes, or a hostile object
            return f"<{type(value).__name__}, unreadable>"

    def _convert(self, value: object, depth: int) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return safe_text(value)
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, float):
            return _Float(value) if math.isfinite(value) else None
        if isinstance(value, (bytes, bytearray)):
            return safe_text(value[: 2 * TEXT_LENGTH].decode("utf-8", "backslashreplace"))
        kind = type(value).__name__
        if not isinstance(value, (Mapping, Sequence, Set)):
            return object_text(value)
        if depth >= _MAX_DEPTH:
            return f"<{kind}, nested too deep>"
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[object, object]", value), depth + 1)
        return self._items(cast("Collection[object]", value), depth + 1)

    def _mapping(self, value: Mapping[object, object], depth: int) -> Json:
        pairs: dict[str, Json] = {}
        for key, item in value.items():
            if not self._takes_one_more():
                pairs["..."] = "..."
                break
            pairs[safe_text(key) if isinstance(key, str) else object_text(key)] = self.convert(item, depth)
        return pairs

    def _items(self, value: Collection[object], depth: int) -> Json:
        items: list[Json] = []
        for item in value:
            if not self._takes_one_more():
                items.append("...")
                break
            items.append(self.convert(item, depth))
        return items

    def _takes_one_more(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _integer(value: int) -> int | str:
    value = int.__index__(value)
    if value in _INT64:
        return value
    bits = value.bit_length()
    return str(value) if bits <= _PRINTABLE_BITS else f"<int of {bits} bits>"


def object_text(value: object) -> str:
    """What `str` makes of any object, made safe; a stand-in when that fails."""
    try:
        return safe_text(str(value))
    except Exception:
        return f"<{type(value).__name__}, unprintable>"


# ---------------------------------------------------------------------- texts

_WORD = re.compile(r'[^\s"<>]+')
_CLOSING = "'`)]},.;:!"


def safe_text(text: str, limit: int = TEXT_LENGTH) -> str:
    """`text` without secrets of URLs, without what UTF-8 cannot encode, and of at most `limit` characters."""
    text = str.__str__(text)
    if "/" in text:
        text = _redacted(text, limit)
    if not text.isascii():
        text = text[: limit + 1].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _redacted(text: str, limit: int) -> str:
    """Whole words, so that no URL is cut before its secrets are found, and no further than will be kept."""
    parts: list[str] = []
    length = end = 0
    for word in _WORD.finditer(text):
        between, redacted = text[end : word.start()], _redacted_word(word.group())
        end = word.end()
        parts += between, redacted
        length += len(between) + len(redacted)
        if length > limit:
            return "".join(parts)
    return "".join((*parts, text[end:]))


def _redacted_word(word: str) -> str:
    """A URL in a word reaches to its end, but for the punctuation there."""
    kept = word.rstrip(_CLOSING)
    closing = word[len(kept) :]
    before, separator, rest = kept.partition("://")
    if separator:
        return before + separator + _redacted_url(rest) + closing
    path, _, query = kept.partition("?")
    return f"{path}?***{closing}" if query and "/" in path else word


def _redacted_url(rest: str) -> str:
    """What follows the `://`. What does not parse goes as a whole: a password may be why it does not."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(f"x://{rest}")
        _ = parts.port
    except ValueError:
        return "***"
    _, at, host = parts.netloc.rpartition("@")
    # A password with a slash, not encoded, looks like a port and a path.
    if ":" in host and not at and "@" in parts.path:
        return "***"
    path = "/***" if "://" in parts.path else parts.path
    return ("***@" if at else "") + host + path + ("?***" if parts.query or parts.fragment else "")
