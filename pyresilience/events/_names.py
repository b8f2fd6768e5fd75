"""Names of functions as labels of what is counted: bounded in length and number."""

from __future__ import annotations

import logging

logger = logging.getLogger("pyresilience")

OTHER = "__other__"
MAX_FUNCTIONS = 1000
_NAME_LENGTH = 200


def label_text(name: str) -> str:
    """`name` as it is counted and exposed: bounded in length, and without what UTF-8 cannot encode."""
    text = name[:_NAME_LENGTH]
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def check_max_functions(owner: str, value: int) -> int:
    """Raise TypeError or ValueError for what cannot be a number of names."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}.max_functions must be an int, not {value!r}")
    if value < 1:
        raise ValueError(f"{owner}.max_functions must be at least 1, not {value!r}")
    return value


def warn_of_overflow(owner: str, limit: int, name: str) -> None:
    logger.warning(
        "%s: more than %d function names; %r and any further ones are counted as %r", owner, limit, name, OTHER
    )
