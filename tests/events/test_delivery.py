"""Who is told of an event, and how: with the event, or with the facts that it would hold."""

import logging

import pytest

from pyresilience import EventType, JsonEventLogger, MetricsCollector, Pipeline, resilience_context
from pyresilience.contrib.prometheus import PrometheusListener


class Tally:
    """Takes facts, and would note an event."""

    def __init__(self):
        self.counted = []
        self.events = []

    def __call__(self, event):
        self.events.append(event)

    def _take_facts(self, event_type, function_name, attempt, error, detail, duration):
        self.counted.append((event_type, function_name, duration))
        self.told = (attempt, error, detail)


class Replaced(Tally):
    def __call__(self, event):
        self.events.append(event)


def answer():
    return 1


def refuse():
    raise ConnectionError("refused")


def call(fn, *listeners):
    guarded = Pipeline(name="counted", listeners=listeners)(fn)
    try:
        guarded()
    except ConnectionError:
        pass


def test_a_listener_that_takes_facts_gets_no_event():
    tally = Tally()
    call(answer, tally)
    call(refuse, tally)
    (success, name, duration), failure = tally.counted
    assert (success, name) == (EventType.SUCCESS, "counted") and duration >= 0
    assert failure == (EventType.FAILURE, "counted", None)
    attempt, error, detail = tally.told
    assert (attempt, detail) == (1, "") and isinstance(error, ConnectionError)
    assert tally.events == []


def test_a_subclass_that_replaces_the_call_gets_events():
    replaced = Replaced()
    call(answer, replaced)
    assert replaced.counted == []
    assert [event.event_type for event in replaced.events] == [EventType.SUCCESS]


def test_an_attribute_of_that_name_on_the_object_is_not_asked():
    tally = Replaced()
    tally._take_facts = None
    call(answer, tally)
    assert len(tally.events) == 1


def test_both_kinds_hear_of_the_same_decision():
    tally, events = Tally(), []
    token = resilience_context.set({"trace_id": "t"})
    try:
        call(refuse, events.append, tally)
    finally:
        resilience_context.reset(token)
    assert [kind for kind, _, _ in tally.counted] == [event.event_type for event in events] == [EventType.FAILURE]
    assert events[0].context == {"trace_id": "t"} and isinstance(events[0].error, ConnectionError)


def test_event_types_hold_for_those_who_take_facts():
    tally = Tally()
    tally.event_types = (EventType.FAILURE,)
    call(answer, tally)
    call(refuse, tally)
    assert [kind for kind, _, _ in tally.counted] == [EventType.FAILURE]


def test_one_that_fails_is_logged_by_name_and_keeps_nobody_from_hearing(caplog):
    class Broken(Tally):
        def __call__(self, event):
            raise AssertionError

        def _take_facts(self, event_type, function_name, attempt, error, detail, duration):
            raise ValueError("no")

        def __repr__(self):
            return "Broken()"

    tally, events = Tally(), []
    call(answer, Broken(), tally, events.append)
    assert "listener Broken() failed on success of counted" in caplog.text
    assert len(tally.counted) == len(events) == 1


@pytest.mark.parametrize("make", [MetricsCollector, lambda: PrometheusListener("both_ways")])
def test_ours_count_the_same_with_an_event(make):
    from prometheus_client import REGISTRY

    def counted(listener):
        if isinstance(listener, MetricsCollector):
            return listener.get_counts("counted"), listener.snapshot().durations["counted"].count
        sample = REGISTRY.get_sample_value
        labels = {"function_name": "counted"}
        return (
            {
                kind: int(sample("both_ways_events_total", {"event_type": kind, **labels}))
                for kind in ("success", "failure")
            },
            int(sample("both_ways_call_duration_seconds_count", labels)),
        )

    listener = make()
    for fn in (answer, refuse):
        call(fn, listener)
        call(fn, lambda event: listener(event))
    assert counted(listener) == ({"success": 2, "failure": 2}, 2)


@pytest.mark.parametrize("context", [None, {}, {"trace_id": "t", "depth": [1, 2]}, "no dict"])
def test_a_line_is_the_same_with_an_event(context, caplog):
    """Twice each, as a line with nothing but type, name and attempt in it is kept."""
    logger = logging.getLogger("tests.delivery")
    logger.setLevel(logging.INFO)
    listener = JsonEventLogger(logger)
    lines = []
    token = resilience_context.set(context)
    try:
        for told in (listener, lambda event: listener(event)):
            caplog.clear()
            for fn in (answer, answer, refuse, refuse):
                call(fn, told)
            lines.append([record.getMessage() for record in caplog.records if record.name == logger.name])
    finally:
        resilience_context.reset(token)
    assert lines[0] == lines[1]
    assert len(lines[0]) == 4
    assert all(('"context"' in line) == (type(context) is dict and bool(context)) for line in lines[0])
    assert ["ConnectionError" in line for line in lines[0]] == [False, False, True, True]


def test_a_log_that_is_not_enabled_looks_at_nothing(monkeypatch):
    logger = logging.getLogger("tests.delivery.quiet")
    logger.setLevel(logging.WARNING)
    listener = JsonEventLogger(logger)
    monkeypatch.setattr(listener, "_line", None)
    monkeypatch.setattr(listener, "_log", None)
    call(answer, listener)
    call(refuse, listener)
    assert listener._lines == {}
