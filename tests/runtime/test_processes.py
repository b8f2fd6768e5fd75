"""What a whole process does: it exits in spite of hung functions, and a fork starts with nothing in flight."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest


def run(script, *, seconds=20.0):
    """Run a script in an interpreter of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


HUNG = """
    import sys, threading, time
    import anyio
    from pyresilience import Pipeline, ResilienceTimeoutError, TimeoutConfig

    pipeline = Pipeline(TimeoutConfig(seconds=0.05))

    def hang():
        threading.Event().wait()

    async def main():
        try:
            await pipeline.call(hang)
        except ResilienceTimeoutError:
            print("timed out")

    kind = {kind!r}
    if kind == "blocking":
        try:
            pipeline.call_sync(hang)
        except ResilienceTimeoutError:
            print("timed out")
    else:
        anyio.run(main, backend=kind)
    assert pipeline.pool.abandoned == 1
    print(time.monotonic())
"""


@pytest.mark.parametrize("kind", ["asyncio", "trio", "blocking"])
def test_a_hung_function_does_not_keep_the_process_alive(kind):
    """From the end of the program to the end of the process: two seconds at the most."""
    answer, ended = run(HUNG.format(kind=kind)).split("\n")[:2]
    assert answer == "timed out"
    assert time.monotonic() - float(ended) < 2


def test_a_process_exits_while_workers_are_busy():
    """Threads that print and take locks until the last moment do not crash the interpreter's shutdown."""
    run("""
        import threading
        from pyresilience import Pipeline, ResilienceTimeoutError, TimeoutConfig

        pipeline = Pipeline(TimeoutConfig(seconds=0.02, pool_size=4))
        lock = threading.Lock()

        def busy():
            while True:
                with lock:
                    [str(number) for number in range(100)]

        for _ in range(4):
            try:
                pipeline.call_sync(busy)
            except ResilienceTimeoutError:
                pass
    """)


def test_a_loop_that_is_closed_while_its_function_runs_is_left_in_peace():
    """The worker ends after the loop is gone: no noise, and the permit comes back."""
    run("""
        import asyncio, threading, time
        from pyresilience import Bulkhead, Pipeline, TimeoutConfig

        bulkhead = Bulkhead()
        pipeline = Pipeline(bulkhead)
        gate = threading.Event()
        running = threading.Event()

        def work():
            running.set()
            gate.wait()

        async def main():
            task = asyncio.ensure_future(pipeline.call(work))
            while not running.is_set():
                await asyncio.sleep(0.001)

        asyncio.run(main())
        assert bulkhead.statistics().in_use == 1
        gate.set()
        deadline = time.monotonic() + 5
        while bulkhead.statistics().in_use:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    """)


