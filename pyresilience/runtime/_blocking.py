"""The blocking side: waiting blocks the thread, so no coroutine of a pipeline ever suspends."""

from __future__ import annotations

import asyncio
import threading
import types
import warnings
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from pyresilience.runtime import _sources as sources
from pyresilience.runtime._protocol import DeadlineExpired, Limit, Waiter
from pyresilience.runtime._threads import Job, JobState, PoolExhausted, WorkerPool, ambient_deadline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Generator

    from pyresilience.pipeline._call import Call

R = TypeVar("R")


class BlockingWaiter:
    """A thread that parks. Waking it twice is harmless, and so is another try after an interrupt."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        try:
            sources.current.unpark(self._lock)
        except RuntimeError:
            pass  # woken already: the lock is free

    def park(self, seconds: float) -> bool:
        return sources.current.park(self._lock, None if seconds == inf else seconds)


class CarriedStopIteration(Exception):
    """A `StopIteration` of the guarded function on its way through coroutines, which would turn it into
    `RuntimeError`. `unwrap` gives the original back; it never leaves the pipeline."""

    def __init__(self, original: StopIteration) -> None:
        super().__init__(original)
        self.original = original


def unwrap(error: BaseException) -> BaseException:
    """What the guarded function raised."""
    return error.original if isinstance(error, CarriedStopIteration) else error


def drive(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never suspends, as none does under the blocking runtime."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine of the blocking runtime suspended")


Driver = Callable[["Coroutine[Any, Any, Any]"], Any]


def new_driver() -> Driver:
    """A parked generator: runs one coroutine at a time and gives its result, until an exception ends it.

    `coroutine.send(None)` would raise the result in a `StopIteration`, which costs a fifth of a guarded call.
    """
    driver: Any = _drive()
    driver.send(None)
    send: Driver = driver.send
    return send


@types.coroutine
def _drive() -> Generator[Any, Any, None]:
    coroutine = yield
    while True:
        coroutine = yield (yield from coroutine)


def event_loop_is_running() -> bool:
    """Whether an event loop of asyncio or trio runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        from anyio.lowlevel import current_token

        try:
            current_token()
        except RuntimeError:  # anyio.NoEventLoopError is one
            return False
    return True


class BlockingRuntime:
    """Blocks the calling thread. Deadlines are numbers; each wait takes the smaller of its own limit and theirs."""

    def waiter(self) -> Waiter:
        return BlockingWaiter()

    async def wait(self, waiter: Waiter, seconds: float, deadline: float) -> bool:
        assert isinstance(waiter, BlockingWaiter)
        deadline = min(deadline, ambient_deadline.get())
        left = sources.seconds_until(deadline)
        if waiter.park(min(seconds, left)):
            return True
        if left < seconds:
            raise DeadlineExpired(deadline)
        return False

    async def sleep(self, seconds: float, deadline: float) -> None:
        if self.stalls_event_loop():
            warnings.warn(
                f"a guarded sync function sleeps {seconds:.2f}s between attempts in a thread that runs an event "
                "loop; guard an async function instead, or call it in a worker thread",
                RuntimeWarning,
                stacklevel=2,
            )
        await self.wait(BlockingWaiter(), seconds, deadline)

    def remaining(self, deadline: float) -> float:
        deadline = min(deadline, ambient_deadline.get())
        return inf if deadline == inf else sources.seconds_until(deadline)

    def stalls_event_loop(self) -> bool:
        return event_loop_is_running()

    async def bounded(self, limit: Limit, call: Call[Any], call_next: Callable[[Call[Any]], Awaitable[R]]) -> R:
        outer = call.deadline
        own = outer if limit.total else sources.now() + limit.nanoseconds
        if own > outer or (own == outer and not limit.total):
            return await call_next(call)  # the deadline outside is earlier: its owner enforces it
        call.deadline = own
        try:
            result = await call_next(call)
        except DeadlineExpired as expired:
            if expired.deadline != own:
                raise
        else:
            if not limit.in_thread or sources.now() < own:
                return result
        finally:
            call.deadline = outer
        raise limit.expired(call)


async def invoke_inline(call: Call[Any]) -> Any:
    """The innermost step of a sync pipeline in which nothing sets a deadline: the function, in the caller's thread."""
    call.ran = call.attempt
    call.ending = None
    try:
        return call.binding.fn(*call.args, **call.kwargs) if call.kwargs else call.binding.fn(*call.args)
    except StopIteration as error:
        raise CarriedStopIteration(error) from None


async def invoke_blocking(call: Call[Any]) -> Any:
    """The innermost step of any other sync pipeline: with a deadline the function runs in a worker thread."""
    deadline = call.deadline
    if deadline == inf:
        return await invoke_inline(call)
    pool = call.binding.pipeline.pool
    if sources.now() >= deadline:
        raise DeadlineExpired(deadline)
    if pool is not None:
        return _in_worker(call, pool, deadline)
    token = ambient_deadline.set(min(deadline, ambient_deadline.get()))  # opted out: the function can only read it
    try:
        return await invoke_inline(call)
    finally:
        ambient_deadline.reset(token)


def _in_worker(call: Call[Any], pool: WorkerPool, deadline: float) -> Any:
    waiter = BlockingWaiter()
    deadline = min(deadline, ambient_deadline.get())
    job = Job(call.binding.fn, call.args, call.kwargs, waiter.wake, deadline)
    earlier = call.stragglers
    try:
        call.stragglers = (*earlier, job.hold)  # before the hand-over: an interrupt leaves the permits to the worker
        try:
            pool.submit(job)
        except PoolExhausted as full:
            raise call.pool_exhausted(full) from None
        waiter.park(sources.seconds_until(deadline))
    finally:
        try:
            pool.leave(job)
        finally:
            state = job.state
            if state is JobState.ENDED or state is JobState.CALLED_OFF:
                call.stragglers = earlier
            if state is not JobState.CALLED_OFF:
                call.ran = call.attempt
                call.ending = None
    if state is not JobState.ENDED:
        raise DeadlineExpired(deadline)
    try:
        return job.outcome()
    except StopIteration as error:
        raise CarriedStopIteration(error) from None
