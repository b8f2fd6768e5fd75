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

EVENT = ResilienceEvent(EventType.SUCCESS, "f", 1)
LINE = '{"event_type":"success","function_name":"f","attempt":1}'
OF_THE_CALLER = {"pathname", "filename", "module", "lineno", "funcName"}


class Keep(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def logger_of(kind=logging.Logger):
    logger = kind("test", logging.INFO)
    logger.addHandler(Keep())
    return logger


def records_of(logger):
    return logger.handlers[0].records


def both(logger):
    """What is in the record that the logger makes, and in that of `JsonEventLogger`."""
    logger.info(LINE)
    JsonEventLogger(logger)(EVENT)
    usual, ours = records_of(logger)[-2:]
    assert type(ours) is logging.LogRecord
    return vars(usual).copy(), vars(ours).copy()


@pytest.fixture
def clock(monkeypatch):
    """Sets the time that records get, in 512ths of a second: an exact number of nanoseconds and an exact float."""

    def set_to(ticks):
        monkeypatch.setattr("time.time", lambda: ticks / 512)
        monkeypatch.setattr("time.time_ns", lambda: ticks * 1_953_125)

    return set_to


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=st.integers(0, 2**40))
def test_a_record_is_the_one_that_the_logger_makes_but_for_its_caller(clock, ticks):
    clock(ticks)
    usual, ours = both(logger_of())
    assert list(usual) == list(ours)
    for rounded, unit in (("created", 1e-6), ("relativeCreated", 1e-3)):  # since 3.13 from nanoseconds
        assert ours[rounded] == pytest.approx(usual[rounded], rel=0, abs=unit)
        usual[rounded] = ours[rounded]
    assert {name for name in usual if usual[name] != ours[name]} == OF_THE_CALLER
    assert [type(value) for value in usual.values()] == [type(value) for value in ours.values()]
    assert ours["pathname"].endswith(ours["filename"])
    assert (ours["filename"], ours["module"], ours["funcName"]) == ("_json_log.py", "_json_log", "JsonEventLogger")


def test_records_are_made_here_on_this_python():
    """Were they not, the tests of what is in them would compare the logger with itself."""
    assert _log_record._make_record is logging.Logger.makeRecord


def test_a_record_names_the_thread_and_the_process_it_is_made_in(monkeypatch):
    logger, made = logger_of(), []
    monkeypatch.setattr(multiprocessing.current_process(), "name", "worker-7")
    for name in ("one", "two"):
        thread = threading.Thread(target=lambda: made.append(both(logger)), name=name)
        thread.start()
        thread.join()
        usual, ours = made[-1]
        assert (ours["threadName"], ours["processName"]) == (name, "worker-7")
        assert all(ours[field] == usual[field] for field in ("thread", "threadName", "processName", "process"))
    thread = threading.current_thread()
    monkeypatch.setattr(thread, "name", "renamed")
    assert both(logger)[1]["threadName"] == "renamed"


def test_a_process_name_that_cannot_be_had_is_the_usual_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "multiprocessing", object())
    usual, ours = both(logger_of())
    assert ours["processName"] == usual["processName"] == "MainProcess"
    monkeypatch.delitem(sys.modules, "multiprocessing")
    usual, ours = both(logger_of())
    assert ours["processName"] == usual["processName"] == "MainProcess"


def test_a_record_names_the_task_where_records_do(monkeypatch):
    async def main():
        asyncio.current_task().set_name("a task")
        return both(logger_of())

    named = sys.version_info >= (3, 12)
    usual, ours = asyncio.run(main())
    assert ours.get("taskName") == usual.get("taskName") == ("a task" if named else None)
    monkeypatch.setattr(logging, "logAsyncioTasks", False, raising=False)
    usual, ours = asyncio.run(main())
    assert ours.get("taskName") is usual.get("taskName") is None
    monkeypatch.delitem(sys.modules, "asyncio")
    monkeypatch.setattr(logging, "logAsyncioTasks", True, raising=False)
    assert both(logger_of())[1].get("taskName") is None