if hasattr(os, "fork"):

    def test_a_fork_begins_with_usable_locks_and_nothing_in_flight():
        """The parent forks while other threads hold every lock, permits, a probe, a flight, and worker threads."""
        out = run("""
            import os, sys, threading, time, warnings
            import pyresilience as p
            from pyresilience.pipeline import _async_root, _in_flight as in_flight, _inventory as inventory
            from pyresilience.runtime._threads import shared_pool

            gate, entered = threading.Event(), threading.Semaphore(0)
            parts = dict(
                retry=p.Retry(p.RetryConfig(max_attempts=2, delay=0), budget=p.RetryBudget()),
                circuit_breaker=p.CircuitBreaker(p.CircuitBreakerConfig(failure_threshold=1, recovery_timeout=0)),
                rate_limiter=p.RateLimiter(p.RateLimiterConfig(max_calls=1000)),
                bulkhead=p.Bulkhead(p.BulkheadConfig(max_concurrent=2)),
                cache=p.Cache(),
            )
            pipeline = p.resilient(**parts)
            timed = p.Pipeline(p.TimeoutConfig(seconds=30, pool_size=1))

            def work(key):
                if key == "quick":
                    return "quick"
                if key == "bad":
                    raise KeyError
                entered.release()
                gate.wait()

            guarded = pipeline(work)
            try:
                guarded("bad")
            except KeyError:
                pass
            threads = [threading.Thread(target=guarded, args=(key,), daemon=True) for key in "ab"]
            threads.append(threading.Thread(target=timed(work), args=("c",), daemon=True))
            for thread in threads:
                thread.start()
                entered.acquire()
            locks = [layer._lock for layer in pipeline.layers if hasattr(layer, "_lock")]
            locks += [parts["retry"].budget._lock, inventory._lock, timed.pool._lock, shared_pool._lock]
            locks += [inventory._pipelines._lock, *(kind._lock for kind in (*in_flight.of_calls, in_flight.held))]
            assert len(locks) == 12, len(locks)
            held, done = threading.Event(), threading.Event()

            def hold():
                for lock in locks:
                    lock.acquire()
                held.set()
                done.wait()
                for lock in locks:
                    lock.release()

            holder = threading.Thread(target=hold, daemon=True)
            holder.start()
            held.wait()
            assert inventory.pipelines
            warnings.simplefilter("ignore")
            child = os.fork()
            if child == 0:
                try:
                    assert p.get_in_flight_count() == 0
                    assert p.shutdown(timeout=0)
                    assert parts["bulkhead"].statistics().in_use == 0
                    assert guarded("quick") == "quick", "probe places and permits are free"
                    gate.set()
                    assert guarded("a") is None, "nobody waits for a flight that never lands here"
                    assert timed(work)("quick") == "quick", "the pool starts threads of its own"
                    assert parts["retry"].budget.acquire()
                    inventory._pipelines._crowded = in_flight.MOST_FREE = 0
                    assert p.Pipeline(name="another").call_sync(p.get_in_flight_count) == 1
                    os._exit(0)
                except BaseException as error:
                    print(repr(error), flush=True)
                    os._exit(1)
            done.set()
            holder.join()
            deadline = time.monotonic() + 10
            while True:
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() > deadline:
                    os.kill(child, 9)
                    os.waitpid(child, 0)
                    status = -1
                    break
                time.sleep(0.005)
            assert p.get_in_flight_count() == 3
            gate.set()
            print("child", status)
        """)
        assert out == "child 0\n"

    def test_a_call_that_forks_ends_once_in_each_process():
        """The function itself forks: the child finishes the call without giving back what it no longer holds."""
        out = run("""
            import os, warnings
            import pyresilience as p

            warnings.simplefilter("ignore")
            bulkhead = p.Bulkhead(p.BulkheadConfig(max_concurrent=3))
            pipeline = p.Pipeline(p.CircuitBreaker(), bulkhead)
            child = pipeline.call_sync(os.fork)
            statistics = bulkhead.statistics()
            assert (statistics.in_use, statistics.waiting, p.get_in_flight_count()) == (0, 0, 0)
            if child == 0:
                os._exit(0)
            print(os.waitpid(child, 0)[1])
        """)
        assert out == "0\n"

    def test_a_hold_of_a_call_that_forks_is_the_parent_s():
        """Who would release it in the child does not exist there."""
        out = run("""
            import os, warnings
            import pyresilience as p

            warnings.simplefilter("ignore")
            holds = []

            async def streaming(call, call_next):
                holds.append(call.hold())
                return await call_next(call)

            pipeline = p.Pipeline(streaming)
            child = pipeline.call_sync(os.fork)
            if child == 0:
                alone = p.get_in_flight_count() == 0 and p.shutdown(timeout=0)
                again = pipeline.call_sync(p.get_in_flight_count) == 1
                os._exit(0 if alone and again else 1)
            assert p.get_in_flight_count() == 1
            holds[0].release()
            assert p.get_in_flight_count() == 0
            print(os.waitpid(child, 0)[1])
        """)
        assert out == "0\n"
