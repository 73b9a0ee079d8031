"""Bitmap: a mask bit for every position of a row and the values of the set bits.

A row is cut into mask words of ``width`` bits, lowest position in bit 0. The decoder takes a cycle for each set bit,
and one for a mask word without any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zeroskip.compiler.encodings.rows import check_row

__all__ = ["cycle_count", "decode_row", "encode_row", "entry_count", "index_width", "word_count"]


def encode_row(positions: Sequence[int], values: Sequence[int], length: int, width: int) -> tuple[list[int], list[int]]:
    """Encode the kept ``positions`` (ascending, below ``length``) of one row and their nonzero ``values``.

    Returns
    -------
    words : list[int], the masks; bits beyond the row's end are 0
    values : list[int], one a set bit, in order
    """
    words = [0] * word_count(length, width)
    row = check_row(positions, values, length)
    for position in row:
        words[position // width] |= 1 << position % width
    return words, list(row.values())


def decode_row(words: Sequence[int], values: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Return the positions and values that :func:`encode_row` encoded."""
    _check_width(width)
    positions: list[int] = []
    for number, word in enumerate(words):
        if not 0 <= word < 1 << width:
            raise ValueError(f"Mask word {number} must have {width} bits, not {word:#x}")
        positions += [number * width + bit for bit in range(width) if word >> bit & 1]
    if len(positions) != len(values):
        raise ValueError(f"Row has {len(positions)} mask bits set, but {len(values)} values")
    return positions, list(values)


def index_width(width: int) -> int:
    """Return the bits of an index code: a mask word is one."""
    _check_width(width)
    return width


def word_count(length: int, width: int) -> int:
    """Return the mask words of a row of ``length`` positions."""
    _check_width(width)
    if length < 1:
        raise ValueError(f"Row length must be at least 1, not {length!r}")
    return -(-length // width)


def entry_count(positions: Sequence[int]) -> int:
    """Return how many values, that is multiply slots, :func:`encode_row` makes, without building them."""
    return len(positions)


def cycle_count(words: Iterable[int]) -> int:
    """Return the cycles a row takes: one for each set bit, and one for a mask word without any."""
    return sum(max(1, int(word).bit_count()) for word in words)


def _check_width(width: int) -> None:
    """Refuse a mask word that has no bit."""
    if width < 1:
        raise ValueError(f"Mask width must be at least 1, not {width!r}")
