"""Layers with equal configs share one of them; what is not certainly equal stays its own."""

from __future__ import annotations

import dataclasses

import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    Fallback,
    FallbackConfig,
    RateLimiter,
    RateLimiterConfig,
    Retry,
    RetryConfig,
    Timeout,
    TimeoutConfig,
)
from pyresilience.policies import _kept


@pytest.mark.parametrize(
    ("layer", "config"),
    [
        (Retry, lambda: RetryConfig(max_attempts=4, retry_on=(OSError, ValueError))),
        (CircuitBreaker, lambda: CircuitBreakerConfig(failure_threshold=7)),
        (Bulkhead, lambda: BulkheadConfig(max_concurrent=3)),
        (RateLimiter, lambda: RateLimiterConfig(max_calls=12)),
        (Timeout, lambda: TimeoutConfig(seconds=1.5)),
        (Fallback, lambda: FallbackConfig(handler="nothing")),
    ],
)
def test_layers_with_equal_configs_share_one(layer, config):
    first, second = layer(config()), layer(config())
    assert first is not second
    assert first.config is second.config
    assert first.config == config()


def test_what_is_equal_but_not_the_same_is_kept_apart():
    answers = [Fallback(FallbackConfig(handler=handler)).config.handler for handler in (0, False, 0.0, 1, True)]
    assert [(type(answer), answer) for answer in answers] == [
        (int, 0),
        (bool, False),
        (float, 0.0),
        (int, 1),
        (bool, True),
    ]
    assert repr(Retry(RetryConfig(delay=1)).config.delay) == "1"
    assert repr(Retry(RetryConfig(delay=1.0)).config.delay) == "1.0"


def test_a_config_that_holds_a_function_or_an_object_stays_its_own():
    @dataclasses.dataclass(frozen=True)
    class Judge:
        limit: int

        def __call__(self, value: object) -> bool:
            return value == self.limit

    for one, other in (
        (RetryConfig(retry_on_result=Judge(0)), RetryConfig(retry_on_result=Judge(0))),
        (FallbackConfig(handler=(0,)), FallbackConfig(handler=(False,))),
        (FallbackConfig(handler=[]), FallbackConfig(handler=[])),
    ):
        assert one == other
        assert one.build().config is one
        assert other.build().config is other


def test_a_config_of_a_class_derived_from_ours_stays_its_own():
    class Named(RetryConfig):
        pass

    first, second = Named(), Named()
    first_kept, second_kept = Retry(first).config, Retry(second).config
    assert (first_kept, second_kept) == (first, second)
    assert first_kept is first
    assert second_kept is second


def test_one_that_is_kept_already_stays_however_many_there_are():
    _kept._kept.clear()
    first = [Retry(RetryConfig(max_attempts=attempts)).config for attempts in range(1, _kept.MOST + 1)]
    again = [Retry(RetryConfig(max_attempts=attempts)).config for attempts in range(1, _kept.MOST + 1)]
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_no_more_than_a_few_are_kept():
    for attempts in range(1, 3 * _kept.MOST):
        assert Retry(RetryConfig(max_attempts=attempts)).config.max_attempts == attempts
        assert len(_kept._kept) <= _kept.MOST
