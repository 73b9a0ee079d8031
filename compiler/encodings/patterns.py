"""Pattern index: kept kernels, each with the number of the pattern that its nonzero values lie in.

An index code is ``gap | id << gap_bits``: the gap to the previous kept kernel and the number of the pattern. As in the
relative index, gap ``2**gap_bits - 1`` is the escape (id 0). Every code, escape or not, has exactly as many values as a
pattern has offsets, in the pattern's order; a repeated offset has its value once, then 0. Offset ``o`` of kernel ``b``
lies at position ``o * kernel_count + b``. Gaps restart at every row, and an empty row is one escape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zeroskip.compiler.encodings import relative
from zeroskip.compiler.encodings.rows import check_row

__all__ = ["Pattern", "decode_row", "encode_row", "entry_count", "index_count", "index_width", "pad_patterns"]

Pattern = tuple[int, ...]
"""The offsets of the kept positions in a kernel."""


def pad_patterns(patterns: Iterable[Sequence[int]]) -> tuple[Pattern, ...]:
    """Bring all patterns to the length of the longest: a shorter one repeats its last offset.

    Raises
    ------
    ValueError
        If there is no pattern, one has no offset, or one has an offset twice.
    """
    given = [tuple(pattern) for pattern in patterns]
    if not given:
        raise ValueError("Patterns must be at least one, not 0")
    for number, pattern in enumerate(given):
        if not pattern:
            raise ValueError(f"Pattern {number} must have at least one offset, not 0")
        if len(set(pattern)) != len(pattern):
            raise ValueError(f"Pattern {number} must have different offsets, not {list(pattern)}")
    longest = max(len(pattern) for pattern in given)
    return tuple(pattern + pattern[-1:] * (longest - len(pattern)) for pattern in given)


def encode_row(
    positions: Sequence[int], values: Sequence[int], kernel_count: int, patterns: Sequence[Pattern], gap_bits: int
) -> tuple[list[int], list[int]]:
    """Encode the kept ``positions`` (ascending) of one row and their nonzero ``values``.

    A kernel takes the first pattern that holds all its nonzero values.

    Returns
    -------
    indices : list[int], one code a kernel or escape
    values : list[int], as many a code as a pattern has offsets

    Raises
    ------
    ValueError
        If no pattern holds a kernel.
    """
    _check_patterns(kernel_count, patterns, gap_bits)
    # a position beyond every pattern is refused below, by its kernel
    size = 1 + max([max(max(p) for p in patterns), *(position // kernel_count for position in positions)])
    row = check_row(positions, values, kernel_count * size)
    kept = _kept_kernels(row, kernel_count)
    # the ordinal from 1 up tells a kernel from an escape, whose value is 0
    entries = relative.encode_row(kept, range(1, len(kept) + 1), gap_bits)
    indices: list[int] = []
    stream: list[int] = []
    for gap, ordinal in entries:
        if not ordinal:
            indices.append(gap)
            stream += [0] * len(patterns[0])
            continue
        kernel = kept[ordinal - 1]
        weights = {offset: row[p] for offset in range(size) if (p := offset * kernel_count + kernel) in row}
        number = _choose_pattern(kernel, weights, patterns)
        indices.append(gap | number << gap_bits)
        stream += [weights.pop(offset, 0) for offset in patterns[number]]
    return indices, stream


def decode_row(
    indices: Sequence[int], values: Sequence[int], kernel_count: int, patterns: Sequence[Pattern], gap_bits: int
) -> tuple[list[int], list[int]]:
    """Return the positions and values that :func:`encode_row` encoded."""
    _check_patterns(kernel_count, patterns, gap_bits)
    length = len(patterns[0])
    if len(values) != len(indices) * length:
        raise ValueError(f"Stream has {len(indices)} indices of {length} values, but {len(values)} values")
    escape = (1 << gap_bits) - 1
    gaps = [index & escape for index in indices]
    kernels, places = relative.decode_row(zip(gaps, range(len(gaps)), strict=True), gap_bits)
    row: dict[int, int] = {}
    for kernel, place in zip(kernels, places, strict=True):
        number = indices[place] >> gap_bits
        if number >= len(patterns):
            raise ValueError(f"Pattern must be 0 to {len(patterns) - 1}, not {number}")
        for offset, value in zip(patterns[number], values[place * length : (place + 1) * length], strict=True):
            if value:
                row[offset * kernel_count + kernel] = value
    kept = sorted(row)
    return kept, [row[position] for position in kept]


def index_width(gap_bits: int, pattern_count: int) -> int:
    """Return the bits of an index code; a single pattern needs no number."""
    if pattern_count < 1:
        raise ValueError(f"Pattern count must be at least 1, not {pattern_count!r}")
    return gap_bits + (pattern_count - 1).bit_length()


def index_count(positions: Iterable[int], kernel_count: int, gap_bits: int) -> int:
    """Return how many index codes :func:`encode_row` makes, without building them."""
    return relative.entry_count(_kept_kernels(positions, kernel_count), gap_bits)


def entry_count(positions: Iterable[int], kernel_count: int, patterns: Sequence[Pattern], gap_bits: int) -> int:
    """Return how many values, that is multiply slots, :func:`encode_row` makes, without building them."""
    return len(patterns[0]) * index_count(positions, kernel_count, gap_bits)


def _kept_kernels(positions: Iterable[int], kernel_count: int) -> list[int]:
    """Return the ascending numbers of the kernels that hold a kept position."""
    return sorted({position % kernel_count for position in positions})


def _choose_pattern(kernel: int, weights: dict[int, int], patterns: Sequence[Pattern]) -> int:
    """Return the number of the first pattern that holds all offsets of ``weights``."""
    for number, pattern in enumerate(patterns):
        if weights.keys() <= set(pattern):
            return number
    raise ValueError(f"Kernel {kernel} keeps offsets {sorted(weights)}, which no pattern holds")


def _check_patterns(kernel_count: int, patterns: Sequence[Pattern], gap_bits: int) -> None:
    """Refuse what cannot be coded."""
    if kernel_count < 1:
        raise ValueError(f"Kernel count must be at least 1, not {kernel_count!r}")
    if gap_bits < 1:
        raise ValueError(f"Gap bits must be at least 1, not {gap_bits!r}")
    lengths = {len(pattern) for pattern in patterns}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"Patterns must have one length of at least 1, not {sorted(lengths)}")
