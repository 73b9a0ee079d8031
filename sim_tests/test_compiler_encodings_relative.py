"""The relative index: coder against decoder, escapes, and the choice of the index width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.relative import choose_index_bits, decode_row, encode_row, entry_count


@given(st.sets(st.integers(0, 900), max_size=40), st.integers(1, 10))
def test_decoding_gives_back_what_was_encoded(kept, index_bits):
    positions = sorted(kept)
    values = [position % 7 - 8 for position in positions]
    entries = encode_row(positions, values, index_bits)
    assert decode_row(entries, index_bits) == (positions, values)
    assert entry_count(positions, index_bits) == len(entries)
    assert all(0 <= index < 1 << index_bits for index, _ in entries)


def test_empty_row_is_one_escape():
    assert encode_row([], [], 3) == [(7, 0)]


def test_gap_of_exactly_the_escape_needs_one_filler():
    assert encode_row([3], [5], 2) == [(3, 0), (0, 5)]
    assert encode_row([2], [5], 2) == [(2, 5)]


def test_descending_positions_are_refused():
    with pytest.raises(ValueError, match="Positions must ascend, but 1 follows 4"):
        encode_row([4, 1], [1, 1], 4)


def test_zero_value_is_refused():
    with pytest.raises(ValueError, match="Value at position 2 must be nonzero"):
        encode_row([2], [0], 4)


def test_width_takes_fewest_entries_within_tolerance():
    rows = [[0, 100, 200, 300]] * 4
    chosen = choose_index_bits(rows, 4)
    cost = {k: sum(entry_count(row, k) for row in rows) * (k + 4) for k in range(1, 13)}
    assert cost[chosen] <= 1.05 * min(cost.values())
    assert all(
        sum(entry_count(row, k) for row in rows) >= sum(entry_count(row, chosen) for row in rows)
        for k in cost
        if cost[k] <= 1.05 * min(cost.values())
    )
