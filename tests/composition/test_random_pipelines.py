"""Random pipelines x random scripts: one story whatever the runtime, with one end to each call."""

from __future__ import annotations

import itertools
import re
from collections import Counter

from hypothesis import given, note, settings
from hypothesis import strategies as st

from pyresilience import (
    BulkheadConfig,
    CacheConfig,
    CallRejectedError,
    CircuitBreakerConfig,
    EventType,
    FallbackConfig,
    RateLimiterConfig,
    ResilienceTimeoutError,
    RetryConfig,
    TimeoutConfig,
    resilience_context,
)
from tests.lab import After, Lab

ENDS = {EventType.SUCCESS, EventType.FAILURE, EventType.FALLBACK_USED, EventType.CACHE_HIT, EventType.CANCELLED}
REJECTIONS = {EventType.CIRCUIT_OPEN, EventType.BULKHEAD_REJECTED, EventType.RATE_LIMITED}
ALWAYS_WITH_ERROR = {
    EventType.TIMEOUT,
    EventType.FALLBACK_USED,
    EventType.BULKHEAD_REJECTED,
    EventType.RATE_LIMITED,
    EventType.CANCELLED,
}
MAX_ATTEMPTS = 3


class Stop(BaseException):
    """As Ctrl-C."""


def answer(error):
    return "instead"


def broken(error):
    raise LookupError("no answer either")


def is_bad(value):
    return value == "bad"


async def lenient(call, call_next):
    """A layer of the user's that answers refusals itself."""
    try:
        return await call_next(call)
    except CallRejectedError:
        return "default"


# Durations that no sum of others equals: what happens at one and the same instant has no order.
LAYERS = st.one_of(
    st.builds(
        RetryConfig,
        max_attempts=st.integers(1, MAX_ATTEMPTS),
        delay=st.sampled_from([0.0, 0.5013, 2.0371]),
        jitter=st.just(False),
        ignore_on=st.sampled_from([(), (KeyError,)]),
        retry_on_result=st.sampled_from([None, is_bad]),
    ),
    st.builds(
        CircuitBreakerConfig,
        failure_threshold=st.integers(1, 3),
        recovery_timeout=st.sampled_from([0.5571, 3.1193]),
        success_threshold=st.integers(1, 2),
        ignore_on=st.sampled_from([(), (KeyError,)]),
        sliding_window_size=st.sampled_from([0, 4]),
        slow_call_duration=st.sampled_from([0.0, 0.4877]),
    ),
    st.builds(
        RateLimiterConfig,
        max_calls=st.integers(1, 4),
        period=st.sampled_from([1.3079, 5.2379]),
        max_wait=st.sampled_from([0.0, 1.6193]),
        algorithm=st.sampled_from(["token_bucket", "sliding_window"]),
    ),
    st.just(BulkheadConfig(max_concurrent=20)),
    st.builds(TimeoutConfig, seconds=st.just(1.0), total=st.sampled_from([None, 2.5117, 6.0073])),
    st.just(TimeoutConfig(seconds=2.0039, per_attempt=False)),
    st.builds(
        FallbackConfig,
        handler=st.sampled_from([answer, broken]),
        fallback_on=st.sampled_from([(Exception,), (CallRejectedError,), (ValueError, ResilienceTimeoutError)]),
    ),
    st.builds(CacheConfig, ttl=st.sampled_from([0.0, 4.1333])),
    st.just(lenient),
)

STEPS = st.sampled_from(["ok", "bad", ValueError, KeyError, (0.7079, "ok"), (0.7079, ValueError), (1.7093, "ok"), Stop])
CALLS = st.tuples(st.sampled_from([0.0, 0.2511, 4.2739]), st.integers(0, 2))
"""A pause before, and an argument."""

STORIES = st.fixed_dictionaries(
    {
        "layers": st.lists(LAYERS, max_size=6, unique_by=type),
        "script": st.lists(STEPS, min_size=1, max_size=8),
        "calls": st.lists(CALLS, min_size=1, max_size=6),
    }
)


def made(step):
    """A step for a scripted function."""
    if isinstance(step, tuple):
        return After(step[0], made(step[1]))
    return step("of the function") if isinstance(step, type) else step


def coarse(text):
    """Without the fractions of seconds: runtimes may differ by a nanosecond."""
    return re.sub(r"(?<=\.)\d+", "", text)


def moment(seconds):
    """To the millisecond; what is written above never falls between two of them."""
    return round(seconds + 0.00003, 3)


