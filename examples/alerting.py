"""How do I get a message when a circuit opens, and only then?

uv run python examples/alerting.py
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time

from pyresilience import CircuitBreakerConfig, EventType, JsonEventLogger, ResilienceEvent, resilient


class Alerts:
    """Sends messages from a thread of its own: a listener runs within the call and must not wait for a network."""

    event_types = (EventType.CIRCUIT_OPEN, EventType.CIRCUIT_CLOSED)

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver)
        self._thread.start()

    def __call__(self, event: ResilienceEvent) -> None:
        if event.event_type is EventType.CIRCUIT_CLOSED:
            self._messages.put(f"{event.function_name} has recovered")
        elif event.detail == "opened":  # not for each call that is refused while it is open
            self._messages.put(f"{event.function_name} is down: {event.error}")

    def close(self) -> None:
        """Return when everything has been sent."""
        self._messages.put(None)
        self._thread.join()

    def _deliver(self) -> None:
        while (message := self._messages.get()) is not None:
            logging.getLogger("alert").warning(message)  # here would be a chat or a pager


alerts = Alerts()
up = False


@resilient(
    circuit_breaker=CircuitBreakerConfig(failure_threshold=3, recovery_timeout=0.2, success_threshold=1),
    listeners=[alerts, JsonEventLogger(logging.getLogger("event"))],
)
def payment_service() -> str:
    if not up:
        raise ConnectionError("connection refused")
    return "paid"


def customers(number: int) -> None:
    outcomes: list[str] = []
    for _ in range(number):
        try:
            outcomes.append(payment_service())
        except Exception as error:
            outcomes.append(type(error).__name__)
    logging.getLogger("calls").info(", ".join(outcomes))


def main() -> None:
    global up
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(name)-7s%(message)s")
    customers(5)
    up = True
    time.sleep(0.25)
    customers(1)
    alerts.close()


if __name__ == "__main__":
    main()
