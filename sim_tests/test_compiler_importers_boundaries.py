"""Boundaries by bisection and the integer parameters between them, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.compiler.importers.boundaries import (
    NARROW,
    Bounds,
    find_boundaries,
    find_float_boundaries,
    find_scaling,
    suggested_biases,
)
from zeroskip.compiler.ir import Rounding
from zeroskip.compiler.reference import rescale


def scaled(multiplier, shift, bias, rounding, lo, hi):
    return lambda acc: np.clip(rescale(acc + bias[:, None], multiplier[:, None], shift[:, None], rounding), lo, hi)


@settings(max_examples=60, deadline=None)
@given(
    rounding=st.sampled_from(NARROW),
    pairs=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 14), st.integers(-300, 300)), min_size=1, max_size=3),
    span=st.tuples(st.integers(-700, 0), st.integers(0, 700)),
    codes=st.sampled_from([(-8, 7), (0, 15), (-1, 1), (-128, 127)]),
)
def test_what_integer_parameters_compute_is_found_again(rounding, pairs, span, codes):
    multiplier, shift, bias = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    function = scaled(multiplier, shift, bias, rounding, *codes)
    low, high = (np.full(len(pairs), end) for end in span)
    levels = np.arange(codes[0] + 1, codes[1] + 1)
    boundaries = find_boundaries(function, low, high, levels)
    every = np.broadcast_to(np.arange(span[0], span[1] + 1), (len(pairs), span[1] - span[0] + 1))
    wanted = function(every)
    counted = codes[0] + (every[:, :, None] >= boundaries[:, None, :]).sum(axis=2)
    np.testing.assert_array_equal(np.clip(counted, wanted.min(), None), wanted)
    bounds = Bounds.of(boundaries, low, high, levels, 0)
    found = find_scaling(bounds, (bias, *suggested_biases(bounds)), (rounding,))
    assert found is not None
    got = scaled(found.multiplier, found.shift, found.bias, found.rounding, *codes)
    np.testing.assert_array_equal(got(every), wanted)


@pytest.mark.parametrize(
    ("slope", "offset", "exists"),
    [
        (1 / 3, 0.0, True),
        (1 / 3, 0.3, True),
        (0.01, 0.3, False),  # a bias is a whole number of accumulators
        (0.01, 0.0, False),  # ties at odd multiples of 50 turn both ways, and no slope of two to the -S meets them
        (0.0101, 0.0, True),
        (1e-4, -7.7, True),
        (5.0, 0.3, True),
        (5.0, -7.7, False),
    ],
)
def test_a_scaling_that_is_found_equals_the_float_function(slope, offset, exists):
    def codes(acc):
        return np.clip(np.rint(acc * slope + offset), -8, 7).astype(np.int64)

    low, high, levels = np.array([-900]), np.array([900]), np.arange(-7, 8)
    bounds = Bounds.of(find_boundaries(codes, low, high, levels), low, high, levels, 0)
    found = find_scaling(bounds)
    assert (found is not None) == exists
    if found is not None:
        every = np.arange(-900, 901)[None]
        got = scaled(found.multiplier, found.shift, found.bias, found.rounding, -8, 7)(every)
        np.testing.assert_array_equal(got, codes(every))


def test_ties_choose_the_rounding():
    def codes(acc):
        return np.clip(np.rint(acc / 2), -4, 3).astype(np.int64)

    low, high, levels = np.array([-20]), np.array([20]), np.arange(-3, 4)
    bounds = Bounds.of(find_boundaries(codes, low, high, levels), low, high, levels, 0)
    found = find_scaling(bounds, [np.zeros(1, np.int64)])
    assert (found.rounding, found.multiplier[0], found.shift[0]) == (Rounding.HALF_EVEN, 1, 1)


def test_uneven_boundaries_have_no_scaling():
    low, high, levels = np.array([0]), np.array([100]), np.array([1, 2, 3])
    assert find_scaling(Bounds.of(np.array([[10, 11, 90]]), low, high, levels, 0)) is None


@pytest.mark.parametrize("limit", [-3.5, -1e-38, 0.0, 1e-45, 0.1, 16777217.0, 3e38])
def test_boundaries_among_floats_are_the_first_that_reach_a_level(limit):
    limit = np.float32(limit)
    found = find_float_boundaries(lambda x: (x >= limit).astype(np.int64) + (x >= np.inf), np.array([0, 1, 2]))
    assert found.tolist() == [-np.finfo(np.float32).max, limit, np.inf]
