"""Errors: their hierarchy, what they carry, and that they survive pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

from pyresilience import (
    BulkheadFullError,
    CallRejectedError,
    CircuitOpenError,
    EventType,
    RateLimitExceededError,
    ResilienceError,
    ResilienceEvent,
    ResilienceTimeoutError,
)


@pytest.mark.parametrize("kind", [CircuitOpenError, BulkheadFullError, RateLimitExceededError])
def test_refusals_share_a_base_and_say_who_refused_and_for_how_long(kind):
    error = kind("no", retry_after=2.5, layer="layer", name="payments")
    assert isinstance(error, CallRejectedError) and isinstance(error, ResilienceError)
    assert (str(error), error.retry_after, error.layer, error.name) == ("no", 2.5, "layer", "payments")
    bare = kind()
    assert (str(bare), bare.retry_after, bare.layer, bare.name) == ("", None, "", "")


def test_a_timeout_is_also_a_timeout_error():
    error = ResilienceTimeoutError("late", seconds=2.0)
    assert isinstance(error, TimeoutError) and isinstance(error, ResilienceError)
    assert error.seconds == 2.0 and ResilienceTimeoutError().seconds is None


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", [CircuitOpenError("no", retry_after=1.0, layer="l", name="n"), ResilienceError("x")])
def test_errors_survive_pickling_and_copying(error, protocol):
    error.__notes__ = ["a note"]
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(twin) is type(error) and twin.args == error.args
        assert twin.__dict__ == error.__dict__ and twin.__notes__ == ["a note"]


def test_a_subclass_with_arguments_of_its_own_survives_pickling():
    twin = pickle.loads(pickle.dumps(Special("shop")))
    assert (type(twin), str(twin), twin.shop, twin.retry_after) == (Special, "shop is shut", "shop", 60)


class Special(CallRejectedError):
    def __init__(self, shop: str) -> None:
        super().__init__(f"{shop} is shut", retry_after=60, shop=shop)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_events_survive_pickling(protocol):
    event = ResilienceEvent(EventType.RETRY, "fn", 2, None, "detail", {"id": "7"}, 0.5)
    assert pickle.loads(pickle.dumps(event, protocol)) == event


def test_an_event_is_frozen_and_built_as_documented():
    import dataclasses
    import inspect

    event = ResilienceEvent(EventType.SUCCESS, "fn")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.attempt = 3  # type: ignore[misc]
    assert (event.attempt, event.error, event.detail, event.context, event.duration) == (0, None, "", None, None)
    parameters = list(inspect.signature(ResilienceEvent).parameters.values())
    fields = dataclasses.fields(ResilienceEvent)
    assert [(one.name, one.default) for one in parameters[2:]] == [(one.name, one.default) for one in fields[2:]]
    assert dataclasses.replace(event, attempt=2).attempt == 2
    assert vars(event)["function_name"] == "fn" and "attempt=0" in repr(event)


def test_event_types_have_the_documented_values():
    documented = """retry retry_exhausted timeout circuit_open circuit_half_open circuit_closed fallback_used
        bulkhead_rejected rate_limited cache_hit cache_miss success failure slow_call"""
    assert {kind.value for kind in EventType} == {*documented.split(), "cancelled"}
    assert EventType.RETRY == "retry" and str(EventType.RETRY) == "retry" and f"{EventType.RETRY}" == "retry"