def test_a_logger_can_be_renamed_and_so_can_a_level_which_shows_within_a_second(clock):
    clock(512)
    logger = logger_of()
    listener = JsonEventLogger(logger)
    listener(EVENT)
    logger.name = "renamed"
    logging.addLevelName(logging.INFO, "NOTE")
    try:
        for ticks in (2 * 512 - 1, 2 * 512):
            clock(ticks)
            listener(EVENT)
    finally:
        logging.addLevelName(logging.INFO, "INFO")
    seen = [(record.levelname, record.name) for record in records_of(logger)]
    assert seen == [("INFO", "test"), ("INFO", "renamed"), ("NOTE", "renamed")]


@pytest.mark.parametrize("jump", [-5000, -1, 512, 5000])
def test_a_clock_that_jumps_is_followed(clock, jump):
    clock(512 * 10**6)
    logger = logger_of()
    listener = JsonEventLogger(logger)
    listener(EVENT)
    clock(512 * 10**6 + jump)
    logger.info(LINE)
    listener(EVENT)
    _, usual, ours = records_of(logger)
    assert (ours.created, ours.msecs) == (usual.created, usual.msecs)


def test_a_process_that_was_forked_behind_our_back_is_noticed_within_a_second(clock, monkeypatch):
    """As by uWSGI, which does not run what Python wants to do after a fork."""
    clock(512)
    logger = logger_of()
    listener = JsonEventLogger(logger)
    listener(EVENT)
    monkeypatch.setattr("os.getpid", lambda: 7)
    clock(2 * 512)
    listener(EVENT)
    assert [record.process == 7 for record in records_of(logger)] == [False, True]


def test_a_line_log_can_be_sent_to_another_process():
    logger = logging.getLogger("sent")
    copy = pickle.loads(pickle.dumps(_log_record.LineLog(logger, logging.INFO, "a/b.py", "f")))
    keep = Keep()
    logger.addHandler(keep)
    copy.log(LINE)
    assert [(made.getMessage(), made.module, made.funcName) for made in keep.records] == [(LINE, "b", "f")]


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


def test_a_line_with_a_percent_sign_is_not_formatted():
    logger = logger_of()
    JsonEventLogger(logger)(ResilienceEvent(EventType.RETRY, "f", 1, detail="100%s"))
    assert records_of(logger)[0].getMessage().endswith('"detail":"100%s"}')


def test_a_record_can_be_sent_to_another_process():
    logger, lines = logger_of(), queue.SimpleQueue()
    logger.addHandler(QueueHandler(lines))
    JsonEventLogger(logger)(EVENT)
    assert pickle.loads(pickle.dumps(lines.get())).getMessage() == LINE


def test_filters_levels_and_propagation_are_the_loggers():
    parent, logger = logger_of(), logger_of()
    logger.parent = parent
    listener = JsonEventLogger(logger)
    listener(EVENT)
    logger.propagate = False
    listener(EVENT)
    logger.addFilter(lambda record: False)
    listener(EVENT)
    assert (len(records_of(logger)), len(records_of(parent))) == (2, 1)
    logger.filters.clear()
    logger.disabled = True
    listener(EVENT)
    assert len(records_of(logger)) == 2


# ---------------------------------------------------------------------- who else has a say in records


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_record_factory_is_used_while_it_is_set(when):
    logger = logger_of()
    listener = JsonEventLogger(logger) if when == "after" else None
    usual = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = usual(*args, **kwargs)
        record.tenant = "a"
        return record

    logging.setLogRecordFactory(factory)
    try:
        listener = listener or JsonEventLogger(logger)
        listener(EVENT)
    finally:
        logging.setLogRecordFactory(usual)
    listener(EVENT)
    assert [hasattr(record, "tenant") for record in records_of(logger)] == [True, False]
    assert [record.getMessage() for record in records_of(logger)] == [LINE, LINE]


