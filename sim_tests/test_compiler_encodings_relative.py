"""The relative index: escapes, the count of codes, and the choice of the index width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.relative import Gaps, choose_index_bits, encode_row


@given(st.lists(st.sets(st.integers(0, 900), max_size=40), max_size=4), st.integers(1, 10))
def test_codes_walk_to_the_kept_positions(rows, index_bits):
    escape = (1 << index_bits) - 1
    counts = []
    for kept in rows:
        codes = encode_row(sorted(kept), index_bits)
        walked, cursor = set(), 0
        for code in codes:
            assert 0 <= code <= escape
            cursor += code
            if code != escape:
                walked.add(cursor)
                cursor += 1
        assert walked == kept
        counts.append(len(codes))
    assert Gaps([sorted(kept) for kept in rows]).counts(index_bits).tolist() == counts


def test_empty_row_is_one_escape():
    assert encode_row([], 3) == [7]


def test_gap_of_exactly_the_escape_needs_one_filler():
    assert encode_row([3], 2) == [3, 0]
    assert encode_row([2], 2) == [2]


def test_descending_positions_are_refused():
    with pytest.raises(ValueError, match="Positions must ascend, but 1 follows 4"):
        encode_row([4, 1], 4)


def test_width_takes_fewest_entries_within_tolerance():
    rows = [[0, 100, 200, 300]] * 4
    chosen = choose_index_bits(rows, 4)
    cost = {k: Gaps(rows).counts(k).sum() * (k + 4) for k in range(1, 13)}
    assert cost[chosen] <= 1.05 * min(cost.values())
    assert all(
        Gaps(rows).counts(k).sum() >= Gaps(rows).counts(chosen).sum()
        for k in cost
        if cost[k] <= 1.05 * min(cost.values())
    )


@pytest.mark.parametrize("gap", [3, 9, 40, 150])
def test_no_tolerance_takes_the_least_storage(gap):
    random = np.random.default_rng(gap)
    rows = [np.cumsum(random.geometric(1 / gap, 30)).tolist() for _ in range(20)]
    bits = {k: Gaps(rows).counts(k).sum() * (k + 4) for k in range(1, 13)}
    least = choose_index_bits(rows, 4, tolerance=1.0)
    assert bits[least] == min(bits.values())
    assert least <= choose_index_bits(rows, 4)
