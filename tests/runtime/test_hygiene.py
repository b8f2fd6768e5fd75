"""What a call leaves behind: nothing. And what importing the package does: nothing either."""

from __future__ import annotations

import ast
import asyncio
import gc
import pathlib
import subprocess
import sys
import textwrap
import weakref

import anyio
import pytest

import pyresilience
from pyresilience import (
    BulkheadConfig,
    CacheConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    FallbackConfig,
    Pipeline,
    RateLimiterConfig,
    RateLimitExceededError,
    RetryConfig,
    TimeoutConfig,
    resilient,
)
from tests.lab import After, Lab

SOURCES = pathlib.Path(pyresilience.__file__).parent


def forced_open():
    breaker = CircuitBreaker()
    breaker.force_open()
    return breaker


def answered(limiter):
    """A pipeline with a layer that answers in place of a refusal, further in than the fallback would."""

    async def answer(call, call_next):
        try:
            return await call_next(call)
        except RateLimitExceededError:
            return "refused"

    return Pipeline(answer, limiter)


STANDARD = {
    "retry": RetryConfig(max_attempts=2, delay=0.1),
    "circuit_breaker": CircuitBreakerConfig(failure_threshold=10**9),
    "rate_limiter": RateLimiterConfig(max_calls=10**6),
    "bulkhead": BulkheadConfig(max_concurrent=5),
    "timeout": TimeoutConfig(seconds=1, total=3),
}

ENDINGS = {
    "value": (STANDARD, "ok"),
    "error": (STANDARD, ValueError),
    "timeout": (STANDARD, After(9)),
    "timeout alone": ({"timeout": TimeoutConfig(seconds=1)}, After(9)),
    "total timeout": ({"timeout": TimeoutConfig(seconds=1, per_attempt=False)}, After(9)),
    "fallback": ({**STANDARD, "fallback": FallbackConfig(handler=lambda error: type(error))}, ValueError),
    "fallback that raises": ({"fallback": FallbackConfig(handler=lambda error: 1 / 0)}, ValueError),
    "open circuit": ({"circuit_breaker": forced_open}, "ok"),
    "rate limit": ({"rate_limiter": RateLimiterConfig(max_calls=1, period=1e6)}, "ok"),
    "refusal that a layer answers": (lambda: answered(RateLimiterConfig(max_calls=1, period=1e6)), "ok"),
    "cache hit": ({"cache": CacheConfig()}, "ok"),
    "cached error": ({"cache": CacheConfig(), **STANDARD}, ValueError),
    "bad result": ({"retry": RetryConfig(max_attempts=2, delay=0, retry_on_result=lambda value: True)}, "bad"),
    "stop iteration": (STANDARD, StopIteration),
}


def fresh(script):
    """Errors as a function would raise them: a new object each time, with a traceback."""
    return script() if isinstance(script, type) else script


