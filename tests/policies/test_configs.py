"""Configs: every field refuses wrong values by name; every config is frozen, hashable, picklable."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from math import inf, nan

import pytest

import pyresilience
from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    CacheConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    Fallback,
    FallbackConfig,
    RateLimiter,
    RateLimiterConfig,
    ResilienceConfig,
    ResultCache,
    Retry,
    RetryBudget,
    RetryBudgetConfig,
    RetryConfig,
    Timeout,
    TimeoutConfig,
)

CONFIGS = [
    RetryConfig,
    TimeoutConfig,
    CircuitBreakerConfig,
    FallbackConfig,
    BulkheadConfig,
    RateLimiterConfig,
    CacheConfig,
    RetryBudgetConfig,
]


async def coroutine_function(*args: object) -> None: ...


INTEGERS_FROM_1 = [
    (RetryConfig, "max_attempts"),
    (CircuitBreakerConfig, "failure_threshold"),
    (CircuitBreakerConfig, "success_threshold"),
    (CircuitBreakerConfig, "half_open_max_calls"),
    (BulkheadConfig, "max_concurrent"),
    (RateLimiterConfig, "max_calls"),
    (CacheConfig, "max_size"),
    (RetryBudgetConfig, "max_retries"),
    (TimeoutConfig, "pool_size"),
]
INTEGERS_FROM_0 = [
    (CircuitBreakerConfig, "sliding_window_size"),
    (CircuitBreakerConfig, "minimum_calls"),
    (BulkheadConfig, "max_queue"),
    (RateLimiterConfig, "max_queue"),
]
SECONDS_FROM_0 = [
    (RetryConfig, "delay"),
    (RetryConfig, "backoff_factor"),
    (RetryConfig, "max_delay"),
    (CircuitBreakerConfig, "recovery_timeout"),
    (CircuitBreakerConfig, "slow_call_duration"),
    (CacheConfig, "ttl"),
]
UNLIMITED_FROM_0 = [(BulkheadConfig, "max_wait"), (RateLimiterConfig, "max_wait")]
ABOVE_0 = [(RateLimiterConfig, "period"), (RetryBudgetConfig, "refill_rate"), (CircuitBreakerConfig, "probe_timeout")]
UNLIMITED_ABOVE_0 = [(TimeoutConfig, "seconds"), (TimeoutConfig, "total"), (FallbackConfig, "timeout")]
RATES = [(CircuitBreakerConfig, "failure_rate_threshold"), (CircuitBreakerConfig, "slow_call_rate_threshold")]
BOOLEANS = [(RetryConfig, "jitter"), (TimeoutConfig, "per_attempt"), (TimeoutConfig, "in_thread")]
ERRORS = [
    (RetryConfig, "retry_on"),
    (RetryConfig, "ignore_on"),
    (CircuitBreakerConfig, "error_types"),
    (CircuitBreakerConfig, "ignore_on"),
    (FallbackConfig, "fallback_on"),
]
FUNCTIONS = [(RetryConfig, "retry_on_result"), (RetryConfig, "delay_func"), (CacheConfig, "key")]
NUMBERS = SECONDS_FROM_0 + UNLIMITED_FROM_0 + ABOVE_0 + UNLIMITED_ABOVE_0 + RATES


def bad_values():
    yield from ((where, bad, ValueError) for where in INTEGERS_FROM_1 for bad in (0, -1))
    yield from ((where, -1, ValueError) for where in INTEGERS_FROM_0)
    yield from ((where, bad, TypeError) for where in INTEGERS_FROM_1 + INTEGERS_FROM_0 for bad in (True, 1.5, "3", [1]))
    yield from ((where, bad, ValueError) for where in NUMBERS for bad in (nan, -1, -inf, -1e-9))
    yield from ((where, bad, TypeError) for where in NUMBERS for bad in (True, "1", [1.0], 1j))
    yield from ((where, inf, ValueError) for where in SECONDS_FROM_0 + ABOVE_0 + RATES)
    yield from ((where, 0, ValueError) for where in ABOVE_0 + UNLIMITED_ABOVE_0)
    yield from ((where, 1e300, ValueError) for where in NUMBERS)
    yield from ((where, 10**9 + 1, ValueError) for where in INTEGERS_FROM_1 + INTEGERS_FROM_0)
    yield (RateLimiterConfig, "algorithm"), 5, TypeError
    yield from ((where, 1.01, ValueError) for where in RATES)
    yield from ((where, bad, TypeError) for where in BOOLEANS for bad in (1, None, "yes"))
    yield from ((where, bad, TypeError) for where in ERRORS for bad in (None, "OSError", (1,), (int,), 3, [OSError()]))
    yield from ((where, bad, TypeError) for where in FUNCTIONS for bad in (3, "f", coroutine_function))
    yield (RateLimiterConfig, "algorithm"), "leaky", ValueError
    yield (CircuitBreakerConfig, "minimum_calls"), 5, ValueError


@pytest.mark.parametrize(("where", "bad", "error"), list(bad_values()))
def test_a_wrong_value_is_refused_with_the_field_and_the_value(where, bad, error):
    config, field = where
    with pytest.raises(error) as caught:
        config(**{field: bad})
    message = str(caught.value)
    assert f"{config.__name__}.{field} must" in message
    shown = bad[0] if isinstance(bad, (tuple, list)) and (config, field) in ERRORS else bad
    assert repr(shown) in message, message


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_is_checked_by_the_table_above(config):
    tables = INTEGERS_FROM_1 + INTEGERS_FROM_0 + NUMBERS + BOOLEANS + ERRORS + FUNCTIONS
    checked = {field for kind, field in tables if kind is config} | {"handler", "algorithm"}
    assert {field.name for field in dataclasses.fields(config)} <= checked


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_are_frozen_hashable_comparable_picklable(config):
    value = config()
    assert value == config() and hash(value) == hash(config())
    assert pickle.loads(pickle.dumps(value)) == value
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, 1)


def test_a_number_of_many_digits_is_not_shown_whole():
    with pytest.raises(ValueError, match=r"max_attempts must be at least 1 and at most 1000000000, not a number of"):
        RetryConfig(max_attempts=10**5000)
    with pytest.raises(ValueError, match=r"seconds must be more than 0 and at most 1e\+09 seconds, or inf, not a num"):
        TimeoutConfig(seconds=10**400)


@pytest.mark.parametrize("wrong", [42, [42]])
def test_listeners_that_are_none_are_refused_by_name(wrong):
    for make in (
        lambda: ResilienceConfig(listeners=wrong),
        lambda: pyresilience.resilient(listeners=wrong),
        lambda: pyresilience.Pipeline(listeners=wrong),
    ):
        with pytest.raises(TypeError, match="listener"):
            make()


def test_limits_may_be_infinite_where_they_are_durations():
    assert BulkheadConfig(max_wait=inf).max_wait == inf
    assert TimeoutConfig(inf, total=inf).seconds == inf


def test_error_types_may_be_one_class_or_a_list():
    assert RetryConfig(retry_on=OSError).retry_on == (OSError,)  # type: ignore[arg-type]
    assert RetryConfig(retry_on=[OSError, KeyError]).retry_on == (OSError, KeyError)


DEFAULTS = {
    RetryConfig: {
        "max_attempts": 3,
        "delay": 1.0,
        "backoff_factor": 2.0,
        "max_delay": 60.0,
        "jitter": True,
        "retry_on": (Exception,),
        "retry_on_result": None,
        "ignore_on": (),
        "delay_func": None,
    },
    TimeoutConfig: {"seconds": 30.0, "per_attempt": True, "pool_size": None},
    CircuitBreakerConfig: {
        "failure_threshold": 5,
        "recovery_timeout": 30.0,
        "success_threshold": 2,
        "error_types": (Exception,),
        "ignore_on": (),
        "sliding_window_size": 0,
        "failure_rate_threshold": 0.5,
        "minimum_calls": 0,
        "slow_call_duration": 0.0,
        "slow_call_rate_threshold": 1.0,
    },
    FallbackConfig: {"handler": None, "fallback_on": (Exception,)},
    BulkheadConfig: {"max_concurrent": 10, "max_wait": 0.0},
    RateLimiterConfig: {"max_calls": 10, "period": 1.0, "max_wait": 0.0},
    CacheConfig: {"max_size": 256, "ttl": 300.0},
    RetryBudgetConfig: {"max_retries": 100, "refill_rate": 10.0},
}


@pytest.mark.parametrize("config", CONFIGS)
def test_names_order_and_defaults_are_those_that_users_know(config):
    """The documented fields come first and may be given by position; what was added is keyword-only."""
    parameters = inspect.signature(config).parameters
    known = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is not parameter.KEYWORD_ONLY
    }
    assert list(known.items()) == list(DEFAULTS[config].items())


def test_resilience_config_names_the_part_that_is_wrong():
    with pytest.raises(TypeError, match=r"ResilienceConfig.retry must be a RetryConfig or Retry, not 3"):
        ResilienceConfig(retry=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="retry_budget limits retries and needs `retry`"):
        ResilienceConfig(retry_budget=RetryBudgetConfig())
    with pytest.raises(ValueError, match=r"give the budget to Retry\(config, budget=...\)"):
        ResilienceConfig(retry=Retry(), retry_budget=RetryBudgetConfig())
    with pytest.raises(TypeError, match=r"ResilienceConfig.listeners"):
        ResilienceConfig(listeners=3, retry_budget=RetryBudgetConfig())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        hash(ResilienceConfig())


def test_a_subclass_of_resilience_config_may_keep_its_parts_in_slots_or_on_the_class():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Slotted(ResilienceConfig): ...

    @dataclasses.dataclass(frozen=True)
    class Hurried(ResilienceConfig):
        timeout: TimeoutConfig = dataclasses.field(default=TimeoutConfig(2), init=False)

    assert Slotted(retry=RetryConfig()).pipeline().find(Retry) is not None
    assert Hurried().pipeline().find(Timeout) is not None
    with pytest.raises(TypeError, match=r"ResilienceConfig\.retry must be"):
        Slotted(retry=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "layer", [Retry, Timeout, CircuitBreaker, Fallback, Bulkhead, RateLimiter, RetryBudget, ResultCache]
)
def test_a_layer_takes_its_own_config_only(layer):
    layer()
    with pytest.raises(TypeError, match=r"expected a .*Config, not 3"):
        layer(3)


def test_the_public_names_are_written_down_once():
    names = {
        name
        for name in vars(pyresilience)
        if not name.startswith("_") and not inspect.ismodule(getattr(pyresilience, name))
    }
    assert names <= set(pyresilience.__all__)
    assert pyresilience.__all__ == sorted(pyresilience.__all__)
