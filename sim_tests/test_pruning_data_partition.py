"""Divisions of a data set: folds and held-out parts are disjoint, complete, stratified and fixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.pruning import PruningError
from zeroskip.pruning.data.partition import cross_validation_parts, fold_numbers, hold_out, stratified_order

LABELS = st.lists(st.integers(0, 4), min_size=10, max_size=60).map(lambda items: np.array(items, np.int64))


@given(LABELS, st.integers(2, 5), st.integers(0, 3))
def test_folds_differ_by_at_most_one_sample_in_every_stratum_and_in_all(labels, folds, seed):
    numbers = fold_numbers(labels, folds, seed)
    sizes = np.bincount(numbers, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for label in np.unique(labels):
        own = np.bincount(numbers[labels == label], minlength=folds)
        assert own.max() - own.min() <= 1
    assert np.array_equal(numbers, fold_numbers(labels, folds, seed))


@given(LABELS, st.integers(0, 4))
def test_every_sample_is_in_one_part_and_tested_in_one_fold(labels, seed):
    tested = []
    for fold in range(5):
        parts = cross_validation_parts(labels, fold, 2, seed=seed)
        together = np.concatenate([parts.train, parts.validation, parts.test])
        assert np.array_equal(np.sort(together), np.arange(len(labels)))
        assert len(parts.validation) == 2
        tested.append(parts.test)
    assert np.array_equal(np.sort(np.concatenate(tested)), np.arange(len(labels)))


@given(LABELS, st.integers(0, 4))
def test_prefixes_of_the_stratified_order_have_nearly_the_overall_shares(labels, seed):
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for length in range(1, len(labels)):
        for label in np.unique(labels):
            wanted = length * np.mean(labels == label)
            assert abs(np.sum(labels[order[:length]] == label) - wanted) < 4


def test_seeds_give_other_parts():
    labels = np.arange(100) % 3
    assert not np.array_equal(fold_numbers(labels, seed=0), fold_numbers(labels, seed=1))
    first, second = (hold_out(np.arange(100), labels, 20, seed)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_part_of_a_part_is_held_out_of_the_given_samples_only():
    labels = np.arange(60) % 3
    chosen = np.arange(0, 60, 2)
    kept, held = hold_out(chosen, labels, 6)
    assert np.bincount(labels[held]).tolist() == [2, 2, 2]
    assert np.array_equal(np.sort(np.concatenate([kept, held])), chosen)


@pytest.mark.parametrize("fold", [-1, 5, 1.0, True])
def test_folds_that_do_not_exist(fold):
    with pytest.raises(PruningError, match=f"fold must be from 0 to 4, not {fold}"):
        cross_validation_parts(np.arange(50) % 2, fold, 5)


@pytest.mark.parametrize("count", [0, 50])
def test_validation_must_leave_samples(count):
    with pytest.raises(PruningError, match=f"validation must be between 1 and 49 samples, not {count}"):
        hold_out(np.arange(50), np.arange(50) % 2, count)
