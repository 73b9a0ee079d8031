"""Index streams: the codes of a row in each format, and the positions that the decoder makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.encodings import banks, bitmap, patterns, relative

__all__ = [
    "Decoding",
    "Stream",
    "decode_positions",
    "encode_bank",
    "encode_bitmap",
    "encode_patterns",
    "encode_relative",
    "encode_relative_units",
]

IntArray = NDArray[np.int64]

FILLER = -1
"""Position of a slot that multiplies nothing."""


@dataclass(frozen=True)
class Decoding:
    """How a layer's index codes become positions; the fields of the decoder.

    A code stands for ``elements`` slots. Relative codes hold the gap to the next kept unit (a position, a block, a
    kernel) in ``gap_bits`` bits, all ones being an escape; ``unit`` positions lie between units and ``step`` between
    the elements of one. Patterns add an offset by pattern number and element instead. With a ``bank`` the code is the
    position in a bank of that many, which moves on after ``elements`` codes, one a slot. A bitmap's code is a mask word
    of ``mask_bits`` positions: a slot for each set bit, and one that multiplies nothing for a word without any. Runs of
    shared multipliers may leave a code's last slots idle (``distinct``).
    """

    gap_bits: int = 0
    elements: int = 1
    unit: int = 1
    step: int = 0
    bank: int = 0
    patterns: tuple[tuple[int, ...], ...] = ()
    mask_bits: int = 0

    @property
    def escape(self) -> int:
        """The gap that skips and multiplies nothing."""
        return (1 << self.gap_bits) - 1

    @property
    def code_bits(self) -> int:
        """Bits of an index code."""
        if self.mask_bits:
            return self.mask_bits
        return self.gap_bits + (max(len(self.patterns) - 1, 0)).bit_length()

    @property
    def distinct(self) -> int:
        """Slots of a code that have positions of their own; the others multiply nothing."""
        if self.bank or self.patterns:
            return self.elements
        if self.unit > 1:
            return min(self.unit, self.elements)
        return self.elements if self.step else 1

    @property
    def codes_a_slot(self) -> bool:
        """Whether every slot has a code of its own."""
        return self.bank > 0 or (self.elements == 1 and not self.mask_bits)

    @property
    def blank(self) -> int:
        """The code that fills up what is behind the end of a row."""
        return 0 if self.bank or self.mask_bits else self.escape


@dataclass(frozen=True, eq=False)
class Stream:
    """What one core or lane walks through for the rows it works on together.

    ``codes`` are the index codes, ``levels`` the weights of each row, shape ``(rows, slots)``, ``positions`` the
    positions of the slots, FILLER where a slot multiplies nothing.
    """

    codes: IntArray
    levels: IntArray
    positions: IntArray

    @property
    def slots(self) -> int:
        """Length of the stream."""
        return len(self.positions)


def decode_positions(codes: IntArray, decoding: Decoding) -> IntArray:
    """Return the position of every slot of a row: what the hardware's decoder does."""
    codes = np.asarray(codes, np.int64)
    if decoding.bank:
        banks: IntArray = np.arange(len(codes)) // decoding.elements * decoding.bank
        return banks + codes
    if decoding.mask_bits:
        return _mask_positions(codes, decoding.mask_bits)
    gaps = codes & decoding.escape
    kept = gaps != decoding.escape
    ends = np.cumsum((gaps + kept) * decoding.unit)
    first = ends - kept * decoding.unit
    if decoding.patterns:
        offsets = np.array(decoding.patterns, np.int64)[codes >> decoding.gap_bits]
    else:
        offsets = np.broadcast_to(np.arange(decoding.elements) * decoding.step, (len(codes), decoding.elements))
    positions: IntArray = np.where(kept[:, None], first[:, None] + offsets, FILLER).reshape(-1)
    return positions


def _mask_positions(words: IntArray, width: int) -> IntArray:
    """Return the positions of the set bits, FILLER for a word without any."""
    bits = words[:, None] >> np.arange(width) & 1
    slots = np.concatenate([bits, words[:, None] == 0], axis=1)
    word, bit = np.nonzero(slots)
    positions: IntArray = np.where(bit < width, word * width + bit, FILLER)
    return positions


