"""The bitmap: coder against decoder, its slots counted one by one, and the width of its words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.bitmap import (
    choose_width,
    decode_row,
    encode_row,
    slot_count,
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


@given(rows())
def test_slots_are_set_bits_and_empty_words(row):
    length, width, positions, values = row
    words, _ = encode_row(positions, values, length, width)
    assert slot_count(positions, length, width) == sum(max(word.bit_count(), 1) for word in words)


def test_lowest_position_is_bit_0():
    assert encode_row([0, 1, 5], [1, 2, 3], 7, 4) == ([0b0011, 0b0010], [1, 2, 3])


def test_empty_row_takes_a_slot_a_word():
    assert encode_row([], [], 9, 4) == ([0, 0, 0], [])
    assert slot_count([], 9, 4) == 3


def test_dense_row_takes_a_slot_a_position():
    words, _ = encode_row(range(9), [1] * 9, 9, 4)
    assert words == [0xF, 0xF, 0x1]
    assert slot_count(range(9), 9, 4) == 9


@given(st.lists(st.sets(st.integers(0, 29)), min_size=1, max_size=6), st.integers(1, 8), st.integers(1, 3))
def test_chosen_width_takes_the_fewest_slots_within_five_percent(kept, value_bits, together):
    rows, length = [sorted(row) for row in kept], 30

    def cost(width):
        counts = [slot_count(row, length, width) for row in rows]
        slots = sum(max(counts[first : first + together]) for first in range(0, len(counts), together))
        return slots, slots * together * value_bits + len(rows) * word_count(length, width) * width

    best = choose_width(rows, length, value_bits, together=together)
    costs = {width: cost(width) for width in range(1, 9)}
    bound = 1.05 * min(bits for _, bits in costs.values())
    assert costs[best][1] <= bound
    assert costs[best][0] == min(slots for slots, bits in costs.values() if bits <= bound)


def test_word_is_no_wider_than_a_row():
    assert choose_width([[0, 1, 2]], 3, 4) <= 3


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: encode_row([], [], 8, 0), "Mask width must be at least 1, not 0"),
        (lambda: word_count(8, 0), "Mask width must be at least 1, not 0"),
        (lambda: encode_row([], [], 0, 8), "Row length must be at least 1, not 0"),
        (lambda: encode_row([8], [1], 8, 4), "Position must be 0 to 7, not 8"),
        (lambda: decode_row([3], [1], 4), "Row has 2 mask bits set, but 1 values"),
        (lambda: decode_row([16], [1], 4), "Mask word 0 must have 4 bits, not 0x10"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        call()
