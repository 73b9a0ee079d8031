"""The bitmap: its words, its slots counted one by one, and the width of its words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.bitmap import Rows, choose_width, encode_row, slot_count, word_count


@st.composite
def rows(draw):
    """Draw a row: length, mask width, positions."""
    length = draw(st.integers(1, 120))
    return length, draw(st.integers(1, 20)), sorted(draw(st.sets(st.integers(0, length - 1))))


@given(rows())
def test_words_in_a_row_have_the_bits_of_the_kept_positions(row):
    length, width, positions = row
    words = encode_row(positions, length, width)
    assert len(words) == word_count(length, width) == len(range(0, length, width))
    assert all(0 <= word < 1 << width for word in words)
    joined = sum(word << number * width for number, word in enumerate(words))
    assert joined == sum(1 << position for position in positions)


@given(rows())
def test_slots_are_set_bits_and_empty_words(row):
    length, width, positions = row
    words = encode_row(positions, length, width)
    assert slot_count(positions, length, width) == sum(max(word.bit_count(), 1) for word in words)


def test_lowest_position_is_bit_0():
    assert encode_row([0, 1, 5], 7, 4) == [0b0011, 0b0010]


def test_empty_row_takes_a_slot_a_word():
    assert encode_row([], 9, 4) == [0, 0, 0]
    assert slot_count([], 9, 4) == 3


def test_dense_row_takes_a_slot_a_position():
    assert encode_row(range(9), 9, 4) == [0xF, 0xF, 0x1]
    assert slot_count(range(9), 9, 4) == 9


KEPT = st.lists(st.sets(st.integers(0, 29)), min_size=1, max_size=6)


@given(st.lists(KEPT, min_size=1, max_size=3), st.integers(1, 8), st.integers(1, 3), st.integers(0, 200))
def test_chosen_width_takes_the_fewest_slots_within_eight_percent(layers, value_bits, together, others):
    rows, length, least = [[sorted(row) for row in kept] for kept in layers], 30, 3

    def cost(width):
        slots = bits = 0
        for kept in rows:
            counts = [slot_count(row, length, width) for row in kept]
            mine = sum(max(counts[first : first + together]) for first in range(0, len(counts), together))
            slots += mine
            bits += mine * together * value_bits + len(kept) * word_count(length, width) * max(width, least)
        return slots, bits + others * (max(width, least) - least)

    best = choose_width([Rows(kept, length, value_bits, together) for kept in rows], others, least)
    costs = {width: cost(width) for width in range(1, 9)}
    bound = 1.08 * min(bits for _, bits in costs.values())
    assert costs[best][1] <= bound
    assert costs[best][0] == min(slots for slots, bits in costs.values() if bits <= bound)


def test_many_other_indices_keep_the_word_as_narrow_as_they_are():
    layer = Rows([[*range(10), *range(30, 40)]], 40, 4)
    assert choose_width([layer], others=10000, least=4) == 4
    assert choose_width([layer], least=4) > 4


def test_wide_indices_let_the_word_be_wide():
    layer = Rows([[0, 11, 22, 33]], 44, 4)
    assert choose_width([layer], others=10000, least=11) == 11


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: word_count(8, 0), "Mask width must be at least 1, not 0"),
        (lambda: word_count(0, 8), "Row length must be at least 1, not 0"),
        (lambda: encode_row([8], 8, 4), "Position must be 0 to 7, not 8"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        call()
