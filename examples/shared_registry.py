"""How do several functions that call one service share its circuit, and how do I see its state?

uv run python examples/shared_registry.py
"""

from __future__ import annotations

import json

import anyio

from pyresilience import (
    BulkheadConfig,
    CircuitBreakerConfig,
    CircuitOpenError,
    ResilienceConfig,
    ResilienceRegistry,
    health_check,
)

registry = ResilienceRegistry()
registry.register(
    "payment-api",
    ResilienceConfig(circuit_breaker=CircuitBreakerConfig(failure_threshold=2), bulkhead=BulkheadConfig()),
)
registry.set_default(ResilienceConfig(circuit_breaker=CircuitBreakerConfig()))


@registry.decorator("payment-api")
def charge(amount: int) -> str:
    raise ConnectionError("connection refused")


@registry.decorator("payment-api")
async def refund(amount: int) -> str:
    return f"{amount} refunded"


@registry.decorator("inventory-service")
async def reserve(item: str) -> str:
    await anyio.sleep(0.1)
    return f"{item} reserved"


async def main() -> None:
    try:
        print(await refund(10))
    except CircuitOpenError as error:
        print("refund was not even tried:", error)

    async with anyio.create_task_group() as group:
        group.start_soon(reserve, "tea")
        group.start_soon(reserve, "milk")
        await anyio.sleep(0.05)
        print(json.dumps(health_check(registry), indent=2))


if __name__ == "__main__":
    for number in (1, 2):
        try:
            charge(10)
        except ConnectionError as error:
            print(f"charge {number} failed:", error)
    anyio.run(main)
