"""Rows: their check, the order and balance of rows that run in lock step, and interleaved splitting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.rows import check_row, imbalance, sort_rows, split_rows


def round_cycles(lengths: list[int], order: list[int] | tuple[int, ...], lanes: int) -> int:
    """Return the cycles of all rounds, counted row by row."""
    rounds = itertools.batched if hasattr(itertools, "batched") else _batched
    return sum(max(lengths[row] for row in taken) for taken in rounds(order, lanes))


def _batched(items, count):
    return [items[first : first + count] for first in range(0, len(items), count)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_no_order_is_faster_than_the_sorted_one(lengths, lanes):
    order = sort_rows(lengths, lanes)
    assert sorted(order) == list(range(len(lengths)))
    best = min(round_cycles(lengths, other, lanes) for other in itertools.permutations(range(len(lengths))))
    assert round_cycles(lengths, order, lanes) == best


def test_longest_rows_come_first_and_equal_ones_stay_in_order():
    assert sort_rows([2, 5, 2, 9, 5], 2) == [3, 1, 4, 0, 2]


def test_rows_of_one_round_keep_their_order():
    assert sort_rows([1, 2, 3], 3) == [0, 1, 2]
    assert sort_rows([], 4) == []


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 8))
def test_imbalance_is_lane_cycles_over_useful_ones(lengths, lanes):
    spent = lanes * round_cycles(lengths, range(len(lengths)), lanes)
    assert imbalance(lengths, lanes) * sum(lengths) == pytest.approx(spent if sum(lengths) else 0)
    assert imbalance(lengths, lanes) >= 1


def test_imbalance_of_equal_rows_is_one():
    assert imbalance([4] * 8, 4) == 1
    assert imbalance([4] * 9, 4) == pytest.approx(12 / 9)


@given(st.sets(st.integers(0, 200)), st.integers(1, 9))
def test_parts_hold_every_position_once(kept, parts):
    positions = sorted(kept)
    rows = split_rows(positions, parts)
    assert len(rows) == parts
    assert sorted(sub * parts + part for part, row in enumerate(rows) for sub in row) == positions
    assert all(row == sorted(row) for row in rows)


@pytest.mark.parametrize("call", [lambda: sort_rows([1], 0), lambda: imbalance([1], 0)])
def test_no_lane_is_refused(call):
    with pytest.raises(ValueError, match="^Lanes must be at least 1, not 0$"):
        call()


def test_no_part_is_refused():
    with pytest.raises(ValueError, match="^Parts must be at least 1, not 0$"):
        split_rows([1], 0)


@pytest.mark.parametrize(
    ("positions", "values", "text"),
    [
        ([0, 1], [1], "Row has 2 positions, but 1 values"),
        ([8], [1], "Position must be 0 to 7, not 8"),
        ([-1], [1], "Position must be 0 to 7, not -1"),
        ([4, 1], [1, 1], "Positions must ascend, but 1 follows 4"),
        ([4, 4], [1, 1], "Positions must ascend, but 4 follows 4"),
        ([2], [0], "Value at position 2 must be nonzero"),
    ],
)
def test_wrong_row_is_refused(positions, values, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        check_row(positions, values, 8)


def test_checked_row_is_a_table_of_values():
    assert check_row([1, 5], [3, -3], 8) == {1: 3, 5: -3}
