from __future__ import annotations

import pickle
from email.message import Message
from email.utils import formatdate
from http import HTTPStatus
from types import SimpleNamespace

import httpx
import httpx2
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from pyresilience import RetryConfig, resilient
from pyresilience.contrib.http import parse_retry_after, retry_after, retry_after_delay, retry_on_status

NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110."""

# ---------------------------------------------------------------------- the parser


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("007", 7.0),
        (" 120\t", 120.0),
        ("9999999999", 9_999_999_999.0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun Nov 16 08:49:37 1994", 864_000.0),
        ("Sun, 06 Nov 1994 08:49:60 GMT", 23.0),
        ("Sun, 06 Nov 1994 08:48:37 GMT", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0.0),
        ("Friday, 31-Dec-99 23:59:59 GMT", 162_573_022.0),
        ("Saturday, 01-Jan-00 00:00:00 GMT", 162_573_023.0),
        ("Sunday, 06-Nov-45 08:49:37 GMT", 0.0),
    ],
)
def test_what_a_retry_after_may_be(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


def test_the_last_second_of_all_dates_is_far_away():
    assert parse_retry_after("Fri, 31 Dec 9999 23:59:59 GMT", NOW) == 253_402_300_799.0 - NOW


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "soon",
        "1_000",
        "1,000",
        "٣",
        "²",
        "+5",
        "-5",
        "1.5",
        "1e9",
        "nan",
        "inf",
        "0x10",
        "12345678901",
        "5" * 5000,
        "5\n",
        "5\x00",
        "\u00a05",
        "1 2",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Som, 06 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "1994-11-06T08:49:37Z",
    ],
)
def test_what_a_retry_after_may_not_be(value):
    assert parse_retry_after(value, NOW) is None


@given(
    st.text() | st.from_regex(r"[A-Z][a-z]{2,8},? [0-9]{2}[ -][A-Z][a-z]{2}[ -][0-9]{2,4} [0-9:]{8} GMT"),
    st.floats(0, 2e11),
)
def test_the_parser_never_raises_and_never_asks_for_less_than_nothing(value, now):
    wait = parse_retry_after(value, now)
    assert wait is None or 0.0 <= wait < 1e12


@given(st.integers(0, 253_402_300_799), st.integers(0, 253_402_300_799))
def test_every_date_that_can_be_written_is_read(date, now):
    assert parse_retry_after(formatdate(date, usegmt=True), float(now)) == max(0.0, date - now)


# ---------------------------------------------------------------------- headers of any library


def merged(*pairs):
    return requests.structures.CaseInsensitiveDict(
        {name: ", ".join(v for k, v in pairs if k == name) for name, _ in pairs}
    )


def message(*pairs):
    headers = Message()
    for name, value in pairs:
        headers[name] = value
    return headers


class MultiDictLike:
    """The way of aiohttp: `getall` raises for what is not there."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def getall(self, name):
        found = [value for key, value in self.pairs if key.lower() == name.lower()]
        if not found:
            raise KeyError(name)
        return found


@pytest.mark.parametrize(
    "headers",
    [
        lambda *pairs: httpx.Headers(pairs),
        lambda *pairs: httpx2.Headers(pairs),
        lambda *pairs: Headers(raw=[(k.lower().encode(), v.encode()) for k, v in pairs]),
        merged,
        message,
        MultiDictLike,
    ],
    ids=["httpx", "httpx2", "starlette", "requests", "email", "multidict"],
)
def test_headers_of_any_library_are_read(headers):
    assert retry_after(headers(("Retry-After", "7"))) == 7.0
    assert retry_after(headers(("Retry-After", "5"), ("Retry-After", "x"), ("Retry-After", "20"))) == 20.0
    later = ("Retry-After", "Sun, 06 Nov 1994 08:50:37 GMT")
    assert retry_after(headers(("Date", "Sun, 06 Nov 1994 08:49:37 GMT"), later)) == 60.0
    assert retry_after(headers(later, ("Retry-After", "3"))) == 3.0
    assert retry_after(headers(("Other", "1"))) is None


@pytest.mark.parametrize("headers", [None, {}, 5, "5", {"Retry-After": 5}, {"Retry-After": None}, {1: "2"}])
def test_what_are_no_headers_says_nothing(headers):
    assert retry_after(headers) is None


