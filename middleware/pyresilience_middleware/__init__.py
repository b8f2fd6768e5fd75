"""pyresilience around requests: ASGI middleware for what comes in, transports for what goes out."""

from pyresilience_middleware.inbound.asgi import ResilienceMiddleware
from pyresilience_middleware.inbound.context import request_context
from pyresilience_middleware.inbound.endpoints import create_health_app, create_metrics_app
from pyresilience_middleware.inbound.exchange import ServerErrorResponse
from pyresilience_middleware.inbound.health import Readiness
from pyresilience_middleware.inbound.responses import install_exception_handlers, problem_for

__all__ = [
    "Readiness",
    "ResilienceMiddleware",
    "ServerErrorResponse",
    "create_health_app",
    "create_metrics_app",
    "install_exception_handlers",
    "problem_for",
    "request_context",
]
