from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import UserDict
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyresilience import EventType, Pipeline, ResilienceEvent, RetryConfig, resilience_context
from pyresilience.events._json_log import (
    TEXT_LENGTH,
    JsonEventLogger,
    best_encoder,
    orjson_encoder,
    plain,
    record,
    safe_text,
    stdlib_encoder,
)

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Hostile:
    def __str__(self):
        raise RuntimeError("no text for you")


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 7


class SubText(str):
    def __str__(self):
        return "changed"


class Changing(UserDict):
    def items(self):
        raise RuntimeError("dictionary changed size during iteration")


@pytest.fixture
def lines():
    """A logger of its own, and the lines that were logged with it."""
    logger = logging.Logger("test", logging.INFO)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    return logger, lines


def line_of(**fields):
    return stdlib_encoder()(record(ResilienceEvent(EventType.RETRY, **{"function_name": "f", **fields})))


async def test_the_lines_are_the_documented_ones(lines):
    logger, logged = lines
    results = [ConnectionError("Connection refused"), "ok"]

    async def my_function():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    retry = RetryConfig(max_attempts=3, delay=1.0, jitter=False)
    await Pipeline(retry, listeners=[JsonEventLogger(logger)]).call(my_function)
    first, second = map(json.loads, logged)
    assert list(first.items()) == [
        ("event_type", "retry"),
        ("function_name", "my_function"),
        ("attempt", 1),
        ("detail", "retrying in 1.00s"),
        ("error_type", "ConnectionError"),
        ("error_message", "Connection refused"),
    ]
    assert list(second.items()) == [("event_type", "success"), ("function_name", "my_function"), ("attempt", 2)]


async def test_the_context_comes_last_when_it_is_set(lines):
    logger, logged = lines

    async def fetch():
        return "ok"

    token = resilience_context.set({"trace_id": "abc-123", "user": {"id": 7}})
    try:
        await Pipeline(listeners=[JsonEventLogger(logger)]).call(fetch)
    finally:
        resilience_context.reset(token)
    assert list(json.loads(logged[0]).items())[-1] == ("context", {"trace_id": "abc-123", "user": {"id": 7}})


def test_a_logger_that_is_not_enabled_costs_no_work(lines):
    logger, logged = lines
    asked = []

    class Unlooked:
        def __getattr__(self, name):
            asked.append(name)

    JsonEventLogger(logger, level=logging.DEBUG)(Unlooked())
    assert not logged and not asked


def test_lines_have_the_level_that_was_asked_for(caplog):
    with caplog.at_level(logging.WARNING, "pyresilience"):
        JsonEventLogger()(ResilienceEvent(EventType.SUCCESS, "quiet"))
        JsonEventLogger(level=logging.WARNING)(ResilienceEvent(EventType.SUCCESS, "100%s"))
    assert [(entry.name, entry.levelno) for entry in caplog.records] == [("pyresilience", logging.WARNING)]
    assert json.loads(caplog.records[0].getMessage())["function_name"] == "100%s"


def test_a_logger_adapter_will_do(lines):
    logger, logged = lines
    JsonEventLogger(logging.LoggerAdapter(logger, {}))(ResilienceEvent(EventType.SUCCESS, "f"))
    assert len(logged) == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"logger": "name"}, "logger"), ({"level": "INFO"}, "level"), ({"level": True}, "level")],
)
def test_bad_arguments_are_refused_by_name(arguments, field):
    with pytest.raises(TypeError, match=rf"JsonEventLogger\.{field} must be"):
        JsonEventLogger(**arguments)


def test_its_repr_tells_where_and_at_which_level_it_logs():
    assert repr(JsonEventLogger()) == "JsonEventLogger('pyresilience', INFO)"


# ---------------------------------------------------------------------- both encoders

anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(st.characters(codec=None)),
        st.binary(),
        st.datetimes(),
        st.decimals(),
        st.sampled_from([Colour.RED, Level.HIGH, Hostile(), SubText("\udcff"), object, 10**2000, range(9)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.frozensets(st.integers()),
        st.dictionaries(st.one_of(st.text(st.characters(codec=None)), st.integers(), st.none()), inner),
    ),
    max_leaves=20,
)


