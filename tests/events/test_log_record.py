"""The lines of JsonEventLogger reach handlers as if `logger.log` had been called, although it seldom is."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import pickle
import queue
import subprocess
import sys
import threading
from logging.handlers import QueueHandler
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyresilience import EventType, JsonEventLogger, ResilienceEvent
from pyresilience.events import _log_record
from pyresilience.events._log_record import direct_log

EVENT = ResilienceEvent(EventType.SUCCESS, "f", 1)
LINE = '{"event_type":"success","function_name":"f","attempt":1}'


class Keep(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


class Own(logging.Logger):
    """A subclass that changes nothing."""


def logger_of(kind=logging.Logger):
    logger = kind("test", logging.INFO)
    logger.addHandler(Keep())
    return logger


def records_of(logger):
    return logger.handlers[0].records


def caller(logger):
    logger.log(logging.INFO, "100%s")


@pytest.fixture
def clock(monkeypatch):
    """Sets the time that records get, in 512ths of a second: an exact number of nanoseconds and an exact float."""

    def set_to(ticks):
        monkeypatch.setattr("time.time", lambda: ticks / 512)
        monkeypatch.setattr("time.time_ns", lambda: ticks * 1_953_125)

    return set_to


def both(logger):
    """What `logger.log` and `direct_log` make of the same message."""
    caller(logger)
    assert direct_log(logger, logging.INFO, caller.__code__).log("100%s")
    usual, direct = (vars(record) for record in records_of(logger)[-2:])
    assert type(records_of(logger)[-1]) is logging.LogRecord
    assert direct.pop("lineno") == caller.__code__.co_firstlineno == usual.pop("lineno") - 1
    return usual, direct


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=st.integers(0, 2**40))
def test_a_record_is_the_one_that_the_logger_makes(clock, ticks):
    clock(ticks)
    usual, direct = both(logger_of())
    assert list(direct) == list(usual)
    for rounded, unit in (("created", 1e-6), ("relativeCreated", 1e-3)):  # since 3.13 from nanoseconds
        assert direct[rounded] == pytest.approx(usual[rounded], rel=0, abs=unit)
        usual[rounded] = direct[rounded]
    assert direct == usual
    assert [type(value) for value in direct.values()] == [type(value) for value in usual.values()]


def test_a_record_names_the_thread_and_the_process_it_is_made_in(clock, monkeypatch):
    clock(10**12)
    logger = logger_of()
    monkeypatch.setattr(multiprocessing.current_process(), "name", "worker-7")
    thread = threading.Thread(target=lambda: both(logger), name="a thread")
    thread.start()
    thread.join()
    usual, direct = records_of(logger)
    assert (direct.threadName, direct.processName) == ("a thread", "worker-7") == (usual.threadName, usual.processName)
    assert direct.thread == usual.thread == thread.ident
    assert direct.process == usual.process


def test_a_process_name_that_cannot_be_had_is_the_usual_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "multiprocessing", object())
    usual, direct = both(logger_of())
    assert direct["processName"] == usual["processName"] == "MainProcess"
    monkeypatch.delitem(sys.modules, "multiprocessing")
    usual, direct = both(logger_of())
    assert direct["processName"] == usual["processName"] == "MainProcess"


def test_a_record_names_the_task_where_records_do(monkeypatch):
    named = hasattr(logging, "logAsyncioTasks")

    async def main():
        asyncio.current_task().set_name("a task")
        return both(logger_of())

    usual, direct = asyncio.run(main())
    assert direct.get("taskName") == usual.get("taskName") == ("a task" if named else None)
    monkeypatch.setattr(logging, "logAsyncioTasks", False, raising=False)
    usual, direct = asyncio.run(main())
    assert direct.get("taskName") is usual.get("taskName") is None


def test_a_level_can_be_renamed_and_so_can_the_logger():
    logger = logger_of()
    listener = JsonEventLogger(logger)
    logging.addLevelName(logging.INFO, "NOTE")
    logger.name = "renamed"
    try:
        listener(EVENT)
    finally:
        logging.addLevelName(logging.INFO, "INFO")
    assert [(record.levelname, record.name) for record in records_of(logger)] == [("NOTE", "renamed")]


def test_records_come_from_the_listener_whichever_way_they_are_made():
    logger = logger_of()
    listener = JsonEventLogger(logger)
    listener(EVENT)
    logging.setLogRecordFactory(lambda *args, **kwargs: logging.LogRecord(*args, **kwargs))
    try:
        listener(EVENT)
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    places = {(record.pathname, record.filename, record.module, record.funcName) for record in records_of(logger)}
    assert [(place[1:]) for place in places] == [("_json_log.py", "_json_log", "__call__")]
    assert [record.getMessage() for record in records_of(logger)] == [LINE, LINE]


def test_a_record_can_be_sent_to_another_process():
    logger = logger_of()
    handler = QueueHandler(queue.Queue())
    logger.addHandler(handler)
    JsonEventLogger(logger)(EVENT)
    received = pickle.loads(pickle.dumps(handler.queue.get_nowait()))
    assert vars(received)["message"] == LINE
    assert type(records_of(logger)[0].msg) is str


# ---------------------------------------------------------------------- what the application has set up


def test_filters_levels_and_propagation_are_the_loggers():
    parent, logger = logger_of(), logger_of()
    logger.parent = parent
    seen = []
    logger.addFilter(lambda record: seen.append(record.msg) or len(seen) != 2)
    listener = JsonEventLogger(logger)
    for _ in range(3):
        listener(EVENT)
    assert seen == [LINE] * 3
    assert len(records_of(logger)) == len(records_of(parent)) == 2
    logger.propagate = False
    logger.handlers[0].setLevel(logging.ERROR)
    listener(EVENT)
    logger.disabled = True
    listener(EVENT)
    assert len(seen) == 4 and len(records_of(logger)) == len(records_of(parent)) == 2


def test_logging_can_be_disabled_as_a_whole(caplog):
    with caplog.at_level(logging.INFO, "pyresilience"):
        listener = JsonEventLogger()
        logging.disable(logging.INFO)
        try:
            listener(EVENT)
        finally:
            logging.disable(logging.NOTSET)
        assert not caplog.records
        listener(EVENT)
    assert caplog.messages == [LINE]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_record_factory_is_used(when):
    logger = logger_of()
    listener = JsonEventLogger(logger) if when == "after" else None

    def factory(*args, **kwargs):
        record = logging.LogRecord(*args, **kwargs)
        record.trace_id = "abc"
        return record

    logging.setLogRecordFactory(factory)
    try:
        listener = listener or JsonEventLogger(logger)
        listener(EVENT)
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    listener(EVENT)
    first, second = records_of(logger)
    assert first.trace_id == "abc" and not hasattr(second, "trace_id")
    assert first.getMessage() == second.getMessage() == LINE


@pytest.mark.parametrize("method", ["log", "_log", "makeRecord", "findCaller", "handle", "isEnabledFor"])
def test_a_method_that_a_subclass_overrides_is_called(method):
    calls = []

    def overriding(self, *args, **kwargs):
        calls.append(method)
        return getattr(logging.Logger, method)(self, *args, **kwargs)

    logger = logger_of(type("Special", (logging.Logger,), {method: overriding}))
    JsonEventLogger(logger)(EVENT)
    assert calls and [record.getMessage() for record in records_of(logger)] == [LINE]


@pytest.mark.parametrize("method", ["log", "_log", "makeRecord", "findCaller"])
def test_a_method_that_is_replaced_in_a_logger_is_called(method):
    logger = logger_of()
    replaced = Mock(wraps=getattr(logger, method))
    setattr(logger, method, replaced)
    JsonEventLogger(logger)(EVENT)
    assert replaced.called and [record.getMessage() for record in records_of(logger)] == [LINE]


def test_a_patch_of_the_class_is_noticed_when_it_comes_and_when_it_goes(monkeypatch):
    """As tracers do, which begin and end at any time."""
    logger = logger_of(Own)
    listener = JsonEventLogger(logger)
    original = logging.Logger.makeRecord

    def traced(self, *args, **kwargs):
        record = original(self, *args, **kwargs)
        record.span_id = "1"
        return record

    listener(EVENT)
    with monkeypatch.context() as patched:
        patched.setattr(logging.Logger, "makeRecord", traced)
        listener(EVENT)
        JsonEventLogger(logger)(EVENT)
    listener(EVENT)
    assert [hasattr(record, "span_id") for record in records_of(logger)] == [False, True, True, False]


def test_a_patched_record_is_respected(monkeypatch):
    original = logging.LogRecord.__init__

    def patched(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.threadName = "hidden"

    monkeypatch.setattr(logging.LogRecord, "__init__", patched)
    logger = logger_of()
    JsonEventLogger(logger)(EVENT)
    assert [record.threadName for record in records_of(logger)] == ["hidden"]


@pytest.mark.parametrize("switch", ["logThreads", "logProcesses", "logMultiprocessing"])
def test_fields_that_are_switched_off_stay_empty(monkeypatch, switch):
    logger = logger_of()
    listener = JsonEventLogger(logger)
    monkeypatch.setattr(logging, switch, False)
    listener(EVENT)
    caller(logger)
    fields = ("thread", "threadName", "process", "processName")
    ours, usual = ([getattr(record, field) for field in fields] for record in records_of(logger))
    assert ours == usual and None in ours


def test_a_field_that_a_later_python_adds_is_not_left_out(monkeypatch):
    monkeypatch.setattr(_log_record, "_RUNNING", _log_record._RUNNING[:-1])
    logger = logger_of()
    assert direct_log(logger, logging.INFO, caller.__code__) is None
    JsonEventLogger(logger)(EVENT)
    assert [record.getMessage() for record in records_of(logger)] == [LINE]


def test_an_adapter_adds_what_it_adds():
    class Prefixed(logging.LoggerAdapter):
        def process(self, msg, kwargs):
            return f"[x] {msg}", {**kwargs, "extra": self.extra}

    logger = logger_of()
    JsonEventLogger(Prefixed(logger, {"request": 7}))(EVENT)
    assert [(record.getMessage(), record.request) for record in records_of(logger)] == [(f"[x] {LINE}", 7)]


def test_a_mock_of_a_logger_is_asked_to_log():
    logger = Mock(spec=logging.Logger)
    JsonEventLogger(logger)(EVENT)
    logger.log.assert_called_once_with(logging.INFO, LINE)


FORKING = """
import logging, os
from pyresilience import EventType, JsonEventLogger, ResilienceEvent

seen = []
logger = logging.getLogger("forking")
logger.setLevel(logging.INFO)
logger.addFilter(lambda record: seen.append(record.process))
listener = JsonEventLogger(logger)
listener(ResilienceEvent(EventType.SUCCESS, "f"))
child = os.fork()
if child == 0:
    listener(ResilienceEvent(EventType.SUCCESS, "f"))
    os._exit(42 if seen == [os.getppid(), os.getpid()] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_logs_its_own_number():
    assert subprocess.run([sys.executable, "-c", FORKING], timeout=20).returncode == 42