def test_a_date_without_a_date_of_the_server_is_compared_with_our_clock(time):
    wall = formatdate(1_700_000_000 + 90, usegmt=True)
    assert retry_after({"retry-after": wall}) == 90.0
    time.jump(30)
    assert retry_after({"retry-after": wall}) == 60.0
    assert retry_after({"retry-after": wall, "date": "garbage"}) == 60.0


# ---------------------------------------------------------------------- retry_after_delay


def test_the_delay_is_read_from_a_response_or_from_the_response_of_an_error():
    delay = retry_after_delay()
    response = httpx2.Response(503, headers={"Retry-After": "12"})
    assert delay(1, response) == 12.0
    assert delay(1, httpx2.HTTPStatusError("", request=httpx2.Request("GET", "http://a"), response=response)) == 12.0
    failed = requests.Response()
    failed.status_code = 503  # such a response is false
    failed.headers["Retry-After"] = "13"
    assert delay(1, requests.HTTPError(response=failed)) == 13.0
    assert delay(1, requests.ConnectionError()) is None
    assert delay(1, ValueError()) is None
    assert delay(1, None) is None


def test_the_delay_is_clamped():
    response = SimpleNamespace(headers={"Retry-After": "1000000000"})
    assert retry_after_delay()(1, response) == 60.0
    assert retry_after_delay(5)(1, response) == 5.0
    assert retry_after_delay(float("inf"))(1, response) == 1e9
    assert retry_after_delay(0)(1, response) == 0.0


@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_a_max_wait_that_is_no_duration_is_refused(wrong):
    with pytest.raises(ValueError, match="max_wait must be at least 0 seconds"):
        retry_after_delay(wrong)


@pytest.mark.parametrize("wrong", [True, "60", None])
def test_a_max_wait_that_is_no_number_is_refused(wrong):
    with pytest.raises(TypeError, match="max_wait must be a number of seconds"):
        retry_after_delay(wrong)


# ---------------------------------------------------------------------- retry_on_status


def test_status_codes_are_read_from_any_response():
    unavailable = retry_on_status(429, HTTPStatus.SERVICE_UNAVAILABLE)
    assert unavailable(httpx2.Response(503)) and not unavailable(httpx2.Response(500))
    assert unavailable(SimpleNamespace(status=429))
    assert unavailable(SimpleNamespace(status_code=None, status=429))
    assert not unavailable(SimpleNamespace(status_code=200, status=429))


@pytest.mark.parametrize("value", [None, 503, "503", SimpleNamespace(status_code="503"), SimpleNamespace(status=503.0)])
def test_only_true_ints_match(value):
    assert not retry_on_status(503)(value)


def test_true_is_no_status_code():
    assert not retry_on_status(1)(SimpleNamespace(status_code=True))


def test_no_codes_are_refused():
    with pytest.raises(ValueError, match="at least one status code"):
        retry_on_status()


@pytest.mark.parametrize("wrong", [True, "503", 503.0, None])
def test_what_is_no_code_is_refused(wrong):
    with pytest.raises(TypeError, match="status codes as ints, not"):
        retry_on_status(503, wrong)


# ---------------------------------------------------------------------- in a config


def test_configs_with_them_are_equal_hashable_and_picklable():
    configs = [RetryConfig(retry_on_result=retry_on_status(503, 429), delay_func=retry_after_delay(30)) for _ in "ab"]
    assert configs[0] == configs[1] and hash(configs[0]) == hash(configs[1])
    assert pickle.loads(pickle.dumps(configs[0])) == configs[0]
    assert repr(configs[0].retry_on_result) == "retry_on_status(429, 503)"
    assert repr(configs[0].delay_func) == "retry_after_delay(max_wait=30)"


def test_a_function_that_returns_responses_waits_as_asked(time):
    answers = iter([httpx2.Response(503, headers={"Retry-After": "30"}), httpx2.Response(200)])

    @resilient(retry=RetryConfig(retry_on_result=retry_on_status(503), delay_func=retry_after_delay()))
    def fetch():
        return next(answers)

    began = time.seconds
    assert fetch().status_code == 200
    assert time.seconds - began == 30.0
