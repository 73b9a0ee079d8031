"""Block index: whole blocks of ``size`` elements, found by the relative index of their number.

An index code is the gap to the previous kept block, in ``k`` bits; ``2**k - 1`` is the escape: skip as many blocks.
Every code, escape or not, has exactly ``size`` values, zeros for an escape. Element ``s`` of block ``b`` lies at
position ``s * block_count + b``. Gaps restart at every row, and an empty row is one escape. Serves vectors (1 x n),
kernels and blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zeroskip.compiler.encodings import relative
from zeroskip.compiler.encodings.rows import check_row

__all__ = [
    "choose_index_bits",
    "decode_row",
    "element_major",
    "encode_row",
    "entry_count",
    "index_count",
    "index_width",
]


def element_major(block_count: int, size: int) -> list[int]:
    """Return the order of the taps: position ``s * block_count + b`` takes tap ``b * size + s``."""
    _check_shape(block_count, size)
    return [block * size + element for element in range(size) for block in range(block_count)]


def encode_row(
    positions: Sequence[int], values: Sequence[int], block_count: int, size: int, index_bits: int
) -> tuple[list[int], list[int]]:
    """Encode the kept ``positions`` (ascending) of one row and their nonzero ``values``.

    Returns
    -------
    indices : list[int], one code a block or escape
    values : list[int], ``size`` a code, element 0 first; an element that is not kept has value 0
    """
    _check_shape(block_count, size)
    _check_index_bits(index_bits)
    row = check_row(positions, values, block_count * size)
    kept = _kept_blocks(row, block_count)
    # the ordinal from 1 up tells a block from an escape, whose value is 0
    entries = relative.encode_row(kept, range(1, len(kept) + 1), index_bits)
    stream: list[int] = []
    for _, ordinal in entries:
        if ordinal:
            block = kept[ordinal - 1]
            stream += [row.get(element * block_count + block, 0) for element in range(size)]
        else:
            stream += [0] * size
    return [index for index, _ in entries], stream


def decode_row(
    indices: Sequence[int], values: Sequence[int], block_count: int, size: int, index_bits: int
) -> tuple[list[int], list[int]]:
    """Return the positions and values that :func:`encode_row` encoded."""
    _check_shape(block_count, size)
    _check_index_bits(index_bits)
    if len(values) != len(indices) * size:
        raise ValueError(f"Stream has {len(indices)} indices of {size} values, but {len(values)} values")
    entries = zip(indices, range(len(indices)), strict=True)
    blocks, places = relative.decode_row(entries, index_bits)
    row: dict[int, int] = {}
    for block, place in zip(blocks, places, strict=True):
        for element in range(size):
            value = values[place * size + element]
            if value:
                row[element * block_count + block] = value
    kept = sorted(row)
    return kept, [row[position] for position in kept]


def index_width(block_count: int) -> int:
    """Return the fewest index bits with which no gap needs an escape."""
    _check_shape(block_count, 1)
    return block_count.bit_length()


def index_count(positions: Iterable[int], block_count: int, index_bits: int) -> int:
    """Return how many index codes :func:`encode_row` makes, without building them."""
    _check_index_bits(index_bits)
    return relative.entry_count(_kept_blocks(positions, block_count), index_bits)


def entry_count(positions: Iterable[int], block_count: int, size: int, index_bits: int) -> int:
    """Return how many values, that is multiply slots, :func:`encode_row` makes, without building them."""
    return size * index_count(positions, block_count, index_bits)


def choose_index_bits(
    rows: Sequence[Sequence[int]],
    block_count: int,
    size: int,
    value_bits: int,
    limit: int = 12,
    tolerance: float = 1.05,
) -> int:
    """Choose ``k`` as :func:`zeroskip.compiler.encodings.relative.choose_index_bits` does, one entry a block."""
    blocks = [_kept_blocks(row, block_count) for row in rows]
    return relative.choose_index_bits(blocks, size * value_bits, limit, tolerance)


def _kept_blocks(positions: Iterable[int], block_count: int) -> list[int]:
    """Return the ascending numbers of the blocks that hold a kept position."""
    return sorted({position % block_count for position in positions})


def _check_shape(block_count: int, size: int) -> None:
    """Refuse a row without a block and a block without an element."""
    if block_count < 1:
        raise ValueError(f"Block count must be at least 1, not {block_count!r}")
    if size < 1:
        raise ValueError(f"Block size must be at least 1, not {size!r}")


def _check_index_bits(index_bits: int) -> None:
    """Refuse an index that has no bit."""
    if index_bits < 1:
        raise ValueError(f"Index bits must be at least 1, not {index_bits!r}")
