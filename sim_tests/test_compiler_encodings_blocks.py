"""The block index: coder against decoder and against the format read literally."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.blocks import (
    choose_index_bits,
    decode_row,
    element_major,
    encode_row,
    entry_count,
    index_count,
    index_width,
)


@st.composite
def rows(draw):
    """Draw a row: block count, size, index bits, positions, values."""
    block_count, size = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    kept = draw(st.sets(st.integers(0, block_count * size - 1)))
    values = [draw(st.sampled_from([-8, -1, 1, 7])) for _ in kept]
    return block_count, size, draw(st.integers(1, 7)), sorted(kept), values


def walk(indices, values, block_count, size, index_bits):
    """Return the nonzero values by position as the hardware finds them: one cursor, one counter of elements."""
    cursor = 0
    found = {}
    for code, index in enumerate(indices):
        block = cursor + index
        for element in range(size):
            value = values[code * size + element]
            if value:
                found[block + element * block_count] = value
        cursor = block + (index != (1 << index_bits) - 1)
    return found


@given(rows())
def test_decoding_gives_back_what_was_encoded(row):
    block_count, size, index_bits, positions, values = row
    indices, stream = encode_row(positions, values, block_count, size, index_bits)
    assert decode_row(indices, stream, block_count, size, index_bits) == (positions, values)
    assert walk(indices, stream, block_count, size, index_bits) == dict(zip(positions, values, strict=True))
    assert all(0 <= index < 1 << index_bits for index in indices)
    assert index_count(positions, block_count, index_bits) == len(indices) >= 1
    assert entry_count(positions, block_count, size, index_bits) == len(stream) == len(indices) * size


@given(rows())
def test_full_width_needs_no_escape(row):
    block_count, size, _, positions, values = row
    bits = index_width(block_count)
    indices, _ = encode_row(positions, values, block_count, size, bits)
    assert len(indices) == max(1, len({position % block_count for position in positions}))
    last, _ = encode_row([block_count - 1], [1], block_count, size, bits)
    assert last == [block_count - 1]
    if bits > 1:
        assert index_count([block_count - 1], block_count, bits - 1) > 1


def test_empty_row_is_one_escape_of_zeros():
    assert encode_row([], [], 9, 4, 3) == ([7], [0, 0, 0, 0])


def test_block_with_zeros_keeps_them():
    assert encode_row([2, 12], [5, -6], 5, 3, 3) == ([2], [5, 0, -6])


def test_largest_gap_at_the_narrowest_index():
    indices, values = encode_row([8], [3], 9, 2, 1)
    assert indices == [1] * 8 + [0]
    assert values == [0] * 16 + [3, 0]
    assert decode_row(indices, values, 9, 2, 1) == ([8], [3])


def test_dense_row():
    indices, values = encode_row(list(range(6)), [1, 2, 3, 4, 5, 6], 3, 2, 2)
    assert (indices, values) == ([0, 0, 0], [1, 4, 2, 5, 3, 6])


def test_element_major_puts_equal_elements_side_by_side():
    assert element_major(3, 2) == [0, 2, 4, 1, 3, 5]


@given(st.integers(1, 12), st.integers(1, 12))
def test_element_major_is_the_layout_of_the_format(block_count, size):
    order = element_major(block_count, size)
    assert sorted(order) == list(range(block_count * size))
    for block in range(block_count):
        for element in range(size):
            assert order[element * block_count + block] == block * size + element


def test_width_takes_fewest_codes_within_tolerance():
    blocks = [[0, 30, 31, 62]] * 4
    chosen = choose_index_bits(blocks, 64, 4, 4)
    counts = {k: sum(index_count(row, 64, k) for row in blocks) for k in range(1, 13)}
    cost = {k: counts[k] * (k + 16) for k in counts}
    allowed = [k for k in cost if cost[k] <= 1.05 * min(cost.values())]
    assert counts[chosen] == min(counts[k] for k in allowed)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: encode_row([], [], 0, 2, 3), "Block count must be at least 1, not 0"),
        (lambda: encode_row([], [], 2, 0, 3), "Block size must be at least 1, not 0"),
        (lambda: encode_row([], [], 2, 2, 0), "Index bits must be at least 1, not 0"),
        (lambda: encode_row([4], [1], 2, 2, 3), "Position must be 0 to 3, not 4"),
        (lambda: decode_row([1], [1], 2, 2, 3), "Stream has 1 indices of 2 values, but 1 values"),
        (lambda: index_count([1], 2, 0), "Index bits must be at least 1, not 0"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        call()
