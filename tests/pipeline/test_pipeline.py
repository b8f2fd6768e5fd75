"""Pipelines: what they are made of, what they guard, and in which order."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from contextvars import ContextVar

import anyio
import pytest

import pyresilience
from pyresilience import (
    Bulkhead,
    BulkheadConfig,
    BulkheadFullError,
    CacheConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    EventType,
    FallbackConfig,
    Pipeline,
    RateLimiterConfig,
    ResilienceConfig,
    ResilienceError,
    Retry,
    RetryBudgetConfig,
    RetryConfig,
    TimeoutConfig,
    get_in_flight_count,
    resilient,
)
from pyresilience.testing import EventRecorder
from tests.lab import After, every_runtime


@every_runtime
async def test_the_first_listed_layer_is_the_outermost(lab):
    trace = []

    def named(name):
        async def layer(call, call_next):
            trace.append(f"+{name}")
            try:
                return await call_next(call)
            finally:
                trace.append(f"-{name}")

        return layer

    fn = lab.function("ok", OSError())
    guarded = lab.pipeline(named("a"), named("b"), named("c"))(fn)
    await lab.call(guarded)
    assert trace == ["+a", "+b", "+c", "-c", "-b", "-a"]
    trace.clear()
    await lab.outcome(guarded)
    assert trace == ["+a", "+b", "+c", "-c", "-b", "-a"]


@every_runtime
async def test_an_empty_pipeline_is_transparent(lab):
    value, error = object(), OSError("theirs")
    guarded = Pipeline()(lab.function(value, error))
    assert await lab.call(guarded) is value
    assert await lab.outcome(guarded) is error
    assert not hasattr(error, "__notes__")


@every_runtime
async def test_a_layer_of_ten_lines_serves_both_colours(lab):
    class Slower:
        def __init__(self, seconds):
            self.seconds = seconds

        async def __call__(self, call, call_next):
            await call.sleep(self.seconds)
            call.kwargs = {**call.kwargs, "who": call.name}
            return await call_next(call), call.attempt

    if lab.blocking:

        def hello(who):
            return f"hello {who}"
    else:

        async def hello(who):
            return f"hello {who}"

    assert await lab.call(lab.pipeline(Slower(3))(hello)) == ("hello hello", 1)
    assert lab.now == 3


@every_runtime
async def test_a_plain_def_layer_may_return_any_awaitable(lab):
    class Ready:
        def __await__(self):
            return "at once"
            yield

    assert await lab.call(lab.pipeline(lambda call, call_next: Ready())(lab.function("never"))) == "at once"
    assert (
        await lab.call(
            lab.pipeline(functools.partial(lambda x, call, call_next: call_next(call), 1))(lab.function("ok"))
        )
        == "ok"
    )


def test_a_layer_that_suspends_under_a_sync_function_is_named(time):
    async def impatient(call, call_next):
        await anyio.lowlevel.checkpoint() if False else await Suspends()
        return await call_next(call)

    class Suspends:
        def __await__(self):
            yield

    closed = []

    async def watching(call, call_next):
        try:
            return await call_next(call)
        finally:
            closed.append(True)

    events = EventRecorder()
    pipeline = Pipeline(RetryConfig(), watching, impatient, listeners=[events])
    with pytest.raises(ResilienceError, match=r"impatient suspended while guarding a sync function.*call\.sleep"):
        pipeline.call_sync(lambda: 1)
    assert closed == [True] and not pipeline.in_flight
    assert events.sequence == [("failure", 1)]


def test_a_config_builds_a_fresh_layer_and_a_live_layer_is_shared():
    config, breaker = BulkheadConfig(), CircuitBreaker()
    one, two = Pipeline(config, breaker), Pipeline(config, breaker)
    assert one.find(Bulkhead) is not two.find(Bulkhead)
    assert one.find(CircuitBreaker) is two.find(CircuitBreaker) is breaker
    assert one.find(Retry) is None


def test_it_reads_as_it_runs():
    async def audit(call, call_next):
        return await call_next(call)

    pipeline = Pipeline(
        FallbackConfig("x"),
        CacheConfig(),
        RetryConfig(),
        audit,
        BulkheadConfig(),
        TimeoutConfig(2, total=9),
        name="shop",
    )
    assert repr(pipeline) == (
        "Pipeline('shop': Fallback('x') > Cache(max_size=256, ttl=300s) > TotalTimeout(9s) > Retry(max_attempts=3) > "
        "audit > Bulkhead(max_concurrent=10) > Timeout(2s))"
    )
    assert repr(Pipeline()) == "Pipeline()"


def test_members_that_are_neither_config_nor_layer_are_refused():
    with pytest.raises(TypeError, match="made of configs and layers, not 3"):
        Pipeline(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"did you mean RetryConfig\(...\)\?"):
        Pipeline(RetryConfig)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a listener must be callable with one event, not 'x'"):
        Pipeline(listeners=["x"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="name must be a str, not 7"):
        Pipeline(name=7)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what can be guarded


def test_methods_of_every_kind(time):
    guard = Pipeline(RetryConfig(max_attempts=2, delay=0))

    class Shop:
        name = "shop"

        @guard
        def method(self, x):
            return self.name, x

        @guard
        async def coroutine(self, x):
            return self.name, x

        @guard
        @classmethod
        def above_classmethod(cls, x):
            return cls.name, x

        @classmethod
        @guard
        def below_classmethod(cls, x):
            return cls.name, x

        @guard
        @staticmethod
        def above_staticmethod(x):
            return x

        @staticmethod
        @guard
        async def below_staticmethod(x):
            return x

        @property
        @guard
        def attribute(self):
            return self.name

    shop = Shop()
    assert shop.method(1) == Shop.above_classmethod(1) == shop.below_classmethod(1) == ("shop", 1)
    assert Shop.above_staticmethod(2) == 2 and shop.attribute == "shop"
    assert asyncio.run(shop.coroutine(3)) == ("shop", 3)
    assert asyncio.run(Shop.below_staticmethod(4)) == 4


def test_partials_and_callable_objects(time):
    events = EventRecorder()
    guard = Pipeline(RetryConfig(), listeners=[events])

    def add(a, b):
        return a + b

    async def multiply(a, b):
        return a * b

    class Plain:
        def __call__(self, x):
            return x

    class Asynchronous:
        async def __call__(self, x):
            return x

    assert guard(functools.partial(add, 1))(2) == 3
    assert guard(Plain())(5) == 5
    assert asyncio.run(guard(functools.partial(functools.partial(multiply, 3), 2))()) == 6
    assert asyncio.run(guard(Asynchronous())(7)) == 7
    assert [event.function_name for event in events.events] == ["add", "Plain", "multiply", "Asynchronous"]


def test_signature_name_and_colour_are_kept():
    guard = Pipeline(RetryConfig())

    @guard
    async def coroutine(a: int, *, b: str = "x") -> bytes:
        """Its own words."""
        return b""

    @guard
    def plain(a: int) -> int:
        return a

    assert inspect.iscoroutinefunction(coroutine) and not inspect.iscoroutinefunction(plain)
    assert coroutine.__name__ == "coroutine" and coroutine.__doc__ == "Its own words."
    assert str(inspect.signature(coroutine)) == "(a: 'int', *, b: 'str' = 'x') -> 'bytes'"
    assert inspect.unwrap(plain).__code__.co_name == "plain"


def test_what_cannot_be_guarded_is_refused_with_the_reason():
    guard = Pipeline()

    def generator():
        yield 1

    async def async_generator():
        yield 1

    class Stream:
        def __call__(self):
            yield 1

    for fn in (generator, async_generator, functools.partial(generator), Stream()):
        with pytest.raises(TypeError, match="generator function and cannot be guarded: calling it runs none"):
            guard(fn)
        with pytest.raises(TypeError, match="generator function"):
            guard.call_sync(fn)
    with pytest.raises(TypeError, match="only a callable can be guarded, not 3 of type int"):
        guard(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a class cannot be guarded"):
        guard(Stream)


async def test_a_sync_function_is_awaited_in_a_worker_thread_with_the_context_variables_of_the_task():
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    variable.set("request 7")
    seen = await Pipeline(RetryConfig()).call(lambda: (variable.get(), threading.get_ident()))
    assert seen[0] == "request 7" and seen[1] != threading.get_ident()


async def test_an_async_function_is_refused_by_call_sync():
    async def fn(): ...

    with pytest.raises(TypeError, match=r"'fn' is async: use `await pipeline.call"):
        Pipeline().call_sync(fn)


@every_runtime
async def test_recursion_and_reuse_while_running(lab):
    pipeline = lab.pipeline(RetryConfig(delay=0), BulkheadConfig(max_concurrent=5))
    if lab.blocking:

        @pipeline
        def down(n):
            return n if n == 0 else down(n - 1)
    else:

        @pipeline
        async def down(n):
            return n if n == 0 else await down(n - 1)

    assert await lab.call(down, 4) == 0
    assert isinstance(await lab.outcome(down, 5), BulkheadFullError), "refused, not deadlocked"


@every_runtime
async def test_calls_in_flight_are_counted_until_they_end(lab):
    before = get_in_flight_count()
    fn = lab.function(After(5), After(5, OSError()))
    pipeline, other = lab.pipeline(), lab.pipeline()
    guarded, elsewhere = pipeline(fn), other(lab.function(After(5)))
    seen = []

    async def watch():
        await lab.sleep(1)
        seen.append((pipeline.in_flight, other.in_flight, get_in_flight_count() - before))

    await lab.together(lambda: lab.call(guarded), lambda: lab.call(guarded), lambda: lab.call(elsewhere), watch)
    assert seen == [(2, 1, 3)]
    assert not pipeline.in_flight and get_in_flight_count() == before


@every_runtime
async def test_a_hold_postpones_permits_verdict_and_the_terminal_event(lab):
    """As a response whose body still streams."""
    breaker = CircuitBreaker(CircuitBreakerConfig(failure_threshold=1))
    bulkhead = Bulkhead(BulkheadConfig())
    holds = []

    async def streaming(call, call_next):
        result = await call_next(call)
        holds.append(call.hold())
        call.hold()
        return result

    pipeline = lab.pipeline(RetryConfig(), breaker, bulkhead, streaming)
    guarded = pipeline(lab.function("head"))
    for error, terminal in ((None, EventType.SUCCESS), (OSError("body broke"), EventType.FAILURE)):
        lab.events.clear()
        assert await lab.call(guarded) == "head"
        await lab.sleep(2)
        assert lab.events.events == [] and bulkhead.statistics().in_use == 1 and pipeline.in_flight == 1
        holds[-1].release(error)
        assert bulkhead.statistics().in_use == 1
        holds[-1].release()
        assert bulkhead.statistics().in_use == 0 and not pipeline.in_flight
        assert lab.events.types[-1] is terminal
        if error is None:
            assert lab.events.events[-1].duration == 2
    assert breaker.state.value == "open"
    with pytest.raises(RuntimeError, match="released more often"):
        holds[-1].release()


@every_runtime
@pytest.mark.parametrize("early", [True, False], ids=["released before the call returns", "released after it"])
async def test_a_call_with_a_hold_counts_once_until_its_terminal_event_is_out(lab, early):
    holds, seen = [], []

    async def streaming(call, call_next):
        result = await call_next(call)
        holds.append(call.hold())
        if early:
            holds[-1].release()
        return result

    def listener(event):
        seen.append((event.event_type, pipeline.in_flight))

    pipeline = Pipeline(streaming, listeners=[listener])
    assert await lab.call(pipeline(lab.function("head"))) == "head"
    if not early:
        assert seen == [] and pipeline.in_flight == 1
        holds[-1].release()
    assert seen == [(EventType.SUCCESS, 1)] and pipeline.in_flight == 0


# ---------------------------------------------------------------- resilient


def test_resilient_puts_the_layers_in_the_standard_order():
    pipeline = resilient(
        timeout=TimeoutConfig(2, total=9),
        bulkhead=BulkheadConfig(),
        rate_limiter=RateLimiterConfig(),
        circuit_breaker=CircuitBreakerConfig(),
        retry=RetryConfig(),
        cache=CacheConfig(),
        fallback=FallbackConfig("x"),
        retry_budget=RetryBudgetConfig(),
    )
    names = [type(layer).__name__ for layer in pipeline.layers]
    assert names == [
        "Fallback",
        "Cache",
        "TotalTimeout",
        "Retry",
        "CircuitBreaker",
        "RateLimiter",
        "Bulkhead",
        "Timeout",
    ]
    retry = pipeline.find(Retry)
    assert retry is not None and retry.budget is not None


def test_bare_resilient_is_the_default_retry(time):
    calls = []

    @resilient
    def flaky():
        calls.append(1)
        if len(calls) < 3:
            raise OSError
        return "ok"

    assert flaky() == "ok" and len(calls) == 3


def test_with_parentheses_only_what_is_named_applies(time):
    calls = []

    @resilient()
    def fails():
        calls.append(1)
        raise OSError

    with pytest.raises(OSError):
        fails()
    assert len(calls) == 1


def test_resilient_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="unexpected keywords: retries"):
        resilient(retries=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="keywords or a function, not both"):
        resilient(lambda: 1, name="x")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"resilient.timeout must be a TimeoutConfig or Timeout, not 3"):
        resilient(timeout=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="listeners must be an iterable"):
        resilient(listeners=3, retry_budget=pyresilience.RetryBudgetConfig())  # type: ignore[call-overload]


def test_listeners_may_come_from_an_iterator():
    heard = []
    resilient(retry=RetryConfig(), listeners=iter([heard.append]))(lambda: 1)()
    assert [event.event_type for event in heard] == [EventType.SUCCESS]


def test_one_resilient_object_shares_its_state_among_functions(time):
    guard = resilient(circuit_breaker=CircuitBreakerConfig(failure_threshold=1))

    @guard
    def one():
        raise OSError

    @guard
    def two():
        return "never"

    with pytest.raises(OSError):
        one()
    with pytest.raises(pyresilience.CircuitOpenError, match="two: circuit is open"):
        two()


def test_a_resilience_config_is_a_pipeline_to_be():
    assert ResilienceConfig(retry=RetryConfig(), listeners=[print]).pipeline("shop").name == "shop"


def test_a_layer_may_declare_that_it_is_for_async_functions_only(time):
    class Streaming:
        async_only = "it needs an event loop to read from"

        async def __call__(self, call, call_next):
            return await call_next(call)

    pipeline = Pipeline(Streaming())
    with pytest.raises(TypeError, match="Streaming cannot guard the sync function 'fn': it needs an event loop"):

        @pipeline
        def fn(): ...

    @pipeline
    async def coroutine():
        return "fine"

    assert asyncio.run(coroutine()) == "fine"
