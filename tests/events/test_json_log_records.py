"""The lines of JsonEventLogger reach handlers as if `logger.log` had been called, although it seldom is."""

from __future__ import annotations

import logging
import pickle
import queue
from logging.handlers import QueueHandler

import pytest

from pyresilience import EventType, JsonEventLogger, ResilienceEvent

EVENT = ResilienceEvent(EventType.SUCCESS, "f", 1)
LINE = '{"event_type":"success","function_name":"f","attempt":1}'
OF_THE_CALLER = {"pathname", "filename", "module", "lineno", "funcName"}
OF_THE_MOMENT = {"created", "msecs", "relativeCreated"}


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


def test_a_record_is_the_one_that_the_logger_makes_but_for_its_caller():
    logger = logger_of()
    logger.info(LINE)
    JsonEventLogger(logger)(EVENT)
    usual, ours = (vars(record).copy() for record in records_of(logger))
    assert list(usual) == list(ours)
    assert {name for name in usual if usual[name] != ours[name]} <= OF_THE_CALLER | OF_THE_MOMENT
    assert (ours["module"], ours["funcName"]) == ("_json_log", "JsonEventLogger")


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


def test_a_record_factory_is_used():
    logger = logger_of()
    listener = JsonEventLogger(logger)
    usual = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = usual(*args, **kwargs)
        record.tenant = "a"
        return record

    logging.setLogRecordFactory(factory)
    try:
        listener(EVENT)
    finally:
        logging.setLogRecordFactory(usual)
    assert records_of(logger)[0].tenant == "a"


@pytest.mark.parametrize("method", ["log", "makeRecord", "handle", "isEnabledFor"])
def test_a_method_that_a_subclass_overrides_is_called(method):
    calls = []

    def override(self, *args, **kwargs):
        calls.append(method)
        return getattr(logging.Logger, method)(self, *args, **kwargs)

    logger = logger_of(type("Own", (logging.Logger,), {method: override}))
    JsonEventLogger(logger)(EVENT)
    assert calls == [method] and records_of(logger)[0].msg == LINE


def test_an_adapter_adds_what_it_adds():
    logger = logger_of()
    JsonEventLogger(logging.LoggerAdapter(logger, {"tenant": "a"}))(EVENT)
    assert records_of(logger)[0].tenant == "a"
