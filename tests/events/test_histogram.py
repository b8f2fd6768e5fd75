from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyresilience.events._histogram import DEFAULT_BUCKETS, DurationHistogram, check_buckets, cumulative

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
durations = st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=60)


def filled(values, bounds=DEFAULT_BUCKETS):
    histogram = DurationHistogram(bounds)
    for value in values:
        histogram.record(value)
    return histogram


@patient
@given(durations, st.integers(1, 100))
def test_a_percentile_is_within_one_percent_of_the_exact_one(values, percent):
    exact = sorted(values)[math.ceil(percent * len(values) / 100) - 1]
    assert filled(values).percentiles(percent) == [pytest.approx(exact, rel=0.01)]


@patient
@given(durations)
def test_percentiles_never_leave_the_range_that_was_recorded(values):
    low, high = filled(values).percentiles(1, 100)
    assert min(values) <= low <= high <= max(values)


@pytest.mark.parametrize("exponent", range(-19, 17))
def test_powers_of_two_and_their_neighbours_fall_into_the_right_bucket(exponent):
    power = math.ldexp(1.0, exponent)
    for value in (power, math.nextafter(power, 0), math.nextafter(power, math.inf)):
        assert filled([value / 1.9, value, value * 1.9]).percentiles(50) == [pytest.approx(value, rel=0.008)]


def test_what_lies_outside_the_range_is_reported_as_the_exact_extreme():
    histogram = filled([0.0, 1e-9, 1e9])
    assert histogram.percentiles(1, 99) == [0.0, 1e9]
    assert (histogram.minimum, histogram.maximum) == (0.0, 1e9)


def test_bounds_outside_the_range_do_not_change_what_is_reported_there():
    values = [2e-9, 5e-7, 1.0, 2e6, 5e6]
    assert filled(values, (1e-9, 1e-8, 1e6, 4e6, 1e9)).percentiles(1, 40, 80, 100) == [2e-9, 2e-9, 5e6, 5e6]
    assert filled(values).percentiles(1, 40, 80, 100) == [2e-9, 2e-9, 5e6, 5e6]


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, -1.0])
def test_what_is_no_duration_is_passed_over(nonsense):
    histogram = DurationHistogram()
    assert not histogram.record(nonsense)
    assert histogram.count == 0 and histogram.sum == 0.0 and sum(histogram.counts()) == 0


def test_an_empty_histogram_has_no_percentiles():
    with pytest.raises(ValueError, match="empty"):
        DurationHistogram().percentiles(50)


@patient
@given(durations)
def test_coarse_buckets_count_exactly_what_does_not_exceed_their_bound(values):
    bounds = (0.5, 1.0, 10.0)
    histogram = filled([*values, 1.0], bounds)
    expected = [(bound, sum(value <= bound for value in [*values, 1.0])) for bound in (*bounds, math.inf)]
    assert list(cumulative(bounds, histogram.counts())) == expected


limits = st.one_of(
    st.floats(0, 1e6), st.integers(-22, 19).map(lambda exponent: math.ldexp(1.0, exponent)), st.sampled_from([0.1, 1.0])
)


@patient
@given(st.lists(limits, min_size=1, max_size=20, unique=True).map(sorted).map(tuple), durations)
def test_coarse_buckets_are_exact_for_any_bounds_and_next_to_them(bounds, values):
    near = [math.nextafter(bound, toward) for bound in bounds for toward in (0, math.inf)]
    values = [*values, *bounds, *near, 0.0]
    expected = [(bound, sum(value <= bound for value in values)) for bound in (*bounds, math.inf)]
    assert list(cumulative(bounds, filled(values, bounds).counts())) == expected


@patient
@given(st.lists(limits, min_size=1, max_size=20, unique=True).map(sorted).map(tuple), durations, st.integers(1, 100))
def test_percentiles_are_as_exact_with_any_bounds(bounds, values, percent):
    exact = sorted(values)[math.ceil(percent * len(values) / 100) - 1]
    assert filled(values, bounds).percentiles(percent) == [pytest.approx(exact, rel=1 / 128)]


@patient
@given(st.lists(st.one_of(st.floats(-1.0, 1e9), st.sampled_from([math.nan, math.inf, -math.inf])), max_size=60))
def test_sum_count_and_extremes_are_those_of_the_durations_in_any_order(values):
    kept = [value for value in values if 0.0 <= value < math.inf]
    histogram = filled(values)
    assert (histogram.count, histogram.sum) == (len(kept), pytest.approx(math.fsum(kept)))
    assert (histogram.minimum, histogram.maximum) == (min(kept, default=math.inf), max(kept, default=-math.inf))


def test_a_copy_does_not_change_any_more():
    histogram = filled([1.0, 4.0])
    copy = histogram.copy()
    for _ in range(9):
        histogram.record(1.0)
    histogram.record(100.0)
    assert (copy.count, copy.sum, copy.minimum, copy.maximum, sum(copy.counts())) == (2, 5.0, 1.0, 4.0, 2)
    assert copy.percentiles(100) == [4.0]


def test_memory_does_not_grow_with_the_number_of_durations():
    histogram = DurationHistogram()
    size = histogram._fine.buffer_info()[1]
    for number in range(5000):
        histogram.record(number * 0.001)
    assert histogram._fine.buffer_info()[1] == size < 2500


def test_bounds_may_end_in_infinity_and_may_be_ints():
    assert check_buckets("X", [1, 2, math.inf]) == (1.0, 2.0)


@pytest.mark.parametrize("bad", [[], [math.inf], [2.0, 1.0], [1.0, 1.0], [math.nan], [1.0, math.nan], [-math.inf, 1.0]])
def test_bad_bounds_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=r"X\.buckets must be increasing"):
        check_buckets("X", bad)


@pytest.mark.parametrize("bad", [["1"], [True], [None]])
def test_bounds_that_are_no_numbers_are_refused_by_name(bad):
    with pytest.raises(TypeError, match=r"X\.buckets must be numbers of seconds"):
        check_buckets("X", bad)