@patient
@given(anything)
def test_orjson_and_the_standard_library_write_the_same_line(value):
    event = ResilienceEvent(EventType.FAILURE, "f\ud800", 1, ValueError(value), "d\x00", {"value": value, 1: value})
    fields = record(event)
    line = orjson_encoder()(fields)
    assert line == stdlib_encoder()(fields)
    assert "\n" not in line and line.encode()
    assert json.loads(line)["event_type"] == "failure"


@patient
@given(st.text(st.characters(codec=None)))
def test_texts_of_any_kind_can_be_encoded_and_are_bounded(text):
    safe = safe_text(text)
    assert len(safe) <= TEXT_LENGTH
    safe.encode()


def test_what_json_knows_stays_as_it_is():
    value = {"a": [1, -1, 0.5, 1e-7, 1e300, True, None, "ü\u2028"], "b": {}, "c": 2**64 - 1, "d": -(2**63)}
    assert plain(value) == value
    assert json.loads(orjson_encoder()({"x": plain(value)})) == {"x": value}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        pytest.param(10**5000, "<int of 16610 bits>", id="huge"),
        (Colour.RED, "red"),
        (Level.HIGH, 7),
        (SubText("kept"), "kept"),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        (Decimal("1.50"), "1.50"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02 00:00:00+00:00"),
        ((1, (2,)), [1, [2]]),
        (range(3), [0, 1, 2]),
        ({1: "a", None: "b", ("c",): "d"}, {"1": "a", "None": "b", "('c',)": "d"}),
        ("\udc80", "\\udc80"),
        (Hostile(), "<Hostile, unprintable>"),
        ([Hostile()], ["<Hostile, unprintable>"]),
        ({Hostile(): 1}, {"<Hostile, unprintable>": 1}),
        (Changing(), "<Changing, unreadable>"),
    ],
)
def test_what_json_does_not_know_becomes_text_or_null(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_what_contains_itself_ends():
    endless: list[object] = []
    endless.append(endless)
    assert "nested too deep" in str(plain(endless))
    wide: dict[int, object] = {}
    wide.update(dict.fromkeys(range(50), wide))
    assert len(stdlib_encoder()({"x": plain(wide)})) < 20_000


def test_large_containers_are_cut():
    assert plain(list(range(1000)))[-2:] == [255, "..."]
    assert len(plain(dict.fromkeys(range(1000)))) == 257


def test_deep_nesting_is_cut():
    deep: object = "bottom"
    for _ in range(3000):
        deep = [deep]
    assert "nested too deep" in orjson_encoder()({"x": plain(deep)})


def test_error_texts_are_cut():
    message = json.loads(line_of(error=ValueError("x" * 10_000)))["error_message"]
    assert message == "x" * (TEXT_LENGTH - 1) + "…"


def test_an_error_without_a_text_is_still_logged():
    class Mute(Exception):
        __str__ = Hostile.__str__

    assert json.loads(line_of(error=Mute()))["error_message"] == "<Mute, unprintable>"


def test_an_empty_context_and_an_empty_detail_are_left_out():
    assert list(json.loads(line_of(detail="", context={}))) == ["event_type", "function_name", "attempt"]


# ---------------------------------------------------------------------- lines that are kept

events = st.builds(
    ResilienceEvent,
    st.sampled_from([EventType.SUCCESS, EventType.RETRY]),
    st.one_of(st.sampled_from(["f", "https://u:p4ss@h/?k=v", SubText("f"), "\udcff", 'q"\n', "x" * 600]), st.text()),
    st.sampled_from([0, 1, True, 2**70]),
    st.sampled_from([None, None, None, ValueError("é")]),
    st.sampled_from(["", "", "", "rejected"]),
    st.sampled_from([None, None, {}, {"trace_id": "abc"}]),
    st.one_of(st.none(), st.floats()),
)


def test_what_was_kept_is_not_taken_for_anything_else(lines):
    logger, logged = lines
    listener = JsonEventLogger(logger)
    plain_event = ResilienceEvent(EventType.RETRY, "f", 1)
    happened = [plain_event] + [
        replace(plain_event, **change)
        for change in (
            {"event_type": EventType.FAILURE},
            {"function_name": "g"},
            {"attempt": 2},
            {"error": ValueError()},
            {"detail": "rejected"},
            {"context": {"trace_id": "abc"}},
            {},
            {"duration": 1.0},
        )
    ]
    for event in happened:
        listener(event)
    assert logged == [stdlib_encoder()(record(event)) for event in happened]
    assert len(set(logged)) == 7


@patient
@given(st.lists(events, min_size=1, max_size=30))
def test_a_line_is_the_same_whether_it_was_kept_or_is_new(happened):
    logger = logging.Logger("test", logging.INFO)
    logged = []
    logger.addFilter(lambda record: logged.append(record.msg))
    listener = JsonEventLogger(logger)
    for event in happened * 2:
        listener(event)
    assert logged == [stdlib_encoder()(record(event)) for event in happened] * 2


def test_lines_are_kept_in_bounded_memory(lines):
    logger, logged = lines
    listener = JsonEventLogger(logger)
    for number in range(3000):
        listener(ResilienceEvent(EventType.SUCCESS, f"host-{number}"))
        listener(ResilienceEvent(EventType.SUCCESS, f"host-{number}" + "x" * TEXT_LENGTH))
    assert len(listener._lines) <= 1024
    assert max(len(name) for _, name, _ in listener._lines) <= TEXT_LENGTH
    assert len(logged) == 6000 and json.loads(logged[-2])["function_name"] == "host-2999"


# ---------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("for url 'https://u:p4ss@h.com:80/x?k=s3cret'", "for url 'https://***@h.com:80/x?***'"),
        ("url=URL('https://u:p4ss@h/?q=s3cret'), failed", "url=URL('https://***@h/?***'), failed"),
        ("GET https://h/a#access_token=s3cret.", "GET https://h/a?***."),
        ("with url: /get?api_key=s3cret (Caused by X)", "with url: /get?*** (Caused by X)"),
        ("postgresql+asyncpg://app:p4ss@db:5432/app", "postgresql+asyncpg://***@db:5432/app"),
        ("redis://:p4ss@host:6379/0", "redis://***@host:6379/0"),
        ("redis://user:p/4ss@host", "redis://***"),
        ("redis://user:12/p4ss@host", "redis://***"),
        ("amqp://user:p4ss", "amqp://***"),
        ("http://a@b/,http://u:p4ss@c/", "http://***@b/***"),
        ("https://h[p4ss@x]/", "https://***"),
        ("<https://u:p4ss@h/>", "<https://***@h/>"),
        ("nothing to hide at http://localhost:8000/users/@me", "nothing to hide at http://***"),
        ("see http://localhost:8000, or http://h/docs.", "see http://localhost:8000, or http://h/docs."),
        ("either/or? yes", "either/or? yes"),
        ("plain text?", "plain text?"),
        ("://", "://"),
    ],
)
def test_urls_lose_their_secrets(text, expected):
    assert safe_text(text) == expected


