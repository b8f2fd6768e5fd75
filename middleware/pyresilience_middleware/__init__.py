"""pyresilience around requests: ASGI middleware for what comes in, transports for what goes out."""

from typing import TYPE_CHECKING

from pyresilience_middleware.inbound.asgi import ResilienceMiddleware
from pyresilience_middleware.inbound.context import request_context
from pyresilience_middleware.inbound.endpoints import create_health_app, create_metrics_app
from pyresilience_middleware.inbound.exchange import ServerErrorResponse
from pyresilience_middleware.inbound.health import Readiness
from pyresilience_middleware.inbound.responses import install_exception_handlers, problem_for

if TYPE_CHECKING:
    from pyresilience_middleware.outbound.httpx import ResilienceTransport
    from pyresilience_middleware.outbound.requests import ResilienceAdapter

__all__ = [
    "Readiness",
    "ResilienceAdapter",
    "ResilienceMiddleware",
    "ResilienceTransport",
    "ServerErrorResponse",
    "create_health_app",
    "create_metrics_app",
    "install_exception_handlers",
    "problem_for",
    "request_context",
]

_NEEDS_A_CLIENT = {"ResilienceTransport": "httpx", "ResilienceAdapter": "requests"}


def __getattr__(name: str) -> object:
    """Import what needs an HTTP client only when it is asked for."""
    module = _NEEDS_A_CLIENT.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.outbound.{module}"), name)