@pytest.mark.parametrize("kind", ["asyncio", "trio", "blocking"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_call_leaves_no_reference_cycles(kind, ending):
    """Without the garbage collector everything about a call goes away at once."""
    parts, step = ENDINGS[ending]
    if ending == "stop iteration" and kind != "blocking":
        step = LookupError  # a coroutine cannot raise StopIteration
    lab = Lab(kind)
    if callable(parts):
        pipeline = parts()
    else:
        pipeline = resilient(**{name: part() if callable(part) else part for name, part in parts.items()})

    def plain():
        if isinstance(step, After):
            lab.time.sleep(step.seconds)
        elif isinstance(step, type):
            raise step
        return step

    async def asynchronous():
        if isinstance(step, After):
            await anyio.sleep(step.seconds)
        elif isinstance(step, type):
            raise step
        return step

    guarded = pipeline(plain if lab.blocking else asynchronous)

    async def once():
        try:
            await lab.call(guarded)
        except Exception:
            pass
        if lab.blocking:
            lab.time.sleep(20)

    async def main():
        for _ in range(3):
            await once()
        await lab.sleep(0.5)
        gc.collect()
        earlier = {id(item) for item in gc.get_objects()}  # what threads of other tests may let go meanwhile
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(20):
                await once()
            await lab.sleep(0.5)
            gc.collect()
            garbage = [item for item in gc.garbage if id(item) not in earlier]
            return [item for item in garbage if "pyresilience" in repr(type(item)) or is_ours(item)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    left = []

    async def scenario():
        left.extend(await main())

    lab.run(scenario)
    assert left == []


def is_ours(item):
    """Frames and tracebacks that lead through our code, or through a test's."""
    frame = getattr(item, "tb_frame", item)
    code = getattr(frame, "f_code", None)
    return code is not None and ("pyresilience" in code.co_filename or "test_hygiene" in code.co_filename)


@pytest.mark.parametrize("kind", ["asyncio", "blocking"])
def test_memory_stays_flat(kind):
    """Less than one block per thousand calls, failures included."""
    pipeline = resilient(**{**STANDARD, "timeout": TimeoutConfig(seconds=60) if kind == "asyncio" else None})
    turn = 0

    def answer():
        nonlocal turn
        turn += 1
        if turn % 50 == 0:
            raise ValueError
        return "ok"

    async def asynchronous():
        return answer()

    guarded = pipeline(answer if kind == "blocking" else asynchronous)
    lab = Lab(kind)

    async def many(calls):
        for _ in range(calls):
            try:
                await lab.call(guarded)
            except ValueError:
                pass

    async def scenario():
        await many(500)
        gc.collect()
        before = sys.getallocatedblocks()
        await many(4000)
        gc.collect()
        assert sys.getallocatedblocks() - before < 40

    lab.run(scenario)


def test_a_closed_loop_is_not_kept_alive_by_more_than_the_last_timeout():
    """State per loop goes when the next loop comes."""
    pipeline = Pipeline(TimeoutConfig(seconds=5))
    (timeout,) = pipeline.layers

    async def quick():
        return "ok"

    for _ in range(5):
        assert asyncio.run(pipeline.call(quick)) == "ok"
    assert len(timeout.queues) == 1


def test_a_closed_loop_goes_as_well_when_a_limit_of_another_duration_is_used():
    async def quick():
        return weakref.ref(asyncio.get_running_loop())

    async def nothing():
        pass

    seen = asyncio.run(Pipeline(TimeoutConfig(seconds=5)).call(quick))
    asyncio.run(Pipeline(TimeoutConfig(seconds=6)).call(nothing))
    gc.collect()
    assert seen() is None


def test_importing_starts_no_thread_and_imports_nothing_optional():
    script = """
        import sys, threading
        import pyresilience
        optional = {"trio", "orjson", "prometheus_client", "opentelemetry", "httpx", "httpx2", "starlette", "rich"}
        print(threading.active_count(), sorted(optional & sys.modules.keys()))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "1 []\n"


def modules():
    for path in sorted(SOURCES.rglob("*.py")):
        yield path.relative_to(SOURCES).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree, name):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] == name for alias in node.names):
                yield node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == name:
            yield node


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("time", {"runtime/_sources.py", "events/_log_record.py"}),  # the time of a record is that of `logging`
        ("random", {"runtime/_sources.py"}),
        ("concurrent", set()),
        ("trio", {"_testing_trio.py"}),
        ("sniffio", {"runtime/_threads.py"}),
        ("asyncio", {"runtime/_anyio.py", "runtime/_blocking.py", "runtime/_deadlines.py", "_testing_asyncio.py"}),
    ],
)
def test_the_outside_is_touched_in_few_places(module, allowed):
    """Time, randomness and event loops come through one seam, which is what makes virtual time possible."""
    users = {name for name, tree in modules() if any(imports_of(tree, module))}
    assert users <= allowed


def test_nothing_waits_or_starts_threads_behind_the_runtimes_back():
    """No `asyncio.sleep` in policies, no event or condition of `threading`, and threads are started in one place."""
    forbidden = {
        ("asyncio", "sleep"), ("asyncio", "timeout"), ("asyncio", "wait_for"), ("asyncio", "to_thread"),
        ("threading", "Event"), ("threading", "Condition"), ("threading", "Semaphore"), ("threading", "Timer"),
        ("to_thread", "run_sync"),
    }  # fmt: skip
    threads = set()
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = (node.value.id, node.attr)
                if (name, *used) == ("runtime/_anyio.py", "asyncio", "sleep"):
                    continue  # what anyio itself does there
                assert used not in forbidden, f"{name}:{node.lineno} uses {'.'.join(used)}"
                if used == ("threading", "Thread"):
                    threads.add(name)
    assert threads <= {"runtime/_threads.py", "testing.py"}
