"""Presets: the documented numbers, and what can be changed by keyword."""

from __future__ import annotations

import pytest

from pyresilience import (
    CacheConfig,
    FallbackConfig,
    RateLimiterConfig,
    db_policy,
    http_policy,
    llm_policy,
    queue_policy,
    resilient,
    strict_policy,
)


@pytest.mark.parametrize(
    ("preset", "timeout", "retry", "circuit"),
    [
        (http_policy, 10, (3, 0.5, 2.0, 30.0, True), (5, 30.0, 2)),
        (db_policy, 30, (2, 1.0, 1.5, 10.0, True), (3, 60.0, 1)),
        (queue_policy, 15, (5, 2.0, 2.0, 60.0, True), (10, 60.0, 3)),
        (strict_policy, 5, (1, 1.0, 2.0, 60.0, False), (3, 60.0, 1)),
        (llm_policy, 60, (4, 1.0, 2.0, 60.0, True), (5, 30.0, 2)),
    ],
)
def test_the_documented_numbers(preset, timeout, retry, circuit):
    policy = preset()
    config = policy["retry"]
    assert policy["timeout"].seconds == timeout
    assert (config.max_attempts, config.delay, config.backoff_factor, config.max_delay, config.jitter) == retry
    breaker = policy["circuit_breaker"]
    assert (breaker.failure_threshold, breaker.recovery_timeout, breaker.success_threshold) == circuit
    assert resilient(**policy)(lambda: "works")() == "works"


def test_what_comes_on_top():
    bulkhead = db_policy()["bulkhead"]
    assert (bulkhead.max_concurrent, bulkhead.max_wait) == (10, 5.0)
    assert db_policy(max_concurrent=3)["bulkhead"].max_wait == 5.0
    assert "bulkhead" not in db_policy(max_concurrent=None)
    assert not {"bulkhead", "rate_limiter", "cache"} & http_policy().keys()
    limiter = llm_policy()["rate_limiter"]
    assert (limiter.max_calls, limiter.period) == (60, 60.0)


def test_every_value_can_be_changed_by_keyword():
    listener = print
    policy = http_policy(
        timeout_seconds=1,
        max_attempts=7,
        retry_delay=0.1,
        retry_on=(OSError,),
        circuit_failure_threshold=9,
        circuit_recovery_seconds=8,
        max_concurrent=4,
        rate_limit=100,
        cache=True,
        fallback="none",
        listeners=[listener],
    )
    assert policy["timeout"].seconds == 1
    assert (policy["retry"].max_attempts, policy["retry"].delay, policy["retry"].retry_on) == (7, 0.1, (OSError,))
    assert (policy["circuit_breaker"].failure_threshold, policy["circuit_breaker"].recovery_timeout) == (9, 8)
    assert policy["bulkhead"].max_concurrent == 4
    assert (policy["rate_limiter"].max_calls, policy["rate_limiter"].period) == (100, 1.0)
    assert policy["cache"] == CacheConfig() and policy["fallback"] == FallbackConfig("none")
    assert policy["listeners"] == [listener]
    limiter, cache, fallback = RateLimiterConfig(2, 3), CacheConfig(ttl=1), FallbackConfig("x")
    given = http_policy(rate_limit=limiter, cache=cache, fallback=fallback)
    assert (given["rate_limiter"], given["cache"], given["fallback"]) == (limiter, cache, fallback)


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match=r"a preset does not take attempts; it takes cache, circuit_failure"):
        http_policy(attempts=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="cache must be True or a CacheConfig, not 5"):
        http_policy(cache=5)  # type: ignore[arg-type]
    assert llm_policy(retry_after_max_wait=float("inf"))["retry"].max_delay == 1e9


def test_language_model_results_are_retried_by_status_as_late_as_the_header_says(time):
    class Response:
        def __init__(self, status_code, **headers):
            self.status_code = status_code
            self.headers = headers

    class QuotaExhausted(Exception):
        pass

    answers = [Response(429, **{"retry-after": "7"}), Response(503), Response(200)]
    moments = []

    @resilient(**llm_policy(ignore_on=(QuotaExhausted,)))
    def complete(error=None):
        moments.append(time.seconds - 1000)
        if error:
            raise error
        return answers.pop(0)

    assert complete().status_code == 200
    assert moments == [0, 7, pytest.approx(7 + 2 * 0.55)]
    with pytest.raises(QuotaExhausted):
        complete(QuotaExhausted())
    assert len(moments) == 4
