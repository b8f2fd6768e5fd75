"""`/health` and `/metrics`: where they are, who sees them, and what they say."""

from __future__ import annotations

import gc

import anyio
import pytest

from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    MetricsCollector,
    Pipeline,
    RateLimiterConfig,
    ResilienceConfig,
    ResilienceRegistry,
    health_check,
)
from pyresilience_middleware import Readiness, ResilienceMiddleware, create_health_app, create_metrics_app
from tests.inbound.conversation import get, hello, talk, websocket_scope


@pytest.fixture
def registry():
    registry = ResilienceRegistry()
    registry.register("payments", ResilienceConfig(circuit_breaker=CircuitBreakerConfig(), bulkhead=BulkheadConfig(2)))
    registry.register("mail", ResilienceConfig(rate_limiter=RateLimiterConfig(max_calls=1, period=60)))
    return registry


def breaker(registry, name="payments"):
    return registry.pipeline(name).find(CircuitBreaker)


async def test_health_shows_exactly_what_health_check_returns(registry):
    reply = await get(ResilienceMiddleware(hello, registry=registry, version="1.2", service_id="shop"), "/health")
    assert reply.status == 200
    assert reply.json == {
        "status": "pass",
        "version": "1.2",
        "serviceId": "shop",
        "checks": {
            "payments:circuit_breaker": [{"componentType": "component", "observedValue": "closed", "status": "pass"}],
            "payments:bulkhead": [
                {
                    "componentType": "component",
                    "observedValue": 0,
                    "observedUnit": "permits",
                    "limit": 2,
                    "status": "pass",
                }
            ],
            "mail:rate_limiter": [{"componentType": "component", "observedValue": True, "status": "pass"}],
        },
        "functions": health_check(registry),
    }
    assert reply.headers["content-type"] == "application/health+json"


async def test_an_open_circuit_is_a_warning_and_no_failure(registry):
    breaker(registry).force_open()
    app = ResilienceMiddleware(hello, registry=registry)
    reply = await get(app, "/health")
    assert (reply.status, reply.json["status"]) == (200, "warn")
    assert reply.json["checks"]["payments:circuit_breaker"][0]["status"] == "warn"
    assert (await get(app, "/health/ready")).status == 200


async def test_an_open_critical_circuit_fails_health_and_readiness_but_not_liveness(registry):
    app = ResilienceMiddleware(hello, registry=registry, critical=["payments"])
    assert (await get(app, "/health/ready")).status == 200
    breaker(registry).force_open()
    reply = await get(app, "/health")
    assert (reply.status, reply.json["status"]) == (503, "fail")
    assert reply.json["checks"]["payments:circuit_breaker"][0]["status"] == "fail"
    ready = await get(app, "/health/ready")
    assert (ready.status, ready.json) == (503, {"status": "fail"})
    for path in ("/health/live", "/health/startup"):
        assert ((await get(app, path)).status, (await get(app, path)).json) == (200, {"status": "pass"})


async def test_a_critical_circuit_that_is_due_for_a_probe_lets_requests_come_again(registry):
    """It turns half-open only when a call asks, and no call does while the instance gets no requests."""
    app = ResilienceMiddleware(hello, registry=registry, critical=["payments"])
    payments = breaker(registry)
    for _ in range(5):
        payments.record_failure()
    assert (await get(app, "/health/ready")).status == 503
    await anyio.sleep(30)
    assert payments.state.value == "open"
    assert (await get(app, "/health/ready")).status == 200
    assert (await get(app, "/health")).json["status"] == "warn"


async def test_a_used_up_limiter_and_a_full_bulkhead_are_warnings(registry):
    app = ResilienceMiddleware(hello, registry=registry)
    mail, payments = registry.pipeline("mail"), registry.pipeline("payments")
    await mail.call(anyio.sleep, 0)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(payments.call, anyio.sleep, 1)
        await anyio.sleep(0.5)
        reply = await get(app, "/health")
    assert (reply.status, reply.json["status"]) == (200, "warn")
    assert reply.json["checks"]["mail:rate_limiter"][0]["status"] == "warn"
    assert reply.json["checks"]["payments:bulkhead"][0] == {
        "componentType": "component",
        "observedValue": 2,
        "observedUnit": "permits",
        "limit": 2,
        "status": "warn",
    }
    assert reply.json["functions"] == {
        "payments": {"circuit_breaker": "closed", "in_flight": 2, "rate_limiter_available": True},
        "mail": {"circuit_breaker": None, "in_flight": 0, "rate_limiter_available": False},
    }


