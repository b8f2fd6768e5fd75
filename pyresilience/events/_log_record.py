"""Lines for a log, in records of which most is known beforehand."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from logging import LogRecord
from types import FunctionType, MethodType
from typing import cast


class LineLog:
    """Logs lines at one level of a logger, all from one place in the code.

    `LogRecord` takes the path of the file apart for each record, which costs more than all it learns of the moment.
    Here the path is taken apart once, and a record gets the fields that it would have. As soon as anybody has a say in
    how records are made (a factory, an overridden or patched `makeRecord`, a switch of `logging`, a Python whose
    records have other fields), they are made that way.

    Args:
        logger: its `makeRecord` and `handle` are called as its `log` would.
        level: of all lines. If it is renamed, records show that within a second.
        path, function: the place, as in a record's `pathname` and `funcName`; its `lineno` is 0.
    """

    __slots__ = ("_epoch", "_filename", "_function", "_known", "_level", "_logger", "_module", "_path", "_task_names")

    def __init__(self, logger: logging.Logger, level: int, path: str, function: str) -> None:
        first = LogRecord(logger.name, level, path, 0, "", (), None, function)
        self._logger = logger
        self._level = level
        self._path = path
        self._function = function
        self._filename = first.filename
        self._module = first.module
        self._epoch = first.created - first.relativeCreated / 1000
        self._task_names = hasattr(first, "taskName")
        self._known = (math.inf, "", 0, 0)

    def __reduce__(self) -> tuple[object, ...]:
        return LineLog, (self._logger, self._level, self._path, self._function)

    def log(self, line: str) -> None:
        """Log a line as it is. The logger is enabled for the level."""
        logger = self._logger
        make = logger.makeRecord
        if not (
            type(make) is MethodType  # a patch may look like a method
            and make.__func__ is _make_record
            and logging.getLogRecordFactory() is LogRecord
            and logging.logThreads
            and logging.logProcesses
            and logging.logMultiprocessing
        ):
            logger.handle(make(logger.name, self._level, self._path, 0, line, (), None, self._function))
            return
        now = time.time()
        second, level_name, process, forks = self._known
        if not 0.0 <= now - second < 1.0 or forks != _forks:
            second, level_name, process, _ = self._known = self._ask(now)
        record = _new(LogRecord)
        record.name = logger.name
        record.msg = line
        record.args = ()
        record.levelname = level_name
        record.levelno = self._level
        record.pathname = self._path
        record.filename = self._filename
        record.module = self._module
        record.exc_info = None
        record.exc_text = None
        record.stack_info = None
        record.lineno = 0
        record.funcName = self._function
        record.created = now
        record.msecs = (now - second) * 1000 // 1
        record.relativeCreated = (now - self._epoch) * 1000
        record.thread = threading.get_ident()
        record.threadName = threading.current_thread().name
        record.processName = _process_name() if "multiprocessing" in sys.modules else "MainProcess"
        record.process = process
        if self._task_names:
            record.taskName = _task_name()
        logger.handle(record)

    def _ask(self, now: float) -> tuple[float, str, int, int]:
        """What is asked once in a second: when it began, the name of the level, and the process.

        A system call for each record would be dear. A process knows when it was forked, unless that was done behind
        the back of Python, as some servers do.
        """
        return now // 1, logging.getLevelName(self._level), os.getpid(), _forks


def _process_name() -> str | None:
    try:
        return cast("str | None", sys.modules["multiprocessing"].current_process().name)
    except Exception:  # it may be half imported
        return "MainProcess"


def _task_name() -> str | None:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not getattr(logging, "logAsyncioTasks", True):
        return None
    try:
        return cast("str | None", asyncio.current_task().get_name())
    except Exception:  # no loop, or no task
        return None


# ---------------------------------------------------------------------- whether records are what this module knows

_FIELDS = (
    *("name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module", "exc_info", "exc_text"),
    *("stack_info", "lineno", "funcName", "created", "msecs", "relativeCreated"),
    *("thread", "threadName", "processName", "process"),
    *(("taskName",) if sys.version_info >= (3, 12) else ()),
)


def _of_logging(function: object) -> bool:
    """Whether a function was neither replaced nor wrapped."""
    return isinstance(function, FunctionType) and function.__globals__ is logging.__dict__


def _method_known() -> FunctionType | None:
    """The `makeRecord` that makes records such as `LineLog` does, if there is one."""
    method = logging.Logger.makeRecord
    fields = tuple(vars(LogRecord("", 0, "", 0, "", (), None)))
    known = fields == _FIELDS and _of_logging(LogRecord.__init__) and _of_logging(method)
    return cast("FunctionType", method) if known else None


_make_record = _method_known()
_new = LogRecord.__new__
_forks = 0


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
