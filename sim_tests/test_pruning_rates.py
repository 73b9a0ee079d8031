"""Rates at equal accuracy: on the points, between them, and outside."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.pruning.rates import Point, RateAt, rate_at

POINTS = [Point(1, 99.0), Point(4, 98.0), Point(16, 96.0), Point(8, 95.0)]


def test_on_a_point_and_between_two():
    assert rate_at(POINTS, 98.0) == RateAt(pytest.approx(4), at_least=False)
    # 8x is beaten by 16x: half way from 98 to 96 is half way from 4x to 16x.
    assert rate_at(POINTS, 97.0) == RateAt(pytest.approx(8), at_least=False)


def test_outside_the_points():
    assert rate_at(POINTS, 99.5) is None
    assert rate_at(POINTS, 90.0) == RateAt(16, at_least=True)
    assert rate_at([], 90.0) is None


points = st.lists(st.builds(Point, st.floats(1, 1000), st.floats(50, 100)), min_size=1, max_size=8)


@given(points, st.floats(50, 100))
def test_no_point_of_that_accuracy_has_a_larger_rate(found, accuracy):
    reached = rate_at(found, accuracy)
    good = [point.rate for point in found if point.accuracy >= accuracy]
    assert (reached is None) == (not good)
    if reached is not None:
        assert reached.rate >= max(good) * (1 - 1e-12)
        worse = [point.rate for point in found if point.accuracy < accuracy and point.rate > max(good)]
        assert reached.at_least == (not worse)
        assert not worse or reached.rate <= max(worse) * (1 + 1e-12) and math.isfinite(reached.rate)