async def test_a_critical_name_that_does_not_exist_is_pointed_out(registry):
    reply = await get(ResilienceMiddleware(hello, registry=registry, critical=["paymnets"]), "/health")
    assert (reply.status, reply.json["status"]) == (200, "warn")
    assert "no function" in reply.json["checks"]["paymnets:circuit_breaker"][0]["output"]


async def test_without_details_only_the_status_is_told(registry):
    breaker(registry).force_open()
    app = ResilienceMiddleware(hello, registry=registry, critical=["payments"], details=False, version="1")
    reply = await get(app, "/health")
    assert (reply.status, reply.json) == (503, {"status": "fail"})


async def test_without_a_registry_all_named_pipelines_are_shown_and_the_worst_of_a_name_counts():
    gc.collect()
    healthy = Pipeline(CircuitBreakerConfig(), name="twins \ud800")
    ill = Pipeline(CircuitBreakerConfig(), name="twins \ud800")
    ill.find(CircuitBreaker).force_open()
    reply = await get(ResilienceMiddleware(hello, critical=["twins \ud800"]), "/health")
    assert reply.status == 503
    assert reply.json["checks"]["twins \ud800:circuit_breaker"][0]["observedValue"] == "open"
    assert reply.json["functions"]["twins \ud800"]["circuit_breaker"] == "open"
    del healthy


LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}


async def statuses(app):
    return [(await get(app, f"/health/{name}")).status for name in ("live", "startup", "ready")]


async def test_readiness_follows_the_lifespan():
    observed = []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def app(scope, receive, send):
        assert await receive() is messages[0]
        observed.append(await statuses(middleware))
        await send({"type": "lifespan.startup.complete"})
        observed.append(await statuses(middleware))
        assert await receive() is messages[1]
        observed.append(await statuses(middleware))
        await send({"type": "lifespan.shutdown.complete"})

    middleware = ResilienceMiddleware(app)
    assert await statuses(middleware) == [200, 200, 200]
    reply = await talk(middleware, dict(LIFESPAN), messages)
    assert [message["type"] for message in reply.messages] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert observed == [[200, 503, 503], [200, 200, 200], [200, 200, 503]]


async def test_an_app_without_lifespan_is_ready():
    async def app(scope, receive, send):
        raise AssertionError("only http")

    middleware = ResilienceMiddleware(app)
    with pytest.raises(AssertionError, match="only http"):
        await talk(middleware, dict(LIFESPAN), [{"type": "lifespan.startup"}])
    assert await statuses(middleware) == [200, 200, 200]


async def test_an_app_whose_startup_failed_is_not_ready():
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    middleware = ResilienceMiddleware(app)
    await talk(middleware, dict(LIFESPAN))
    assert await statuses(middleware) == [200, 503, 503]


async def test_draining_is_seen_by_load_balancers_while_requests_are_served():
    readiness = Readiness()
    app = ResilienceMiddleware(hello, readiness=readiness)
    admin = create_health_app(readiness=readiness)
    app.drain()
    assert "draining=True" in repr(readiness)
    assert (await get(app)).status == 200
    assert (await get(app, "/health/ready")).status == 503
    assert (await get(admin, "/health/ready")).status == 503
    assert (await get(admin, "/health/live")).status == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/startup", "/metrics"])
async def test_endpoints_answer_get_and_head_only(path):
    app = ResilienceMiddleware(hello, metrics=MetricsCollector(), registry=ResilienceRegistry())
    full = await get(app, path)
    head = await get(app, path, method="HEAD")
    assert head.starts == full.starts and head.body == b"" and full.body
    assert full.headers["content-length"] == str(len(full.body))
    assert full.headers["cache-control"] == "no-store" and full.headers["x-content-type-options"] == "nosniff"
    for method in ("POST", "OPTIONS", "DELETE", "get"):
        refused = await get(app, path, method=method)
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "root_path", "owned"),
    [
        ("/metrics", "", True),
        ("/metrics/", "", False),
        ("//metrics", "", False),
        ("/./metrics", "", False),
        ("/metrics;x", "", False),
        ("/metrics\x00", "", False),
        ("/metrics\r\n", "", False),
        ("/Metrics", "", False),
        ("metrics", "", False),
        ("", "", False),
        ("/api/metrics", "", False),
        ("/api/metrics", "/api", True),
        ("/api/metrics", "/api/", True),
        ("/metrics", "/proxy", True),
        ("/api/metrics", "/proxy/api", False),
        ("/apimetrics", "/api", False),
        ("/metrics", "/metrics", False),
        ("/metrics", "/met", True),
        ("/metrics", "/", True),
        ("/metrics", None, True),
    ],
)
async def test_an_endpoint_is_an_exact_path_below_root_path(path, root_path, owned):
    reply = await get(ResilienceMiddleware(hello), path, root_path=root_path)
    assert (reply.body != b"ok") is owned