class Telling:
    """One story told on one runtime: what every call came to, and its events."""

    def __init__(self, kind, story):
        self.lab = Lab(kind)
        self.story = story
        self.outcomes = []
        self.lab.run(self.tell)

    async def tell(self):
        lab, story = self.lab, self.story
        self.pipeline = lab.pipeline(*story["layers"])
        fn = lab.function(*[made(step) for step in story["script"]])
        guarded = self.pipeline(fn)
        for number, (pause, argument) in enumerate(story["calls"]):
            await lab.sleep(pause)
            resilience_context.set({"call": number})
            began, runs = lab.now, fn.calls
            try:
                outcome = await lab.call(guarded, argument)
            except (Exception, Stop) as error:
                outcome = error
            self.outcomes.append((outcome, began, lab.now, fn.calls - runs))
            assert not self.pipeline.in_flight
        await lab.sleep(60)
        resilience_context.set(None)

    def events(self, number):
        return [event for event in self.lab.events.events if event.context == {"call": number}]

    @property
    def account(self):
        """Everything that has to be the same on each runtime; only threads are abandoned."""
        events = [
            (
                event.event_type.value,
                event.attempt,
                coarse(event.detail.removesuffix("function abandoned").removesuffix("; ")),
                type(event.error),
                coarse(str(event.error)),
                None if event.duration is None else moment(event.duration),
                event.context,
            )
            for event in self.lab.events.events
        ]
        outcomes = [
            (type(outcome), coarse(str(outcome)), moment(began), moment(ended), runs)
            for outcome, began, ended, runs in self.outcomes
        ]
        return events, outcomes


def check_call(events, outcome, began, ended, runs, judged):
    kinds = [event.event_type for event in events]
    last = events[-1]
    final = [kind for kind in kinds if kind in ENDS]
    if last.event_type in REJECTIONS:
        assert not final
        assert runs == 0
        assert outcome is last.error
        assert last.event_type is not EventType.CIRCUIT_OPEN or last.detail == "rejected"
    else:
        assert final == [last.event_type]
        if isinstance(outcome, Stop):
            assert last.event_type is EventType.CANCELLED
        elif isinstance(outcome, Exception):
            assert last.event_type is EventType.FAILURE
            assert last.error is outcome
        elif last.event_type is EventType.FAILURE:
            assert judged and outcome == "bad"
            assert last.error is None
        else:
            assert last.event_type in (EventType.SUCCESS, EventType.FALLBACK_USED, EventType.CACHE_HIT)
    for event in events:
        assert event.error is not None or event.event_type not in ALWAYS_WITH_ERROR
        assert (event.duration is not None) == (event.event_type is EventType.SUCCESS)
    if last.event_type is EventType.SUCCESS:
        assert abs(last.duration - (ended - began)) < 1e-6
    attempts = [event.attempt for event in events if event.event_type is EventType.RETRY]
    assert attempts == list(range(1, len(attempts) + 1))
    assert all(earlier.attempt <= later.attempt for earlier, later in pairs(events) if later.attempt)
    assert runs <= len(attempts) + 1 <= MAX_ATTEMPTS
    assert kinds.count(EventType.RETRY_EXHAUSTED) <= 1


def pairs(events):
    numbered = [event for event in events if event.attempt]
    return itertools.pairwise(numbered)


@settings(max_examples=120, deadline=None)
@given(STORIES)
def test_one_story_on_three_runtimes(story):
    """The same events with the same content, the same outcomes at the same times, the same runs."""
    tellings = [Telling(kind, story) for kind in ("asyncio", "trio", "blocking")]
    judged = any(isinstance(layer, RetryConfig) and layer.retry_on_result for layer in story["layers"])
    for telling in tellings:
        note(f"{telling.lab.kind}: {telling.lab.events.sequence} {telling.outcomes}")
    for telling in tellings:
        for number, (outcome, began, ended, runs) in enumerate(telling.outcomes):
            check_call(telling.events(number), outcome, began, ended, runs, judged)
    assert tellings[0].account == tellings[1].account == tellings[2].account
    for telling in tellings:
        kinds = Counter(telling.lab.events.types)
        ends = sum(kinds[kind] for kind in ENDS)
        refused = [outcome for outcome, _, _, runs in telling.outcomes if isinstance(outcome, CallRejectedError)]
        assert len(telling.outcomes) - len(refused) <= ends <= len(telling.outcomes)


@settings(max_examples=60, deadline=None)
@given(STORIES, st.sampled_from(["asyncio", "trio", "blocking"]))
def test_calls_at_the_same_time_have_one_end_each(story, kind):
    """Overlapping calls of one pipeline: each has its own attempts, its own events and its own end."""
    lab = Lab(kind)
    pipeline = lab.pipeline(*story["layers"])
    fn = lab.function(*[made(step) for step in story["script"] if step is not Stop], "ok")
    guarded = pipeline(fn)

    def calling(number, argument):
        async def call():
            resilience_context.set({"call": number})
            return await lab.call(guarded, argument)

        return call

    results = []

    async def scenario():
        calls = [calling(number, argument) for number, (_, argument) in enumerate(story["calls"])]
        results.extend(await lab.together(*calls))
        await lab.sleep(60)

    lab.run(scenario)
    assert not pipeline.in_flight
    for number, outcome in enumerate(results):
        events = [event for event in lab.events.events if event.context == {"call": number}]
        note(f"{number}: {[(event.event_type.value, event.attempt) for event in events]} {outcome!r}")
        final = [event for event in events if event.event_type in ENDS]
        last = events[-1]
        assert final == [last] or (not final and last.event_type in REJECTIONS and last.error is outcome)
        attempts = [event.attempt for event in events if event.event_type is EventType.RETRY]
        assert attempts == list(range(1, len(attempts) + 1))
