"""Fallback: another answer in place of a failure."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.errors import ResilienceError, ResilienceTimeoutError
from pyresilience.events._events import EventType
from pyresilience.pipeline._adapt import is_coroutine_callable
from pyresilience.policies import _validate as validate
from pyresilience.runtime._blocking import unwrap

if TYPE_CHECKING:
    from pyresilience.pipeline._call import Call, CallNext

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class FallbackConfig:
    """What to answer, and for which errors.

    Attributes:
        handler: the answer, or a function of the error that gives it, `def` or `async def`. To answer with None or
            with a callable, give `lambda error: ...`. Without a handler nothing is caught.
        fallback_on: errors that are answered; refusals and timeouts of other layers are errors too.
        timeout: seconds that an async handler may take; the deadline of the call may have passed already.
    """

    handler: object = None
    fallback_on: Sequence[type[BaseException]] = (Exception,)
    _: KW_ONLY
    timeout: float = inf

    def __post_init__(self) -> None:
        validate.error_types(self, "fallback_on")
        validate.number(self, "timeout", above=True, infinite=True)

    def build(self) -> Fallback:
        return Fallback(self)


class Fallback:
    """Answers in place of the rest of the pipeline when that fails.

    Cancellation by the caller is not a failure and passes through. When the handler raises, its error surfaces with
    the original as its `__context__`. Stands outside every other layer, so that it sees their refusals and the
    total timeout, runs once per call, and its answers are not cached.
    """

    __slots__ = ("config",)

    never_suspends = True
    keyed = False

    outside_deadline = True
    only_failures = True  # answers pass through it untouched

    def __init__(self, config: FallbackConfig | None = None) -> None:
        config = validate.config_of(FallbackConfig, config)
        self.config = config

    @property
    def async_only(self) -> str | None:
        """Why it cannot guard a sync function, if it cannot."""
        return "its handler is an async function" if is_coroutine_callable(self.config.handler) else None

    def __repr__(self) -> str:
        return f"Fallback({self.config.handler!r})"

    async def __call__(self, call: Call[R], call_next: CallNext[R]) -> R:
        try:
            return await call_next(call)
        except Exception as error:
            original = unwrap(error)
            if self.config.handler is None or not isinstance(original, tuple(self.config.fallback_on)):
                raise
            try:
                if call.tokens is not None:
                    call.refund()
                call.forget_attempt()
                answer = await self._answer(call, original)
                call.ending = (EventType.FALLBACK_USED, original, "")
                return answer
            finally:
                del original

    async def _answer(self, call: Call[R], error: BaseException) -> R:
        handler: Any = self.config.handler
        called = callable(handler)
        answer: Any = handler(error) if called else handler
        if not (called and inspect.isawaitable(answer)):
            return answer  # type: ignore[no-any-return]
        if call.blocking:
            if inspect.iscoroutine(answer):
                answer.close()
            raise ResilienceError(f"{call.name}: the fallback handler of a sync function returned an awaitable")
        if self.config.timeout == inf:
            return await answer  # type: ignore[no-any-return]
        import anyio

        with anyio.move_on_after(self.config.timeout):
            return await answer  # type: ignore[no-any-return]
        detail = f"fallback timed out after {self.config.timeout:.2f}s"
        expired = ResilienceTimeoutError(f"{call.name}: {detail}", seconds=self.config.timeout)
        call.emit(EventType.TIMEOUT, error=expired, detail=detail)
        try:
            raise expired
        finally:
            del expired  # its traceback holds this frame