@patient
@given(st.integers(0, 600), st.sampled_from(["https://user:p4ss@host/?t=s3cret", "https://user:12345@host/"]))
def test_a_url_that_is_cut_off_shows_no_part_of_its_secrets(position, url):
    safe = safe_text("x" * position + " " + url + " " + "y" * 600)
    assert not any(secret in safe for secret in ("p4", "s3", "12"))


def test_secrets_are_removed_from_errors_details_and_context():
    url = "https://user:p4ss@host/?token=s3cret"
    line = line_of(function_name=url, detail=url, error=ValueError(url), context={"url": url, url: 1, "nested": [url]})
    assert "p4ss" not in line and "s3cret" not in line and line.count("https://***@host/?***") == 6


# ---------------------------------------------------------------------- orjson or not


def test_without_orjson_the_standard_library_serves(monkeypatch, lines):
    logger, logged = lines
    event = ResilienceEvent(EventType.RETRY, "f", 1, ValueError("é"), context={"ratio": 1e-9})
    JsonEventLogger(logger)(event)
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert type(best_encoder()).__name__ == "method"
    JsonEventLogger(logger)(event)
    assert (
        logged[0]
        == logged[1]
        == (
            '{"event_type":"retry","function_name":"f","attempt":1,'
            '"error_type":"ValueError","error_message":"é","context":{"ratio":1e-09}}'
        )
    )


def test_importing_the_package_loads_no_optional_library():
    code = (
        "import sys, pyresilience, pyresilience.events._json_log, pyresilience.events._metrics\n"
        "print([name for name in ('orjson', 'prometheus_client', 'opentelemetry') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert ran.stdout == "[]\n"
