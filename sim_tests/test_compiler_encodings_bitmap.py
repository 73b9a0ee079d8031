"""The bitmap: coder against decoder, and its cycles counted one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.bitmap import (
    cycle_count,
    decode_row,
    encode_row,
    entry_count,
    index_width,
    word_count,
)


@st.composite
def rows(draw):
    """Draw a row: length, mask width, positions, values."""
    length = draw(st.integers(1, 120))
    positions = sorted(draw(st.sets(st.integers(0, length - 1))))
    return length, draw(st.integers(1, 20)), positions, [draw(st.sampled_from([-8, -1, 1, 7])) for _ in positions]


@given(rows())
def test_decoding_gives_back_what_was_encoded(row):
    length, width, positions, values = row
    words, stream = encode_row(positions, values, length, width)
    assert decode_row(words, stream, width) == (positions, values)
    assert len(words) == word_count(length, width) == len(range(0, length, width))
    assert all(0 <= word < 1 << width for word in words)
    assert len(stream) == entry_count(positions)


@given(rows())
def test_cycles_are_set_bits_and_empty_words(row):
    length, width, positions, values = row
    words, _ = encode_row(positions, values, length, width)
    cycles = 0
    for first in range(0, length, width):
        inside = [position for position in positions if first <= position < first + width]
        cycles += len(inside) or 1
    assert cycle_count(words) == cycles


def test_lowest_position_is_bit_0():
    assert encode_row([0, 1, 5], [1, 2, 3], 7, 4) == ([0b0011, 0b0010], [1, 2, 3])


def test_empty_row_takes_a_cycle_a_word():
    words, values = encode_row([], [], 9, 4)
    assert (words, values) == ([0, 0, 0], [])
    assert cycle_count(words) == 3


def test_dense_row_takes_a_cycle_a_position():
    words, _ = encode_row(range(9), [1] * 9, 9, 4)
    assert words == [0xF, 0xF, 0x1]
    assert cycle_count(words) == 9


def test_index_code_is_a_mask_word():
    assert index_width(16) == 16


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: encode_row([], [], 8, 0), "Mask width must be at least 1, not 0"),
        (lambda: index_width(0), "Mask width must be at least 1, not 0"),
        (lambda: encode_row([], [], 0, 8), "Row length must be at least 1, not 0"),
        (lambda: encode_row([8], [1], 8, 4), "Position must be 0 to 7, not 8"),
        (lambda: decode_row([3], [1], 4), "Row has 2 mask bits set, but 1 values"),
        (lambda: decode_row([16], [1], 4), "Mask word 0 must have 4 bits, not 0x10"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        call()
