"""Bitmap: a mask bit for every position of a row.

A row is cut into mask words of ``width`` bits, lowest position in bit 0. The decoder takes a slot for each set bit, and
one for a mask word without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zeroskip.compiler.encodings.relative import TOLERANCE

__all__ = ["LIMIT", "Rows", "choose_width", "encode_row", "slot_count", "word_count"]

LIMIT = 8
"""The widest mask word that :func:`choose_width` takes: a wider one costs logic, and few words are empty by then."""


def encode_row(positions: Sequence[int], length: int, width: int) -> list[int]:
    """Encode the kept ``positions`` (below ``length``) of one row as masks; bits beyond the row's end are 0."""
    words = [0] * word_count(length, width)
    for position in positions:
        if not 0 <= position < length:
            raise ValueError(f"Position must be 0 to {length - 1}, not {position}")
        words[position // width] |= 1 << position % width
    return words


def word_count(length: int, width: int) -> int:
    """Return the mask words of a row of ``length`` positions."""
    if width < 1:
        raise ValueError(f"Mask width must be at least 1, not {width!r}")
    if length < 1:
        raise ValueError(f"Row length must be at least 1, not {length!r}")
    return -(-length // width)


def slot_count(positions: Sequence[int], length: int, width: int) -> int:
    """Return the slots that a row takes: one for each set bit, and one for a mask word without any."""
    used = {position // width for position in positions}
    return len(positions) + word_count(length, width) - len(used)


class Rows(NamedTuple):
    """The rows of a layer: the kept positions of each, their length, bits a value, and how many run in lock step."""

    positions: Sequence[Sequence[int]]
    length: int
    value_bits: int
    together: int = 1

    def slots(self, width: int) -> int:
        """Return the slots of all rows; each of those in lock step costs what the longest of them does."""
        counts = [slot_count(row, self.length, width) for row in self.positions]
        step = self.together
        return sum(max(counts[first : first + step]) for first in range(0, len(counts), step))


def choose_width(
    layers: Sequence[Rows], others: int = 0, least: int = 1, limit: int = LIMIT, tolerance: float = TOLERANCE
) -> int:
    """Choose the bits of a mask word for all ``layers``: the fewest slots within ``tolerance`` of the least storage.

    The index image holds ``others`` codes of other layers, ``least`` bits wide at least: a wider word makes all of its
    slots wider. Ties go to the narrower word.
    """
    slots, bits = {}, {}
    for width in range(1, max(limit, least) + 1):
        image = max(width, least)
        counts = [layer.slots(width) for layer in layers]
        words = sum(len(layer.positions) * word_count(layer.length, width) for layer in layers)
        values = sum(count * layer.together * layer.value_bits for count, layer in zip(counts, layers, strict=True))
        slots[width] = sum(counts)
        bits[width] = image * words + (image - least) * others + values
    bound = min(bits.values()) * tolerance
    return min((width for width in slots if bits[width] <= bound), key=lambda width: (slots[width], width))
