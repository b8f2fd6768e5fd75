"""Lines for a log, in records of which most is known beforehand."""

from __future__ import annotations

import logging
import os
import sys
import threading
from logging import LogRecord
from time import time
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
        level: of all lines.
        path, function: the place, as in a record's `pathname` and `funcName`; its `lineno` is 0.
    """

    __slots__ = ("_epoch", "_filename", "_function", "_level", "_logger", "_module", "_path", "_task_names")

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
        record = _new(LogRecord)
        record.name = logger.name
        record.msg = line
        record.args = ()
        record.levelname = logging.getLevelName(self._level)
        record.levelno = self._level
        record.pathname = self._path
        record.filename = self._filename
        record.module = self._module
        record.exc_info = None
        record.exc_text = None
        record.stack_info = None
        record.lineno = 0
        record.funcName = self._function
        record.created = now = time()
        record.msecs = now % 1.0 * 1000 // 1
        record.relativeCreated = (now - self._epoch) * 1000
        record.thread = threading.get_ident()
        record.threadName = _here.thread.name
        record.processName = _process_name() if "multiprocessing" in sys.modules else "MainProcess"
        record.process = _pid
        if self._task_names:
            record.taskName = _task_name()
        logger.handle(record)


class _Here(threading.local):
    """Asking for the current thread each time takes twice as long."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()


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
_here = _Here()
_pid = os.getpid()  # a call of the system, not to be made for each record


def _after_fork() -> None:
    global _pid
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