@pytest.mark.parametrize("method", ["log", "makeRecord", "handle", "isEnabledFor"])
def test_a_method_that_a_subclass_overrides_is_called(method):
    calls = []

    def override(self, *args, **kwargs):
        calls.append(method)
        return getattr(logging.Logger, method)(self, *args, **kwargs)

    logger = logger_of(type("Own", (logging.Logger,), {method: override}))
    JsonEventLogger(logger)(EVENT)
    assert calls == [method] and records_of(logger)[0].msg == LINE


class Wrapper:
    """What looks like the method that it wraps, as those of tracers do."""

    def __init__(self, method):
        self.method = method

    def __getattr__(self, name):
        return getattr(self.method, name)

    def __call__(self, *args, **kwargs):
        record = self.method(*args, **kwargs)
        record.span_id = "1"
        return record


class Descriptor(Wrapper):
    def __get__(self, instance, owner=None):
        return Wrapper(self.method.__get__(instance, owner))


def function_around(method):
    return lambda *args, **kwargs: Wrapper(method)(*args, **kwargs)


@pytest.mark.parametrize("wrap", [Descriptor, function_around])
def test_a_patch_of_the_class_is_noticed_when_it_comes_and_when_it_goes(monkeypatch, wrap):
    """As tracers do, which begin and end at any time."""
    logger = logger_of()
    listener = JsonEventLogger(logger)
    listener(EVENT)
    with monkeypatch.context() as patched:
        patched.setattr(logging.Logger, "makeRecord", wrap(logging.Logger.makeRecord))
        listener(EVENT)
        JsonEventLogger(logger)(EVENT)
    listener(EVENT)
    assert [hasattr(record, "span_id") for record in records_of(logger)] == [False, True, True, False]


@pytest.mark.parametrize("wrap", [Wrapper, function_around])
def test_a_patch_of_one_logger_is_noticed(wrap):
    logger = logger_of()
    listener = JsonEventLogger(logger)
    logger.makeRecord = wrap(logger.makeRecord)
    listener(EVENT)
    assert records_of(logger)[0].span_id == "1"


@pytest.mark.parametrize(
    ("owner", "name"), [(logging.Logger, "makeRecord"), (logging.LogRecord, "__init__"), (_log_record, "_FIELDS")]
)
def test_what_was_patched_before_or_is_not_known_is_left_to_logging(monkeypatch, owner, name):
    original = getattr(owner, name)
    changed = original[:-1] if name == "_FIELDS" else lambda *args, **kwargs: original(*args, **kwargs)
    assert _log_record._method_known() is logging.Logger.makeRecord
    monkeypatch.setattr(owner, name, changed)
    assert _log_record._method_known() is None


def test_without_a_method_that_is_known_the_logger_makes_the_record(monkeypatch):
    monkeypatch.setattr(_log_record, "_make_record", None)
    logger = logger_of()
    logger.makeRecord = Mock(wraps=logger.makeRecord)
    JsonEventLogger(logger)(EVENT)
    assert logger.makeRecord.called and records_of(logger)[0].getMessage() == LINE


@pytest.mark.parametrize("switch", ["logThreads", "logProcesses", "logMultiprocessing"])
def test_fields_that_are_switched_off_stay_empty(monkeypatch, switch):
    logger = logger_of()
    listener = JsonEventLogger(logger)
    monkeypatch.setattr(logging, switch, False)
    listener(EVENT)
    logger.info(LINE)
    fields = ("thread", "threadName", "process", "processName")
    ours, usual = ([getattr(record, field) for field in fields] for record in records_of(logger))
    assert ours == usual and None in ours


def test_an_adapter_adds_what_it_adds():
    logger = logger_of()
    JsonEventLogger(logging.LoggerAdapter(logger, {"tenant": "a"}))(EVENT)
    assert records_of(logger)[0].tenant == "a"


def test_a_mock_of_a_logger_is_asked_to_log():
    logger = Mock(spec=logging.Logger)
    JsonEventLogger(logger)(EVENT)
    logger.log.assert_called_once_with(logging.INFO, LINE)
