"""The layers around one HTTP request: what a retry of it means, and who closes which response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyresilience import EventType, Retry, RetryBudget, RetryConfig
from pyresilience_middleware.outbound._http import RETRIED_STATUSES, Exchange, UnsuccessfulResponse

if TYPE_CHECKING:
    from pyresilience import Call, CallNext


class HttpRetry(Retry):
    """`Retry` with the rules of HTTP.

    A request is sent again when its method is idempotent, when it has an `Idempotency-Key`, or when nothing of it
    was sent; and only if its body can be sent a second time. A `Retry-After` is obeyed to the second: if it asks for
    more than `max_delay`, or more than the call has left, that response is the answer. A response that is given up
    for another attempt is closed, before the wait.
    """

    __slots__ = ("statuses",)

    def __init__(self, config: RetryConfig, *, budget: RetryBudget | None = None) -> None:
        self.statuses = config.retry_on_result or RETRIED_STATUSES
        config = replace(
            config,
            retry_on=(*config.retry_on, UnsuccessfulResponse),
            retry_on_result=None,
            delay_func=_AsTheServerAsks(config.delay_func),
        )
        super().__init__(config, budget=budget)

    def obstacle(self, call: Call[Any], error: BaseException) -> str | None:
        exchange: Exchange = call.args[0]
        if not isinstance(error, Exception) or not self.config.retryable(error) or not exchange.may_repeat(error):
            return ""
        if isinstance(error, UnsuccessfulResponse):
            if not self.statuses(exchange.response):
                return ""
            if error.retry_after is not None and error.retry_after > self.config.max_delay:
                asked, allowed = error.retry_after, self.config.max_delay
                return f"the server asks for {asked:.0f}s, more than the {allowed:g}s allowed"
        if not exchange.never_sent(error) and not exchange.replayable():
            return "body not replayable"
        return None

    async def before_retry(self, call: Call[Any]) -> None:
        await call.args[0].discard()


class Judging:
    """Raises responses whose status is retried, inside the retry and outside the circuit breaker."""

    __slots__ = ("statuses",)

    def __init__(self, statuses: Callable[[Any], bool]) -> None:
        self.statuses = statuses

    def __repr__(self) -> str:
        return "Judging()"

    async def __call__(self, call: Call[Any], call_next: CallNext[Any]) -> Any:
        response = await call_next(call)
        if self.statuses(response):
            raise call.args[0].failure()
        return response


@dataclass(frozen=True, slots=True)
class _AsTheServerAsks:
    """A `delay_func`: what `Retry-After` says, or else what the user's own one does."""

    otherwise: Callable[[int, Any], float | None] | None

    def __call__(self, attempt: int, outcome: Any) -> float | None:
        if isinstance(outcome, UnsuccessfulResponse) and outcome.retry_after is not None:
            return outcome.retry_after
        return None if self.otherwise is None else self.otherwise(attempt, outcome)


class Handover:
    """The outermost layer: gives the last response to the caller, or closes what nobody will get."""

    __slots__ = ()

    outside_deadline = True

    def __repr__(self) -> str:
        return "Handover()"

    async def __call__(self, call: Call[Any], call_next: CallNext[Any]) -> Any:
        exchange: Exchange = call.args[0]
        try:
            await call_next(call)
        except UnsuccessfulResponse as failure:
            call.ending = (EventType.FAILURE, failure, "")
        except BaseException as error:
            await exchange.discard(error)
            raise
        return exchange.release()


class Sending:
    """The innermost layer: sends one attempt and takes charge of the response."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Sending()"

    async def __call__(self, call: Call[Any], call_next: CallNext[Any]) -> Any:
        exchange: Exchange = call.args[0]
        exchange.prepare(call)
        return exchange.receive(await call_next(call), call)
