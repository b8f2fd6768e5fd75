"""What is measured: a case has variants, a meter, and bars that our variants are held to."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Protocol


class Role(StrEnum):
    FLOOR = "floor"
    OURS = "ours"
    PEER = "peer"
    REFERENCE = "reference"
    """Neither hand-written nor somebody else's: what a difference is taken from."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to do what the case is about.

    Attributes:
        name: shown in the table.
        role: the floor is what a competent developer writes by hand for exactly this case.
        build: makes the subject that the meter drives. Imports what it needs itself, so that a library that is not
            installed spoils nothing but its own variant. May be async; it runs inside the event loop.
        documented: uses only what is documented for the package that shares our name as well, so that the same
            lines measure that one, in an environment of its own.
    """

    name: str
    role: Role
    build: Callable[[], Any]
    documented: bool = False


class Kind(Enum):
    TIMES = "times"
    """The figure divided by that of the reference."""
    PLUS = "plus"
    """The figure less that of the reference."""
    VALUE = "value"
    """The figure itself."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What every variant of ours in a case should reach: at most `limit`.

    Attributes:
        against: the reference: the name of a variant, or `BEST_PEER`; None: the floor.
    """

    limit: float
    kind: Kind = Kind.TIMES
    against: str | None = None


BEST_PEER = "best peer"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured in one go.

    Attributes:
        seconds: what one repeat of one variant should take.
        repeats: of each variant; the minimum counts.
        heavy_repeats: the same for meters whose one repeat takes long, whatever is asked.
    """

    seconds: float
    repeats: int
    heavy_repeats: int


class Meter(Protocol):
    """Turns a subject into something that can be measured again and again."""

    @property
    def unit(self) -> str: ...

    @property
    def heavy(self) -> bool: ...

    def prepare(self, subject: Any, run: Runner, seconds: float) -> Callable[[], float]:
        """Check that the subject does its work, and return a function that measures it once, in `unit`.

        Raises:
            WrongAnswerError: it does not.
        """
        ...


class Runner(Protocol):
    """Runs a coroutine to its end, in one event loop for all of a process."""

    def __call__(self, coroutine: Any, /) -> Any: ...


class WrongAnswerError(Exception):
    """A variant does not return what the function it guards returns."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row group of the table."""

    key: str
    title: str
    floor: str
    meter: Meter
    variants: tuple[Variant, ...]
    bars: tuple[Bar, ...] = ()

    def names(self, role: Role) -> list[str]:
        return [variant.name for variant in self.variants if variant.role is role]


def floor(build: Callable[[], Any]) -> Variant:
    return Variant("by hand", Role.FLOOR, build)


def ours(name: str, build: Callable[[], Any], *, documented: bool = True) -> Variant:
    return Variant(name, Role.OURS, build, documented)


def peer(name: str, build: Callable[[], Any]) -> Variant:
    return Variant(name, Role.PEER, build)


def reference(name: str, build: Callable[[], Any], *, documented: bool = True) -> Variant:
    return Variant(name, Role.REFERENCE, build, documented)


def library(name: str) -> Any:
    """A module of a peer. They come without types we could rely on, and need not be installed."""
    return importlib.import_module(name)


async def answer(value: int) -> int:
    """The function that is guarded: it does nothing, so that what is left is the guard."""
    return value


def answer_sync(value: int) -> int:
    return value


BARE = reference("no guard", lambda: answer, documented=False)
BARE_SYNC = reference("no guard", lambda: answer_sync, documented=False)
