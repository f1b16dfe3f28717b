"""Wilson intervals."""

import math
import statistics

import pytest

pytest.importorskip("matplotlib")

from hypothesis import given
from hypothesis import strategies as st

from db3kd.report import wilson_interval
from db3kd.report.intervals import interval_of

counts = (
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))
    .filter(any)
    .map(lambda each: (each[0], sum(each)))
)


@pytest.mark.parametrize(
    ("matches", "total"), [(0, 1), (1, 1), (1, 2), (652, 700), (700, 700), (3, 10**6)]
)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_it_is_the_interval_of_scipy(matches, total, confidence):
    scipy_stats = pytest.importorskip("scipy.stats")
    expected = scipy_stats.binomtest(matches, total).proportion_ci(confidence, method="wilson")
    assert wilson_interval(matches, total, confidence) == pytest.approx(
        (expected.low, expected.high), rel=1e-9, abs=1e-12
    )


@given(counts, st.floats(0.01, 0.999))
def test_its_ends_are_the_shares_that_a_score_test_just_accepts(count, confidence):
    matches, total = count
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    low, high = wilson_interval(matches, total, confidence)
    assert 0 <= low <= matches / total <= high <= 1
    for end in (low, high):
        deviation = math.sqrt(end * (1 - end) / total)
        assert abs(matches / total - end) == pytest.approx(z * deviation, rel=1e-5, abs=1e-9)


@given(counts)
def test_it_mirrors_if_matches_and_misses_change_places(count):
    matches, total = count
    low, high = wilson_interval(matches, total)
    assert wilson_interval(total - matches, total) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_it_is_written_in_percent():
    assert interval_of(652, 700) == "91.0 to 94.8 %"
    assert interval_of(10, 10) == "72.2 to 100.0 %"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (1, 0),
            "matches, total: expected integers 0 <= matches .*, got 1 of 0",
        ),
        ((3, 2), "got 3 of 2"),
        ((-1, 2), "got -1 of 2"),
        ((0.5, 2), r"got 0.5 of 2; use int\(\)"),
        ((True, 2), "got True of 2"),
        ((1, 2, 1.0), r"confidence: expected a number in \(0, 1\), got 1.0"),
    ],
)
def test_other_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        wilson_interval(*arguments)