async def test_paths_are_configurable_and_endpoints_can_be_left_out():
    app = ResilienceMiddleware(hello, metrics=None, health_path=None)
    for path in ("/metrics", "/health", "/health/live", "/health/ready", "/health/startup"):
        assert (await get(app, path)).body == b"ok"
    app = ResilienceMiddleware(hello, metrics_path="/-/metrics", health_path="/-/health")
    for path, owned in (("/-/metrics", True), ("/-/health/live", True), ("/metrics", False), ("/health", False)):
        assert ((await get(app, path)).body != b"ok") is owned


async def test_whoever_has_no_access_finds_nothing():
    def from_inside(scope):
        return scope["client"] == ("10.0.0.1", 1)

    for app in (
        ResilienceMiddleware(hello, access=from_inside),
        create_metrics_app(access=from_inside),
        create_health_app(access=from_inside),
    ):
        path = "/health" if (await get(app, "/health", client=("10.0.0.1", 1))).status == 200 else "/metrics"
        assert (await get(app, path, client=("10.0.0.1", 1))).status == 200
        for method in ("GET", "HEAD", "POST"):
            assert (await get(app, path, client=("10.0.0.2", 1), method=method)).status == 404


@pytest.mark.parametrize("answer", [1, "yes", object()])
async def test_access_is_granted_by_true_alone(answer):
    assert (await get(ResilienceMiddleware(hello, access=lambda scope: answer), "/health")).status == 404


async def test_an_access_check_that_raises_refuses_and_is_logged(caplog):
    def check(scope):
        raise LookupError("no such token")

    assert (await get(ResilienceMiddleware(hello, access=check), "/health")).status == 404
    assert "no such token" in caplog.text


async def test_endpoints_are_answered_before_any_policy():
    bulkhead = Bulkhead(BulkheadConfig(max_concurrent=1))
    app = ResilienceMiddleware(hello, pipeline=Pipeline(bulkhead))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Pipeline(bulkhead).call, anyio.sleep, 10)
        await anyio.sleep(1)
        assert (await get(app)).status == 503
        assert (await get(app, "/health/live")).status == 200
        assert (await get(app, "/metrics")).status == 200


async def test_the_standalone_apps_serve_nothing_else():
    for app, path in ((create_metrics_app(), "/metrics"), (create_health_app(), "/health")):
        assert (await get(app, path)).status == 200
        assert (await get(app, "/")).status == 404
        lifespan = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        reply = await talk(app, dict(LIFESPAN), lifespan)
        assert [message["type"] for message in reply.messages] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        (closed,) = (await talk(app, websocket_scope())).messages
        assert closed["type"] == "websocket.close"
        with pytest.raises(RuntimeError, match="carrier pigeon"):
            await talk(app, {"type": "carrier pigeon"})


async def test_other_scopes_pass_through_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    scope = {"type": "carrier pigeon"}
    await ResilienceMiddleware(app)(scope, talk, hello)
    assert seen == [(scope, talk, hello)] and scope == {"type": "carrier pigeon"}


async def async_access(scope):
    return False


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"access": async_access}, TypeError, "access"),
        ({"access": "admin"}, TypeError, "access"),
        ({"namespace": "my-app"}, ValueError, "namespace.*my-app"),
        ({"metrics": "yes"}, TypeError, "metrics.*'yes'"),
        ({"health_path": "health"}, ValueError, "health_path.*'health'"),
        ({"metrics_path": "/"}, ValueError, "metrics_path.*'/'"),
        ({"critical": "payments"}, TypeError, "critical.*'payments'"),
        ({"critical": 5}, TypeError, "critical.*5"),
        ({"critical": [5]}, TypeError, "critical.*5"),
        ({"registry": 5}, TypeError, "registry.*5"),
        ({"readiness": 5}, TypeError, "readiness.*5"),
        ({"details": "no"}, TypeError, "details.*'no'"),
        ({"version": 5}, TypeError, "version.*5"),
        ({"service_id": 5}, TypeError, "service_id.*5"),
        ({"context": 5}, TypeError, "context.*5"),
        ({"trust_trace": 1}, TypeError, "trust_trace.*1"),
        ({"namespace": 5}, TypeError, "namespace.*5"),
        ({"health_path": 5}, TypeError, "health_path.*5"),
        ({"metrics_path": "/health"}, ValueError, "'/health' is the path of another endpoint"),
        ({"metrics_path": "/health/live"}, ValueError, "'/health/live' is the path of another endpoint"),
        ({"pipeline": BulkheadConfig()}, TypeError, "pipeline.*BulkheadConfig"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ResilienceMiddleware(hello, **options)
