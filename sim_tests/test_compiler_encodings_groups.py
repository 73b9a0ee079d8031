"""The group index (N:M, bank-balanced): coder against decoder and against the format read literally."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings.groups import decode_row, encode_row, entry_count, index_width


@st.composite
def rows(draw):
    """Draw a row: length, n, m, positions, values."""
    m = draw(st.integers(1, 12))
    n = draw(st.integers(1, m))
    length = draw(st.integers(1, 60))
    kept = []
    for first in range(0, length, m):
        kept += sorted(draw(st.sets(st.integers(first, min(first + m, length) - 1), max_size=n)))
    return length, n, m, kept, [draw(st.sampled_from([-8, -1, 1, 7])) for _ in kept]


@given(rows())
def test_decoding_gives_back_what_was_encoded(row):
    length, n, m, positions, values = row
    indices, stream = encode_row(positions, values, length, n, m)
    assert decode_row(indices, stream, length, n, m) == (positions, values)
    assert len(indices) == len(stream) == entry_count(length, n, m) == n * len(range(0, length, m))
    assert all(0 <= index < 1 << index_width(n, m) for index in indices)


@given(rows())
def test_walking_the_stream_finds_every_value(row):
    length, n, m, positions, values = row
    indices, stream = encode_row(positions, values, length, n, m)
    found = {}
    for entry, value in enumerate(stream):
        offset = entry % n if n == m else indices[entry]
        if value:
            found[m * (entry // n) + offset] = value
    assert found == dict(zip(positions, values, strict=True))


def test_two_of_four():
    assert encode_row([1, 3, 4], [5, 6, 7], 8, 2, 4) == ([1, 3, 0, 0], [5, 6, 7, 0])
    assert index_width(2, 4) == 2


def test_empty_row_is_all_padding():
    assert encode_row([], [], 8, 1, 4) == ([0, 0], [0, 0])


def test_dense_row_has_no_index():
    assert encode_row([0, 2, 4], [1, 2, 3], 5, 2, 2) == ([0] * 6, [1, 0, 2, 0, 3, 0])
    assert index_width(2, 2) == 0
    assert index_width(1, 1) == 0


@pytest.mark.parametrize(("m", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (17, 5)])
def test_width_counts_the_positions_of_a_group(m, bits):
    assert index_width(1, m) == bits


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: encode_row([0, 1, 2], [1, 1, 1], 8, 2, 4), "Group 0 has 3 values, but 2 of 4 are allowed"),
        (lambda: encode_row([8], [1], 8, 2, 4), "Position must be 0 to 7, not 8"),
        (lambda: encode_row([], [], 8, 5, 4), "Group entries n must be 1 to 4, not 5"),
        (lambda: encode_row([], [], 8, 0, 4), "Group entries n must be 1 to 4, not 0"),
        (lambda: index_width(0, 0), "Group size m must be at least 1, not 0"),
        (
            lambda: decode_row([0], [1], 8, 2, 4),
            "Row of 8 positions has 4 entries, but the stream has 1 indices and 1 values",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        call()
