"""Index streams: the codes of a row in each format, and the positions that the decoder makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.encodings import bitmap, relative
from zeroskip.compiler.errors import CompileError

__all__ = [
    "Decoding",
    "Stream",
    "decode_positions",
    "encode_bank",
    "encode_bitmap",
    "encode_patterns",
    "encode_relative",
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


def encode_relative(rows: IntArray, decoding: Decoding) -> Stream:
    """Encode the positions at which any of ``rows`` has a weight."""
    support = np.flatnonzero(rows.any(axis=0)).tolist()
    codes = [code for code, _ in relative.encode_row(support, [1] * len(support), decoding.gap_bits)]
    return _stream(codes, rows, decoding)


def encode_bitmap(rows: IntArray, decoding: Decoding) -> Stream:
    """Encode the positions at which any of ``rows`` has a weight, a mask bit each."""
    support = np.flatnonzero(rows.any(axis=0)).tolist()
    words, _ = bitmap.encode_row(support, [1] * len(support), rows.shape[1], decoding.mask_bits)
    return _stream(words, rows, decoding)


def encode_relative_units(rows: IntArray, kept: Sequence[np.bool_ | bool], decoding: Decoding) -> Stream:
    """Encode the kept units of a row."""
    support = [number for number, keep in enumerate(kept) if keep]
    codes = [code for code, _ in relative.encode_row(support, [1] * len(support), decoding.gap_bits)]
    return _stream(codes, rows, decoding)


def encode_bank(rows: IntArray, decoding: Decoding) -> Stream:
    """Encode ``elements`` positions of every bank: those where any of ``rows`` has a weight, filled up with others."""
    codes: list[int] = []
    length = rows.shape[1]
    for first in range(0, length, decoding.bank):
        used = np.flatnonzero(rows[:, first : first + decoding.bank].any(axis=0)).tolist()
        if len(used) > decoding.elements:
            raise CompileError(f"Bank at position {first} has {len(used)} weights, but {decoding.elements} are allowed")
        spare = [p for p in range(min(decoding.bank, length - first)) if p not in used]
        filled = sorted(used + spare[: decoding.elements - len(used)])
        codes.extend(filled + [0] * (decoding.elements - len(filled)))
    stream = _stream(codes, rows, decoding)
    # a short last bank cannot fill its slots without naming a position twice
    seen: set[int] = set()
    levels = stream.levels.copy()
    for slot, position in enumerate(stream.positions.tolist()):
        if position in seen:
            levels[:, slot] = 0
        seen.add(position)
    return Stream(stream.codes, levels, stream.positions)


def encode_patterns(row: IntArray, kernels: IntArray, decoding: Decoding, shapes: Sequence[Sequence[int]]) -> Stream:
    """Encode the kernels of one row, each by the first of ``shapes`` (kept positions) that holds all its weights."""
    support, numbers = [], []
    for number, kernel in enumerate(kernels):
        used = set(np.flatnonzero(row[kernel]).tolist())
        if not used:
            continue
        for index, shape in enumerate(shapes):
            if used <= set(shape):
                support.append(number)
                numbers.append(index)
                break
        else:
            raise CompileError(f"Kernel {number} keeps positions {sorted(used)}, which no pattern has")
    entries = relative.encode_row(support, [index + 1 for index in numbers], decoding.gap_bits)
    codes = [gap | (max(number - 1, 0) << decoding.gap_bits) for gap, number in entries]
    stream = _stream(codes, row[None], decoding)
    # a pattern shorter than the longest repeats a position, which must count once
    levels = stream.levels.copy()
    for first in range(0, stream.slots, decoding.elements):
        mine = stream.positions[first : first + decoding.elements].tolist()
        for slot, position in enumerate(mine):
            if position in mine[:slot]:
                levels[:, first + slot] = 0
    return Stream(stream.codes, levels, stream.positions)
