"""How long to wait between attempts. Pure: the random number is an argument."""

from __future__ import annotations

import math

JITTER_FLOOR = 0.1
"""With jitter a delay is drawn between this share of the backoff and all of it."""


def exponential(delay: float, factor: float, cap: float, attempt: int) -> float:
    """`min(cap, delay * factor ** (attempt - 1))` seconds after the `attempt`-th attempt, without overflow."""
    if attempt == 1:
        return min(cap, delay)
    try:
        return min(cap, delay * math.pow(factor, attempt - 1))
    except OverflowError:
        return cap if delay else 0.0


def jittered(backoff: float, u: float) -> float:
    """Between 10 % and 100 % of `backoff`, for `u` in [0, 1]."""
    return backoff * (JITTER_FLOOR + (1.0 - JITTER_FLOOR) * u)


def clamped(hint: object, cap: float) -> float | None:
    """The seconds that a `delay_func` asked for, within [0, cap]; None when it did not answer with a number."""
    if isinstance(hint, bool) or not isinstance(hint, (int, float)) or math.isnan(hint):
        return None
    return min(max(float(hint), 0.0), cap)
