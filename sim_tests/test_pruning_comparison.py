"""Paired comparison: the interval equals the enumerated bootstrap, and behaves as an interval must."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.pruning import PruningError
from zeroskip.pruning.comparison import compare


def enumerated(base, other):
    """Return the interval by going through every draw of seeds and samples."""
    difference = other.astype(int) - base.astype(int)
    seeds, samples = difference.shape
    total = Counter()
    for chosen in itertools.product(range(seeds), repeat=seeds):
        values = difference[list(chosen)].sum(0).tolist()
        # Twice each sample, and once +1 and -1 (times the seeds): the pair with half a sample's weight each way.
        urn = [v for v in values for _ in range(2)] + [seeds, -seeds]
        for draw in itertools.product(urn, repeat=samples):
            total[sum(draw)] += 1
    count = sum(total.values())
    ordered = sorted(total)
    below = [
        value for value in ordered if Fraction(sum(total[v] for v in ordered if v <= value), count) > Fraction(1, 40)
    ]
    above = [
        value for value in ordered if Fraction(sum(total[v] for v in ordered if v >= value), count) > Fraction(1, 40)
    ]
    return below[0] / seeds, above[-1] / seeds


def matrices(seeds, samples):
    flat = st.lists(st.booleans(), min_size=seeds * samples, max_size=seeds * samples)
    return flat.map(lambda items: np.array(items).reshape(seeds, samples))


@settings(max_examples=20)
@given(st.data(), st.sampled_from([(1, 3), (2, 3), (2, 2), (3, 2)]))
def test_equals_the_enumerated_bootstrap(data, size):
    base, other = data.draw(matrices(*size)), data.draw(matrices(*size))
    found = compare(base, other)
    assert (found.low, found.high) == enumerated(base, other)
    assert found.difference == (other.sum() - base.sum()) / size[0]


@settings(max_examples=30)
@given(st.data(), st.integers(1, 3), st.integers(1, 200))
def test_exchanging_the_networks_turns_the_interval_around(data, seeds, samples):
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    base, other = random.random((2, seeds, samples)) < random.random()
    one, two = compare(base, other), compare(other, base)
    assert (one.low, one.high, one.difference) == (-two.high, -two.low, -two.difference)
    assert one.low <= one.difference <= one.high


def test_no_disagreement_is_not_certainty():
    same = np.zeros((3, 100), bool)
    found = compare(same, same)
    assert (found.low, found.high, found.equal) == (-2, 2, True)


def test_coverage_of_the_true_difference():
    """Independent errors of 5 % and 8 %: the interval holds the true 3 % in about 95 % of repetitions."""
    random = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        found = compare(random.random((2, 300)) < 0.05, random.random((2, 300)) < 0.08)
        held += found.low <= 9 <= found.high
    assert 90 <= held <= 100


def test_a_difference_between_seeds_widens_the_interval():
    base = np.zeros((3, 1000), bool)
    steady, uneven = base.copy(), base.copy()
    steady[:, :20] = True
    uneven[0, :60] = True
    one, two = compare(base, steady), compare(base, uneven)
    assert one.difference == two.difference == 20
    assert not one.equal and two.equal
    assert two.high - two.low > 2 * (one.high - one.low)
    assert str(one) == f"20, 20, 20 against 0, 0, 0 errors of 1000: +20.0 (95 % {one.low:+.1f} to {one.high:+.1f})"


def test_ten_thousand_samples_agree_with_the_normal_interval():
    random = np.random.default_rng(1)
    base, other = random.random((1, 10_000)) < 0.02, random.random((1, 10_000)) < 0.025
    found = compare(base, other)
    deviation = np.sqrt(10_000 * np.var(other[0].astype(int) - base[0].astype(int)))
    assert found.low == pytest.approx(found.difference - 1.96 * deviation, abs=2)
    assert found.high == pytest.approx(found.difference + 1.96 * deviation, abs=2)


@pytest.mark.parametrize(
    ("base", "other", "text"),
    [
        (
            np.zeros((3, 5), bool),
            np.zeros((3, 4), bool),
            r"one shape \(seeds, samples\), not \(3, 5\) and \(3, 4\); judge",
        ),
        (np.zeros(5, bool), np.zeros(5, bool), r"one shape \(seeds, samples\), not \(5,\) and \(5,\)"),
        (np.zeros((3, 0), bool), np.zeros((3, 0), bool), r"not \(3, 0\) and \(3, 0\)"),
        (np.zeros((3, 5)), np.zeros((3, 5), bool), "arrays of bool, not float64 and bool"),
        (np.zeros((7, 5), bool), np.zeros((7, 5), bool), "At most 6 seeds can be compared, not 7"),
    ],
)
def test_refusals(base, other, text):
    with pytest.raises(PruningError, match=text):
        compare(base, other)
