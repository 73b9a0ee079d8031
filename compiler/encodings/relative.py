"""Relative index with escapes: the gap to the previous kept position, in ``k`` bits.

Code ``2**k - 1`` is the escape: skip ``2**k - 1`` positions, multiply nothing. Gaps restart at every row, and an empty
row is one escape, so that every row has at least one code. What is counted may also be blocks or kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["TOLERANCE", "choose_index_bits", "encode_row", "entry_count"]

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


def entry_count(positions: Sequence[int], index_bits: int) -> int:
    """Return ``len(encode_row(...))`` without building it."""
    escape = (1 << index_bits) - 1
    count = 0
    cursor = 0
    for position in positions:
        count += 1 + (position - cursor) // escape
        cursor = position + 1
    return max(count, 1)


def choose_index_bits(
    rows: Sequence[Sequence[int]], value_bits: int, limit: int = 12, tolerance: float = TOLERANCE, together: int = 1
) -> int:
    """Choose ``k``: the fewest entries (cycles) among the widths within ``tolerance`` of the least storage.

    ``rows`` holds the kept positions of every row; ``together`` neighbours run in lock step, and each costs what the
    longest of them does. Ties go to the narrower index.
    """
    entries = {}
    for k in range(1, limit + 1):
        counts = [entry_count(row, k) for row in rows]
        entries[k] = sum(max(counts[first : first + together]) for first in range(0, len(counts), together))
    bits = {k: count * together * (k + value_bits) for k, count in entries.items()}
    bound = min(bits.values()) * tolerance
    return min((k for k in entries if bits[k] <= bound), key=lambda k: (entries[k], k))
