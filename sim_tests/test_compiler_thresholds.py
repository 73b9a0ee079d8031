"""Threshold tables: the search over them counts what the reference counts, and they decode to the thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from zeroskip.compiler import reference
from zeroskip.compiler.thresholds import join_tables, padded_thresholds, search_stages, search_tables


def searched(tables: list[np.ndarray], channel: int, value: int) -> int:
    """Return the count that the stages find."""
    count = 0
    for table in tables:
        count = 2 * count + int(value >= table[channel, count])
    return count


@pytest.mark.parametrize(("count", "stages"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (127, 7), (128, 8), (255, 8)])
def test_stages_are_the_bits_of_the_largest_count(count, stages):
    assert search_stages(np.zeros((2, count), np.int32)) == stages


def test_without_thresholds_there_is_no_stage():
    assert search_stages(None) == 0


@given(st.integers(1, 8), st.integers(1, 3), st.data())
def test_search_counts_the_thresholds_reached(stages, channels, data):
    size = (1 << stages) - 1
    values = data.draw(st.lists(st.integers(-20, 20), min_size=channels * size, max_size=channels * size))
    thresholds = np.sort(np.array(values).reshape(channels, size), axis=1)
    tables = search_tables(thresholds)
    assert [table.shape for table in tables] == [(channels, 1 << stage) for stage in range(stages)]
    np.testing.assert_array_equal(join_tables(tables), thresholds)
    for channel in range(channels):
        for value in range(-22, 23):
            assert searched(tables, channel, value) == np.count_nonzero(thresholds[channel] <= value)


def test_clipped_and_padded_thresholds_give_the_same_codes():
    model = models.tiny("thresholds")
    for layer in model.layers:
        if layer.thresholds is None:
            continue
        source, target = model.tensors[layer.input], model.tensors[layer.output]
        low, high = reference.accumulator_range(layer, source).partial
        wide = np.sort(np.array([[np.iinfo(np.int32).min, low - 5, 0, high, high + 1]] * len(layer.thresholds)), axis=1)
        for thresholds in (layer.thresholds, wide.astype(np.int32)):
            layer = replace(layer, thresholds=thresholds)
            padded = padded_thresholds(layer, source)
            assert padded.shape[1] == (1 << search_stages(thresholds)) - 1
            assert low <= padded.min() and padded.max() <= high + 1
            values = np.unique(np.linspace(low, high, 999).astype(np.int64))
            acc = np.tile(values, (len(thresholds), 1))
            expected = reference.threshold_codes(acc, thresholds, target.lo)
            np.testing.assert_array_equal(reference.threshold_codes(acc, padded, target.lo), expected)
