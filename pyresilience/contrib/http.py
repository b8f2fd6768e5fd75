"""Retrying by the answer of an HTTP server: its status, and its `Retry-After` header.

```python
RetryConfig(retry_on_result=retry_on_status(429, 503), delay_func=retry_after_delay())
```

Works with the responses and errors of any client library: they are read through `status_code` or `status`, and
through `headers` or `response.headers`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pyresilience.runtime import _sources as sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["parse_retry_after", "retry_after", "retry_after_delay", "retry_on_status"]

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = f"(?P<month>{'|'.join(MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"

SECONDS = re.compile(r"[0-9]{1,10}")
DATES = (
    re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
"""The three forms of an HTTP-date (RFC 9110 section 5.6.7); the last one has no zone and means UTC."""

MULTI_GETTERS = ("get_list", "getlist", "get_all", "getall")
"""How client libraries call the method that gives each value of a header that was sent more than once."""


def retry_on_status(*codes: int) -> Callable[[object], bool]:
    """A `retry_on_result` that is true for responses with one of these status codes.

    Raises:
        ValueError: no codes are given.
        TypeError: a code is a bool or no int.
    """
    if not codes:
        raise ValueError("retry_on_status needs at least one status code, such as 503")
    for code in codes:
        if not _is_int(code):
            raise TypeError(f"retry_on_status takes status codes as ints, not {code!r}")
    return _StatusIn(frozenset(codes))


def retry_after_delay(max_wait: float = 60.0) -> Callable[[int, object], float | None]:
    """A `delay_func` that waits for as long as the server asked to.

    It answers None, which means the normal backoff, when there is no `Retry-After` header that can be read. The wait
    is clamped to [0, `max_wait`], and by the retry policy to its `max_delay`.

    Args:
        max_wait: seconds; `inf` leaves it to `max_delay`.

    Raises:
        ValueError: `max_wait` is negative or NaN.
        TypeError: `max_wait` is no number.
    """
    if isinstance(max_wait, bool) or not isinstance(max_wait, (int, float)):
        raise TypeError(f"max_wait must be a number of seconds, not {max_wait!r}")
    if math.isnan(max_wait) or max_wait < 0:
        raise ValueError(f"max_wait must be at least 0 seconds, not {max_wait!r}")
    return _RetryAfterDelay(float(max_wait))


def retry_after(headers: object) -> float | None:
    """Seconds that a server asks to wait, from the headers of its response; None when it does not say so readably.

    Of several `Retry-After` values the largest counts. A date is compared with the server's own `Date`, if the
    response has one, so that clocks need not agree.
    """
    values = [value for line in _values(headers, "retry-after") for value in _elements(line)]
    if not values:
        return None
    dates = (_http_date(date, sources.wall()) for date in _values(headers, "date"))
    now = next((date for date in dates if date is not None), None)
    if now is None:
        now = sources.wall()
    return max((wait for value in values if (wait := parse_retry_after(value, now)) is not None), default=None)


def parse_retry_after(value: str, now_wall: float) -> float | None:
    """Seconds that one `Retry-After` value asks for, never negative; None when it is not as RFC 9110 wants it.

    Accepted are one to ten ASCII digits, and an HTTP-date in any of its three forms; a date in the past gives 0.
    Everything else that number and date parsers would swallow (signs, underscores, other digits, other zones) is
    not.

    Args:
        now_wall: seconds since the epoch, to subtract from a date.
    """
    value = value.strip(" \t")
    if SECONDS.fullmatch(value):
        return float(value)
    date = _http_date(value, now_wall)
    return None if date is None else max(date - now_wall, 0.0)


@dataclass(frozen=True, slots=True)
class _StatusIn:
    codes: frozenset[int]

    def __call__(self, value: object) -> bool:
        for name in ("status_code", "status"):
            code = getattr(value, name, None)
            if _is_int(code):
                return code in self.codes
        return False

    def __repr__(self) -> str:
        return f"retry_on_status({', '.join(map(str, sorted(self.codes)))})"


@dataclass(frozen=True, slots=True)
class _RetryAfterDelay:
    max_wait: float

    def __call__(self, attempt: int, outcome: object) -> float | None:
        headers = getattr(outcome, "headers", None)
        if headers is None:
            headers = getattr(getattr(outcome, "response", None), "headers", None)
        wait = retry_after(headers)
        return None if wait is None else min(wait, self.max_wait)

    def __repr__(self) -> str:
        return f"retry_after_delay(max_wait={self.max_wait:g})"


def _is_int(code: object) -> bool:
    return isinstance(code, int) and not isinstance(code, bool)


def _values(headers: Any, name: str) -> list[str]:
    """All values of a header, from the header type of any client library or from a plain dict."""
    values: Any = None
    for getter in MULTI_GETTERS:
        method = getattr(headers, getter, None)
        if callable(method):
            try:
                values = method(name)
            except KeyError:  # multidict has no such header
                pass
            break
    else:
        items: Any = getattr(headers, "items", None)
        if callable(items):
            values = [value for key, value in items() if isinstance(key, str) and key.lower() == name]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
    return [value for value in values or () if isinstance(value, str)]


def _elements(line: str) -> Iterator[str]:
    """What one header line may contain: itself, or the values of several lines that a client library has joined.

    A date has a comma of its own, so neighbours are tried together as well.
    """
    parts = line.split(", ")
    yield from parts
    yield from map(", ".join, pairwise(parts))


def _http_date(value: str, now_wall: float) -> float | None:
    """Seconds since the epoch."""
    match = next((match for form in DATES if (match := form.fullmatch(value)) is not None), None)
    if match is None:
        return None
    year, second = int(match["year"]), int(match["second"])
    leap = second == 60
    try:
        if len(match["year"]) == 2:
            year = _full_year(year, now_wall)
        moment = datetime(
            year,
            MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            second - leap,
            tzinfo=UTC,
        )
        return moment.timestamp() + leap
    except (ValueError, OverflowError, OSError):
        return None


def _full_year(year: int, now_wall: float) -> int:
    """The year that two digits mean: the one that is at most 50 years ahead and less than 50 years ago (RFC 9110)."""
    earliest = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=now_wall)).year - 49
    return earliest + (year - earliest) % 100
