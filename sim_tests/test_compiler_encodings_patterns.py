"""The pattern index: coder against decoder and against the format read literally."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.patterns import (
    decode_row,
    encode_row,
    entry_count,
    index_count,
    index_width,
    pad_patterns,
)


@st.composite
def rows(draw):
    """Draw a row: kernel count, patterns, gap bits, positions, values."""
    size, kernel_count = draw(st.integers(1, 9)), draw(st.integers(1, 24))
    offsets = st.lists(st.integers(0, size - 1), min_size=1, max_size=4, unique=True)
    patterns = pad_patterns(draw(st.lists(offsets, min_size=1, max_size=6)))
    row = {}
    for kernel in sorted(draw(st.sets(st.integers(0, kernel_count - 1)))):
        for offset in sorted(draw(st.sets(st.sampled_from(draw(st.sampled_from(patterns)))))):
            row[offset * kernel_count + kernel] = draw(st.sampled_from([-8, -1, 1, 7]))
    positions = sorted(row)
    return kernel_count, patterns, draw(st.integers(1, 6)), positions, [row[position] for position in positions]


def walk(indices, values, kernel_count, patterns, gap_bits):
    """Return the nonzero values by position as the hardware finds them: one cursor, one table of offsets."""
    cursor = 0
    found = {}
    for code, index in enumerate(indices):
        gap, number = index & (1 << gap_bits) - 1, index >> gap_bits
        kernel = cursor + gap
        for slot, offset in enumerate(patterns[number]):
            value = values[code * len(patterns[0]) + slot]
            if value:
                assert offset * kernel_count + kernel not in found
                found[offset * kernel_count + kernel] = value
        cursor = kernel + (gap != (1 << gap_bits) - 1)
    return found


@given(rows())
def test_decoding_gives_back_what_was_encoded(row):
    kernel_count, patterns, gap_bits, positions, values = row
    indices, stream = encode_row(positions, values, kernel_count, patterns, gap_bits)
    assert decode_row(indices, stream, kernel_count, patterns, gap_bits) == (positions, values)
    assert walk(indices, stream, kernel_count, patterns, gap_bits) == dict(zip(positions, values, strict=True))
    assert all(0 <= index < 1 << index_width(gap_bits, len(patterns)) for index in indices)
    assert index_count(positions, kernel_count, gap_bits) == len(indices) >= 1
    assert entry_count(positions, kernel_count, patterns, gap_bits) == len(stream)


def test_code_is_gap_and_pattern():
    patterns = ((0, 1), (1, 2))
    # kernel 1: offsets 1 and 2; kernel 3: offset 0
    assert encode_row([3, 5, 9], [7, 5, 6], 4, patterns, 2) == ([1 | 1 << 2, 1], [5, 6, 7, 0])


def test_repeated_offset_has_its_value_once():
    patterns = pad_patterns([(0, 1, 2), (4,)])
    assert patterns == ((0, 1, 2), (4, 4, 4))
    assert encode_row([8], [3], 2, patterns, 1) == ([0 | 1 << 1], [3, 0, 0])


def test_empty_row_is_one_escape_of_zeros():
    assert encode_row([], [], 4, ((0, 1), (1, 2)), 2) == ([3], [0, 0])


def test_largest_gap_at_the_narrowest_gap_field():
    indices, values = encode_row([14], [3], 8, ((0,), (1,)), 1)
    assert indices == [1] * 6 + [0 | 1 << 1]
    assert values == [0] * 6 + [3]


def test_single_pattern_needs_no_number():
    assert [index_width(3, count) for count in (1, 2, 3, 4, 5)] == [3, 4, 5, 5, 6]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: encode_row([0, 8], [1, 1], 4, ((0, 1),), 2),
            r"Kernel 0 keeps offsets \[0, 2\], which no pattern holds",
        ),
        (lambda: encode_row([-1], [1], 4, ((0, 1),), 2), "Position must be 0 to 7, not -1"),
        (lambda: encode_row([], [], 0, ((0, 1),), 2), "Kernel count must be at least 1, not 0"),
        (lambda: encode_row([], [], 4, ((0, 1),), 0), "Gap bits must be at least 1, not 0"),
        (
            lambda: encode_row([], [], 4, ((0, 1), (1,)), 2),
            r"Patterns must have one length of at least 1, not \[1, 2\]",
        ),
        (lambda: encode_row([], [], 4, (), 2), r"Patterns must have one length of at least 1, not \[\]"),
        (lambda: decode_row([0], [1], 4, ((0, 1),), 2), "Stream has 1 indices of 2 values, but 1 values"),
        (lambda: decode_row([4], [1, 1], 4, ((0, 1),), 2), "Pattern must be 0 to 0, not 1"),
        (lambda: index_width(2, 0), "Pattern count must be at least 1, not 0"),
        (lambda: pad_patterns([]), "Patterns must be at least one, not 0"),
        (lambda: pad_patterns([(1,), ()]), "Pattern 1 must have at least one offset, not 0"),
        (lambda: pad_patterns([(1, 1)]), r"Pattern 0 must have different offsets, not \[1, 1\]"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        call()
