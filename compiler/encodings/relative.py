"""Relative index with escapes: the gap to the previous kept position, in ``k`` bits.

Code ``2**k - 1`` is the escape: skip ``2**k - 1`` positions, multiply nothing. Gaps restart at every row, and an empty
row is one escape, so that every row has at least one code. What is counted may also be blocks or kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Gaps", "choose_index_bits", "encode_row", "gaps_of"]

TOLERANCE = 1.08
"""A width may take this much more than the least storage where it saves cycles."""


def encode_row(positions: Sequence[int], index_bits: int) -> list[int]:
    """Encode the kept ``positions`` (ascending) of one row."""
    escape = (1 << index_bits) - 1
    codes: list[int] = []
    cursor = 0
    for position in positions:
        gap = position - cursor
        if gap < 0:
            raise ValueError(f"Positions must ascend, but {position} follows {cursor - 1}")
        codes += [escape] * (gap // escape) + [gap % escape]
        cursor = position + 1
    return codes or [escape]


def gaps_of(positions: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the gap before each kept position of rows behind one another; ``firsts`` says where the rows begin."""
    gaps: NDArray[np.int64] = np.diff(positions, prepend=-1) - 1
    gaps[firsts] = positions[firsts]
    return gaps


class Gaps:
    """The gaps of all ``rows`` of ascending kept positions, for counting codes without building them."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.heads = np.cumsum([0] + [len(row) for row in rows])
        positions = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(self.heads[-1]))
        self.gaps = gaps_of(positions, self.heads[:-1][np.diff(self.heads) > 0])

    def counts(self, index_bits: int) -> NDArray[np.int64]:
        """Return ``len(encode_row(...))`` of every row."""
        codes = np.zeros(len(self.gaps) + 1, np.int64)
        np.cumsum(1 + self.gaps // ((1 << index_bits) - 1), out=codes[1:])
        counts: NDArray[np.int64] = np.maximum(np.diff(codes[self.heads]), 1)
        return counts


def choose_index_bits(
    rows: Sequence[Sequence[int]], value_bits: int, limit: int = 12, tolerance: float = TOLERANCE, together: int = 1
) -> int:
    """Choose ``k``: the fewest entries (cycles) among the widths within ``tolerance`` of the least storage.

    ``rows`` holds the kept positions of every row; ``together`` neighbours run in lock step, and each costs what the
    longest of them does. Ties go to the narrower index.
    """
    gaps, entries = Gaps(rows), {}
    for k in range(1, limit + 1):
        counts = gaps.counts(k)
        entries[k] = int(np.maximum.reduceat(counts, range(0, len(counts), together)).sum())
    bits = {k: count * together * (k + value_bits) for k, count in entries.items()}
    bound = min(bits.values()) * tolerance
    return min((k for k in entries if bits[k] <= bound), key=lambda k: (entries[k], k))
