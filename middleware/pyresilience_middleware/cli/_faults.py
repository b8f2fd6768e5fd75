"""The fault script: what the upstream answers to which call. Pure, and the same whenever the seed is the same."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

QUICK = 0.01
"""Seconds that the upstream takes for an answer, good or bad, when it is not slow."""
SLOW = (1.0, 1.8)
"""Seconds that a slow answer takes, at least and at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the upstream does with one call: waits for `delay` seconds, then answers with `status`."""

    status: int
    delay: float


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the script.

    Attributes:
        errors: share of the calls that fail at the beginning; what is true at the end stands in `errors_at_end`.
        errors_at_end: share of the calls that fail at the end; None: as at the beginning.
        slow: share of the calls that do not fail but take long.
    """

    name: str
    about: str
    errors: float = 0.0
    errors_at_end: float | None = None
    slow: float = 0.0

    def error_share(self, progress: float) -> float:
        """Share of the calls that fail when the part `progress` of the phase, from 0 to 1, is over."""
        last = self.errors if self.errors_at_end is None else self.errors_at_end
        return self.errors + (last - self.errors) * progress


HEALTHY = Phase("healthy", "every call is answered")
ERRORS = Phase("errors", "30 % of the calls fail", errors=0.3)
SLOWNESS = Phase("slow", "30 % of the calls take long", slow=0.3)
DOWN = Phase("down", "every call fails", errors=1.0)
RECOVERING = Phase("recovering", "fewer and fewer calls fail", errors=0.6, errors_at_end=0.0)

SCRIPT = (HEALTHY, ERRORS, SLOWNESS, DOWN, RECOVERING)


def answer_to(seed: int, phase: Phase, number: int, call: int, *, requests: int) -> Answer:
    """The answer to a call. It depends on nothing but the arguments: no clock, and not the order of arrival.

    Args:
        number: which request of the phase the call is made for, counted from 0.
        call: 1 for the first call that is made for the request, 2 for its first retry.
        requests: how many requests the phase has.
    """
    draw = Random(f"{seed}/{phase.name}/{number}/{call}")
    failing, slow, length = draw.random(), draw.random(), draw.uniform(*SLOW)
    if failing < phase.error_share(min(number / requests, 1.0)):
        return Answer(503, QUICK)
    return Answer(200, length if slow < phase.slow else QUICK)
