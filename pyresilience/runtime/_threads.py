"""Worker threads for functions that block: daemon, pooled, bounded, never interrupted.

A function that outlives its deadline is abandoned: nobody waits for it any more, and its thread comes back to the
pool when it ends. The threads are daemons, so the interpreter exits without waiting for them (the threads of
`concurrent.futures` and of anyio on asyncio keep it alive).
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import OrderedDict
from contextvars import ContextVar, copy_context
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any

from pyresilience.runtime import _sources as sources
from pyresilience.runtime._hold import Hold

if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SECONDS = 10.0
QUEUE_LIMIT = 1000
DEFAULT_SIZE = 32

ambient_deadline: ContextVar[float] = ContextVar("ambient_deadline", default=inf)
"""Deadline, in nanoseconds of our clock, of the guarded function that this code runs in."""

_this_thread = threading.local()


class JobState(Enum):
    QUEUED = 0
    RUNNING = 1
    ENDED = 2
    CALLED_OFF = 3
    """The caller went away before the start; the job never runs."""
    ABANDONED = 4
    """The caller went away before the end."""


class Job:
    """One function to run, and who is told when it has ended."""

    __slots__ = (
        "args",
        "context",
        "deadline",
        "error",
        "fn",
        "hold",
        "kwargs",
        "pools",
        "sources",
        "state",
        "value",
        "wake",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wake: Callable[[], None],
        deadline: float,
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.wake = wake
        self.deadline = deadline
        self.sources = sources.current
        self.pools: tuple[WorkerPool, ...] = getattr(_this_thread, "pools", ())
        self.context = copy_context()
        self.hold = Hold()
        self.state = JobState.QUEUED
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.context.run(self._call)
        except BaseException as error:
            self.error = error

    def _call(self) -> Any:
        ambient_deadline.set(self.deadline)
        sniffio = sys.modules.get("sniffio")  # anyio does without it as well
        if sniffio is not None:
            # The caller's context says that its event loop runs here, which it does not.
            sniffio.current_async_library_cvar.set(None)
        return self.fn(*self.args, **self.kwargs)

    def outcome(self) -> Any:
        """The value that the function returned, or its error raised."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self.value


class PoolExhausted(Exception):
    """The pool cannot take the job. `detail` says why: `abandoned`, `nested`, `queue full` or `no thread`."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class _Worker:
    __slots__ = ("job", "lock", "pool")

    def __init__(self, pool: WorkerPool, job: Job) -> None:
        self.pool = pool
        self.job: Job | None = job
        self.lock = threading.Lock()
        self.lock.acquire()

    def main(self) -> None:
        pool = self.pool
        job = pool.begun(self)
        if job is None:
            return
        while True:
            while job is not None:
                _this_thread.pools = (*job.pools, pool)
                job.run()
                job = pool.ended(self, job)
            if not self.lock.acquire(timeout=pool.idle_seconds) and not self._called_back():
                return
            job, self.job = self.job, None

    def _called_back(self) -> bool:
        """Idle for too long: leave, unless a job was handed over just now."""
        if self.pool.retire(self):
            return False
        return self.lock.acquire()


class WorkerPool:
    """At most `size` daemon threads, started when needed; idle ones leave after `idle_seconds`."""

    def __init__(self, size: int = DEFAULT_SIZE, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self.size = size
        self.idle_seconds = idle_seconds
        self._clear()
        _pools.add(self)

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._queue: OrderedDict[Job, None] = OrderedDict()
        self.threads = 0
        self.abandoned = 0

    def submit(self, job: Job) -> None:
        """Give the job to an idle thread, a new one, or the queue.

        Raises:
            PoolExhausted: every thread is abandoned; or the caller runs, at whatever depth, in a thread of this pool
                and would wait for another; or the system gives no more threads.
        """
        # As in the bulkhead, what an interrupt must not tear apart are statements without calls.
        worker: _Worker | None = None
        try:
            with self._lock:
                if self._idle:
                    self._hand_over(self._idle[-1], job)
                    return
                if self.threads >= self.size:
                    self._enqueue(job)
                    return
                worker = _Worker(self, job)
                job.state = JobState.RUNNING
                self.threads += 1
            job.sources.work_started()
            threading.Thread(target=worker.main, name="pyresilience-worker", daemon=True).start()
        except BaseException as error:
            if worker is not None:
                self._call_off(worker, job)
            if isinstance(error, RuntimeError) and error.__context__ is None:
                raise PoolExhausted(f"no worker thread could be started: {error}", "no thread") from None
            raise

    def _hand_over(self, worker: _Worker, job: Job) -> None:
        worker.job = job
        job.state = JobState.RUNNING
        del self._idle[-1]
        try:
            job.sources.work_started()
        finally:
            worker.lock.release()

    def _call_off(self, worker: _Worker, job: Job) -> None:
        """Starting a thread failed or was interrupted; if it runs already, it has the job and keeps it."""
        with self._lock:
            if worker.job is not job:
                return
            worker.job = None
            job.state = JobState.QUEUED
            self.threads -= 1
        job.sources.work_ended()

    def begun(self, worker: _Worker) -> Job | None:
        """Called by a new worker: its first job, or None when it was called off."""
        with self._lock:
            job, worker.job = worker.job, None
            return job

    def _enqueue(self, job: Job) -> None:
        if self.abandoned >= self.size:
            message = f"all {self.size} worker threads run functions that were abandoned"
            raise PoolExhausted(message, "abandoned")
        if self in job.pools:
            raise PoolExhausted(f"all {self.size} worker threads are busy and one of them asks for another", "nested")
        if len(self._queue) >= QUEUE_LIMIT:
            raise PoolExhausted(f"{QUEUE_LIMIT} calls wait for one of {self.size} worker threads", "queue full")
        self._queue[job] = None

    def leave(self, job: Job) -> None:
        """The caller stops waiting; the job's state then tells what became of it.

        After an interrupt it may still be `QUEUED` or `RUNNING`: then it runs to its end as if somebody waited.
        """
        with self._lock:
            if job.state is JobState.QUEUED:
                if job in self._queue:
                    del self._queue[job]
                job.state = JobState.CALLED_OFF
            elif job.state is JobState.RUNNING:
                job.state = JobState.ABANDONED
                self.abandoned += 1

    def ended(self, worker: _Worker, job: Job) -> Job | None:
        """Called by the worker. It is idle before the caller hears, so that the next call finds a warm thread."""
        with self._lock:
            abandoned = job.state is JobState.ABANDONED
            if abandoned:
                self.abandoned -= 1
            job.state = JobState.ENDED
            following = self._queue.popitem(last=False)[0] if self._queue else None
            if following is not None:
                following.state = JobState.RUNNING
            else:
                self._idle.append(worker)
        if abandoned:
            job.error = None
        job.hold.release()  # a caller that was answered in time has given nothing to it
        if not abandoned:
            _tell(job)
        if following is not None:
            following.sources.work_started()
        job.sources.work_ended()
        return following

    def retire(self, worker: _Worker) -> bool:
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self.threads -= 1
            return True


def _tell(job: Job) -> None:
    try:
        job.wake()
    except RuntimeError:
        pass  # the event loop of the caller has been closed: nobody is left to be told


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()
shared_pool = WorkerPool()


def _after_fork() -> None:
    for pool in _pools:
        pool._clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
