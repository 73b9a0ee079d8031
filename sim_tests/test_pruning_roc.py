"""AUC compared: placements, DeLong's interval, folds, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.judging import auc
from zeroskip.pruning.roc import Ranking, compare_auc, placements


def ranking(errors, anomalous):
    return Ranking(np.asarray(errors), np.asarray(anomalous, bool))


rankings = st.integers(2, 6).flatmap(
    lambda anomalous: st.integers(2, 6).flatmap(
        lambda normal: st.lists(st.integers(0, 5), min_size=anomalous + normal, max_size=anomalous + normal).map(
            lambda errors: ranking(errors, [1] * anomalous + [0] * normal)
        )
    )
)


@given(rankings)
def test_either_mean_of_the_placements_is_the_auc(found):
    expected = auc(found.errors, torch.from_numpy(found.anomalous.astype(np.int64)))
    assert [part.mean() for part in placements(found)] == pytest.approx([expected, expected])


@given(rankings, st.data())
def test_delongs_variance(base, data):
    errors = data.draw(st.lists(st.integers(0, 5), min_size=len(base.errors), max_size=len(base.errors)))
    other = ranking(errors, base.anomalous)
    # the covariance matrix of the paper, written out: S10 / m + S01 / n with the contrast (-1, 1)
    first, second = placements(base), placements(other)
    variance = 0.0
    for a, b in zip(first, second, strict=True):
        s = np.cov(np.stack([a, b]))
        variance += (s[0, 0] + s[1, 1] - 2 * s[0, 1]) / len(a)
    found = compare_auc([[base]], [[other]])
    assert found.difference == pytest.approx(second[0].mean() - first[0].mean(), abs=1e-12)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * np.sqrt(max(variance, 0)), rel=1e-5, abs=1e-7)
    turned = compare_auc([[other]], [[base]])
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-12)


def test_coverage_of_the_true_difference():
    """Normal errors: AUC = Phi(shift / sqrt 2), the two networks' errors correlated."""
    rng = np.random.default_rng(0)
    anomalous = np.arange(200) < 80
    truth = 0.5 * (1 + torch.erf(torch.tensor([1.0, 1.4]) / 2)).double()
    inside = 0
    for _ in range(400):
        common = rng.normal(size=200)
        errors = [0.6 * common + 0.8 * rng.normal(size=200) + shift * anomalous for shift in (1.0, 1.4)]
        found = compare_auc(*([[ranking(values, anomalous)]] for values in errors))
        inside += found.low <= float(truth[1] - truth[0]) <= found.high
    assert 0.92 <= inside / 400 <= 0.98


def test_seeds_that_differ_widen_the_interval():
    anomalous = [0, 0, 0, 1, 1, 1]
    good, poor, base = ([1, 2, 3, 4, 5, 6], [1, 2, 6, 4, 5, 3], [1, 2, 4, 3, 5, 6])
    same = compare_auc([[ranking(base, anomalous)]] * 2, [[ranking(good, anomalous)]] * 2)
    apart = compare_auc([[ranking(base, anomalous)]] * 2, [[ranking(good, anomalous)], [ranking(poor, anomalous)]])
    assert apart.high - apart.low > same.high - same.low


def test_folds_are_ranked_apart_and_weighted_by_their_samples():
    small, large = [0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]
    base = [ranking([1, 2, 3, 4], small), ranking([1, 2, 3, 4, 5, 6, 7, 8], large)]
    # the second fold's scale is another one, which changes nothing; half of the first fold's pairs are turned
    other = [ranking([3, 1, 2, 4], small), ranking(np.arange(8) * 1000, large)]
    found = compare_auc([base], [other])
    assert found.difference == pytest.approx(-1 / 4 * 4 / 12)


@pytest.mark.parametrize(
    ("base", "other", "text"),
    [
        ([[ranking([1, 2, 3], [0, 0, 1])]], [[ranking([1, 2, 3], [0, 0, 1])]], "at least 2 normal and 2 anomalous"),
        ([[ranking([1, 2], [0, 1])]], [[ranking([1, 2, 3], [0, 0, 1])]], "same seeds, folds and samples"),
        ([], [], "same seeds, folds and samples"),
        ([[ranking([1, 2, 3, 4], [0, 0, 1, 1])]], [[ranking([1, 2, 3, 4], [1, 0, 0, 1])]], "different ones"),
    ],
)
def test_refusals(base, other, text):
    with pytest.raises(PruningError, match=text):
        compare_auc(base, other)
