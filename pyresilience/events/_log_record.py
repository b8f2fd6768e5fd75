"""Log records of one place in the code: what is the same in all of them is worked out once."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from logging import LogRecord
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from types import CodeType

_INVOLVED = ("log", "_log", "findCaller", "makeRecord")
_PLACE = ("name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module")
_REST = ("exc_info", "exc_text", "stack_info", "lineno", "funcName", "created", "msecs", "relativeCreated")
_RUNNING = ("thread", "threadName", "processName", "process")
_HAS_TASK_NAME = sys.version_info >= (3, 12)
_new = LogRecord.__new__
_pid = os.getpid()  # not asked for each record: it is a call of the system


def direct_log(logger: object, level: int, code: CodeType) -> DirectLog | None:
    """A quicker `logger.log(level, ...)`, or None for a logger that makes its records in a way of its own."""
    if isinstance(logger, logging.Logger) and _as_delivered(logger) and _complete():
        return DirectLog(logger, level, code)
    return None


class DirectLog:
    """Does what `logger.log(level, message)` does, with records equal to those that it would make.

    That method walks up the stack for its caller and takes the path of the file apart, for every record: most of its
    time. Here the caller is always `code`. Whoever changes how records are made gets it their way.
    """

    def __init__(self, logger: logging.Logger, level: int, code: CodeType) -> None:
        self._logger = logger
        self._first = LogRecord(logger.name, level, code.co_filename, code.co_firstlineno, "", (), None, code.co_name)
        self._epoch = self._first.created - self._first.relativeCreated / 1000
        self._make_record = type(logger).makeRecord

    def log(self, message: str) -> bool:
        """Log, or return False where only `logger.log` will do. The logger must be enabled for the level."""
        logger = self._logger
        if not (
            type(logger).makeRecord is self._make_record
            and logging.getLogRecordFactory() is LogRecord
            and logging.logThreads
            and logging.logProcesses
            and logging.logMultiprocessing
        ):
            return False
        first = self._first
        now = time.time()
        record = _new(LogRecord)
        record.name = logger.name
        record.msg = message
        record.args = ()
        record.levelname = logging.getLevelName(first.levelno)
        record.levelno = first.levelno
        record.pathname = first.pathname
        record.filename = first.filename
        record.module = first.module
        record.exc_info = None
        record.exc_text = None
        record.stack_info = None
        record.lineno = first.lineno
        record.funcName = first.funcName
        record.created = now
        record.msecs = now % 1.0 * 1000 // 1
        record.relativeCreated = (now - self._epoch) * 1000
        record.thread = threading.get_ident()
        record.threadName = threading.current_thread().name
        record.processName = "MainProcess" if "multiprocessing" not in sys.modules else _process_name()
        record.process = _pid
        if _HAS_TASK_NAME:
            record.taskName = _task_name()
        logger.handle(record)
        return True


# Whoever looks into `vars(x)` makes reading the attributes of `x` slower from then on, hence not of the logger.


def _as_delivered(logger: logging.Logger) -> bool:
    """Its records are made by functions of `logging`, neither overridden nor patched."""
    methods = [getattr(logger, name, None) for name in _INVOLVED]
    return _of_logging(LogRecord.__init__) and all(
        isinstance(method, MethodType) and method.__self__ is logger and _of_logging(method.__func__)
        for method in methods
    )


def _of_logging(function: object) -> bool:
    return isinstance(function, FunctionType) and function.__globals__ is logging.__dict__


def _complete() -> bool:
    """`DirectLog` sets all that is in a record: a later Python may have added something."""
    fields = (*_PLACE, *_REST, *_RUNNING, *(["taskName"] if _HAS_TASK_NAME else []))
    return tuple(vars(LogRecord("", 0, "", 0, "", (), None))) == fields


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


def _after_fork() -> None:
    global _pid
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
