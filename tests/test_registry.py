"""Registry and health: one name, one config, one state."""

from __future__ import annotations

import anyio
import pytest

from pyresilience import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpenError,
    Pipeline,
    RateLimiterConfig,
    ResilienceConfig,
    ResilienceRegistry,
    RetryConfig,
    health_check,
)
from pyresilience.health import inventory_health

BREAKING = ResilienceConfig(circuit_breaker=CircuitBreakerConfig(failure_threshold=1))


def test_names_configs_and_default():
    registry = ResilienceRegistry()
    assert registry.get("a") is None and registry.names == []
    with pytest.raises(KeyError, match="no config is registered under 'a' and there is no default; registered: none"):
        registry.get_or_default("a")
    default = ResilienceConfig(retry=RetryConfig())
    registry.set_default(default)
    registry.register("a", BREAKING)
    assert registry.get("a") is registry.get_or_default("a") is BREAKING
    assert registry.get_or_default("b") is default and registry.get("b") is None
    assert registry.names == ["a"]
    registry.decorator("b")(lambda: 1)
    assert registry.names == ["a", "b"] and repr(registry) == "ResilienceRegistry('a', 'b')"
    assert registry.unregister("a") and not registry.unregister("a")
    registry.clear()
    assert registry.names == []
    with pytest.raises(KeyError):
        registry.decorator("b")


def test_functions_of_one_name_share_state_sync_and_async_alike(time):
    registry = ResilienceRegistry()
    registry.register("upstream", BREAKING)

    @registry.decorator("upstream")
    def fails():
        raise OSError

    @registry.decorator("upstream")
    async def never():
        return "never"

    with pytest.raises(OSError):
        fails()

    async def main():
        with pytest.raises(CircuitOpenError, match="upstream: circuit is open"):
            await never()

    anyio.run(main)
    assert health_check(registry)["upstream"]["circuit_breaker"] == "open"


def test_a_name_registered_again_gives_new_functions_fresh_state(time):
    registry = ResilienceRegistry()
    registry.register("x", BREAKING)
    old = registry.decorator("x")(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        old()
    registry.register("x", BREAKING)
    assert registry.decorator("x")(lambda: "fresh")() == "fresh"
    with pytest.raises(CircuitOpenError):
        old()


def test_names_with_the_default_have_state_of_their_own(time):
    registry = ResilienceRegistry()
    registry.set_default(BREAKING)
    with pytest.raises(ZeroDivisionError):
        registry.decorator("one")(lambda: 1 / 0)()
    assert registry.decorator("two")(lambda: "ok")() == "ok"
    assert {name: entry["circuit_breaker"] for name, entry in health_check(registry).items()} == {
        "one": "open",
        "two": "closed",
    }


@pytest.mark.parametrize(("name", "config"), [(3, BREAKING), ("x", 3), ("x", RetryConfig())])
def test_wrong_arguments_are_refused(name, config):
    with pytest.raises(TypeError, match="must be a"):
        ResilienceRegistry().register(name, config)


def test_health_shows_the_three_facts_and_asking_changes_nothing(time):
    registry = ResilienceRegistry()
    registry.register("limited", ResilienceConfig(rate_limiter=RateLimiterConfig(max_calls=1, period=10)))
    registry.register("plain", ResilienceConfig(retry=RetryConfig()))
    seen = []

    @registry.decorator("limited")
    def fn():
        seen.append(health_check(registry))

    for _ in range(5):
        assert health_check(registry)["limited"]["rate_limiter_available"] is True
    fn()
    assert seen == [
        {
            "limited": {"circuit_breaker": None, "in_flight": 1, "rate_limiter_available": False},
            "plain": {"circuit_breaker": None, "in_flight": 0, "rate_limiter_available": True},
        }
    ]


def test_calls_in_flight_of_all_pipelines_of_a_name_count():
    one, two, other = Pipeline(name="same"), Pipeline(name="same"), Pipeline(name="other")
    seen = one.call_sync(two.call_sync, other.call_sync, two.call_sync, inventory_health)
    assert (seen["same"]["in_flight"], seen["other"]["in_flight"]) == (3, 1)


def test_the_inventory_shows_named_pipelines_that_are_in_use_the_worst_state_first():
    opened = CircuitBreaker()
    opened.force_open()
    keep = [Pipeline(opened, name="inv"), Pipeline(CircuitBreaker(), name="inv"), Pipeline(opened)]
    assert inventory_health()["inv"] == {"circuit_breaker": "open", "in_flight": 0, "rate_limiter_available": True}
    assert None not in inventory_health()
    del keep
    assert "inv" not in inventory_health()