def _stream(codes: Sequence[int], rows: IntArray, decoding: Decoding) -> Stream:
    """Pick the rows' weights at the positions that the codes name."""
    positions = decode_positions(np.array(codes, np.int64), decoding)
    # a lane beyond the last input has a row without any position
    width = rows.shape[1]
    padded = np.concatenate([rows, np.zeros_like(rows, shape=(len(rows), 1))], axis=1)
    levels = padded[:, np.where((positions >= 0) & (positions < width), positions, width)]
    if not decoding.bank:
        levels[:, np.arange(len(positions)) % decoding.elements >= decoding.distinct] = 0
    return Stream(np.array(codes, np.int64), levels.astype(np.int64), positions)


def encode_relative(parts: Sequence[IntArray], decoding: Decoding) -> list[Stream]:
    """Encode in each of ``parts`` the positions at which any of its rows has a weight.

    All parts are encoded at once: a network has thousands, and a compiler tries them in many geometries.
    """
    rows, width = (max(part.shape[axis] for part in parts) for axis in (0, 1))
    weights: NDArray[np.int64] = np.zeros((len(parts), rows, width + 1), np.int64)
    for index, part in enumerate(parts):
        weights[index, : len(part), : part.shape[1]] = part
    support: NDArray[np.bool_] = np.any(weights, axis=1)
    # a part without weights has the escape alone, which is an element that stands nowhere
    support[~np.any(support, axis=1), width] = True
    owner, positions = np.nonzero(support)
    nowhere = positions == width
    heads = np.flatnonzero(np.diff(owner, prepend=-1))
    gaps = relative.gaps_of(positions, heads)
    gaps[nowhere] = 0
    ends = np.cumsum(1 + gaps // decoding.escape)
    codes = np.full(ends[-1], decoding.escape, np.int64)
    codes[ends - 1] = np.where(nowhere, decoding.escape, gaps % decoding.escape)
    slots = np.full((len(codes), decoding.elements), FILLER, np.int64)
    slots[ends - 1] = np.where(nowhere, FILLER, positions)[:, None]
    levels = np.zeros((len(codes), decoding.elements, rows), np.int64)
    levels[ends - 1, 0] = weights[owner, :, positions]
    cuts = np.append(ends[heads[1:] - 1], len(codes))
    streams, first = [], 0
    for part, cut in zip(parts, cuts.tolist(), strict=True):
        cells = levels[first:cut].reshape(-1, rows).T
        streams.append(Stream(codes[first:cut], cells[: len(part)].copy(), slots[first:cut].reshape(-1)))
        first = cut
    return streams


def encode_bitmap(rows: IntArray, decoding: Decoding) -> Stream:
    """Encode the positions at which any of ``rows`` has a weight, a mask bit each."""
    return _stream(bitmap.encode_row(_support(rows), rows.shape[1], decoding.mask_bits), rows, decoding)


def encode_relative_units(rows: IntArray, kept: Sequence[np.bool_ | bool], decoding: Decoding) -> Stream:
    """Encode the kept units of a row."""
    support = [number for number, keep in enumerate(kept) if keep]
    return _stream(relative.encode_row(support, decoding.gap_bits), rows, decoding)


def encode_bank(rows: IntArray, decoding: Decoding) -> Stream:
    """Encode ``elements`` positions of every bank: those where any of ``rows`` has a weight, filled up with others."""
    codes = banks.encode_row(_support(rows), rows.shape[1], decoding.bank, decoding.elements)
    return _counted_once(_stream(codes, rows, decoding))


def encode_patterns(row: IntArray, kernels: IntArray, decoding: Decoding, shapes: Sequence[Sequence[int]]) -> Stream:
    """Encode the kernels of one row, each by the first of ``shapes`` (kept positions) that holds all its weights."""
    kept = [np.flatnonzero(row[kernel]).tolist() for kernel in kernels]
    return _counted_once(_stream(patterns.encode_row(kept, shapes, decoding.gap_bits), row[None], decoding))


def _support(rows: IntArray) -> list[int]:
    """Return the positions at which any of ``rows`` has a weight."""
    positions: list[int] = np.flatnonzero(rows.any(axis=0)).tolist()
    return positions


def _counted_once(stream: Stream) -> Stream:
    """Take the weight of a position from all slots but the first: short banks and short patterns repeat positions."""
    levels = stream.levels.copy()
    _, first = np.unique(stream.positions, return_index=True)
    repeated = np.ones(stream.slots, bool)
    repeated[first] = False
    levels[:, repeated] = 0
    return Stream(stream.codes, levels, stream.positions)
