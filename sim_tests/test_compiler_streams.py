"""Streams of every format: decoding gives back the rows that were encoded, and each weight counts once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.compiler.encodings import relative
from zeroskip.compiler.streams import (
    FILLER,
    Decoding,
    Stream,
    decode_positions,
    encode_bank,
    encode_bitmap,
    encode_patterns,
    encode_relative,
    encode_relative_units,
)

LEVELS = np.array([-8, -1, 1, 7])


def decoded(stream: Stream, decoding: Decoding, width: int) -> np.ndarray:
    """Return the rows that codes and levels stand for; a slot adds its level to the position that its code names."""
    positions = decode_positions(stream.codes, decoding)
    np.testing.assert_array_equal(positions, stream.positions)
    assert stream.levels.shape[1] == len(positions) == stream.slots
    assert not stream.levels[:, positions == FILLER].any()
    rows = np.zeros((len(stream.levels), width), np.int64)
    for slot, position in enumerate(positions.tolist()):
        if 0 <= position < width:
            rows[:, position] += stream.levels[:, slot]
    return rows


@st.composite
def weights(draw, rows=2, longest=60):
    """Draw rows of weights, empty ones and full ones among them."""
    width = draw(st.integers(1, longest))
    keep = draw(st.sampled_from([0, 0.05, 0.3, 0.9, 1]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    count = draw(st.integers(1, rows))
    return rng.choice(LEVELS, (count, width)) * (rng.random((count, width)) < keep)


@given(st.lists(weights(), min_size=1, max_size=4), st.integers(1, 8))
def test_relative(parts, gap_bits):
    decoding = Decoding(gap_bits)
    for rows, stream in zip(parts, encode_relative(parts, decoding), strict=True):
        np.testing.assert_array_equal(decoded(stream, decoding, rows.shape[1]), rows)
        assert stream.codes.tolist() == relative.encode_row(np.flatnonzero(rows.any(axis=0)).tolist(), gap_bits)


@given(st.lists(weights(), min_size=1, max_size=4), st.integers(1, 5), st.integers(2, 5))
def test_runs_of_shared_multipliers_leave_slots_idle(parts, gap_bits, adds):
    decoding = Decoding(gap_bits, elements=adds)
    for rows, stream in zip(parts, encode_relative(parts, decoding), strict=True):
        np.testing.assert_array_equal(decoded(stream, decoding, rows.shape[1]), rows)


def test_lane_beyond_the_last_input_has_an_escape_alone():
    stream = encode_relative([np.ones((1, 3), np.int64), np.zeros((1, 0), np.int64)], Decoding(2))[1]
    assert (stream.codes.tolist(), stream.levels.tolist(), stream.positions.tolist()) == ([3], [[0]], [FILLER])


@given(weights(), st.integers(1, 40))
def test_bitmap(rows, width):
    decoding = Decoding(mask_bits=width)
    stream = encode_bitmap(rows, decoding)
    np.testing.assert_array_equal(decoded(stream, decoding, rows.shape[1]), rows)


@given(weights(rows=1), st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_blocks_side_by_side_and_element_by_element(rows, gap_bits, size, linear):
    count = -(-rows.shape[1] // size)
    rows = np.pad(rows, ((0, 0), (0, count * size - rows.shape[1])))
    decoding = Decoding(gap_bits, size, size, 1) if linear else Decoding(gap_bits, size, 1, count)
    blocks = rows.reshape(count, size) if linear else rows.reshape(size, count).T
    stream = encode_relative_units(rows, blocks.any(axis=1), decoding)
    np.testing.assert_array_equal(decoded(stream, decoding, rows.shape[1]), rows)
    escapes = np.count_nonzero(stream.codes == decoding.escape)
    assert stream.slots == size * (escapes + np.count_nonzero(blocks.any(axis=1)))


@given(weights(), st.integers(1, 16))
def test_banks(rows, bank):
    used = np.zeros(-(-rows.shape[1] // bank) * bank, bool)
    used[: rows.shape[1]] = rows.any(axis=0)
    entries = max(1, int(used.reshape(-1, bank).sum(axis=1).max()))
    decoding = Decoding(max((bank - 1).bit_length(), 1), entries, bank=bank)
    np.testing.assert_array_equal(decoded(encode_bank(rows, decoding), decoding, rows.shape[1]), rows)


@given(st.data(), st.integers(1, 4), st.integers(1, 8))
def test_patterns(data, gap_bits, count):
    area = 9
    shapes = data.draw(st.lists(st.sets(st.integers(0, area - 1), min_size=1), min_size=1, max_size=4))
    shapes = [sorted(shape) for shape in shapes]
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    elements = max(map(len, shapes))
    # element by element: position p of kernel k is tap p * count + k
    kernels = np.arange(area * count).reshape(area, count).T
    row = np.zeros(area * count, np.int64)
    for kernel in kernels:
        kept = [place for place in shapes[rng.integers(len(shapes))] if rng.random() < 0.7]
        row[kernel[kept]] = rng.choice(LEVELS, len(kept))
    padded = tuple(tuple(p * count for p in [*s, *([s[0]] * (elements - len(s)))]) for s in shapes)
    decoding = Decoding(gap_bits, elements=elements, patterns=padded)
    stream = encode_patterns(row, kernels, decoding, shapes)
    np.testing.assert_array_equal(decoded(stream, decoding, len(row))[0], row)
