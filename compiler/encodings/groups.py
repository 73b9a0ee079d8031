"""Group index: exactly ``n`` entries for every ``m`` consecutive positions (N:M and bank-balanced sparsity).

An index code is the position within the group, in ``ceil(log2(m))`` bits; there are no escapes. A group with fewer than
``n`` nonzero values is padded with (index 0, value 0). With ``n == m`` the row is dense: the code has no bits (it reads
as 0), the entries stand in order. The last group may be shorter than ``m``; it has ``n`` entries all the same, and in a
dense row those beyond its end have value 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.compiler.encodings.rows import check_row

__all__ = ["decode_row", "encode_row", "entry_count", "index_width"]


def encode_row(
    positions: Sequence[int], values: Sequence[int], length: int, n: int, m: int
) -> tuple[list[int], list[int]]:
    """Encode the kept ``positions`` (ascending, below ``length``) of one row and their nonzero ``values``.

    Returns
    -------
    indices : list[int], one code a value
    values : list[int], ``n`` a group, a padding has value 0

    Raises
    ------
    ValueError
        If a group holds more than ``n`` values.
    """
    _check_group(n, m)
    row = check_row(positions, values, length)
    groups = _group_count(length, m)
    if n == m:
        return [0] * (groups * m), [row.get(position, 0) for position in range(groups * m)]
    kept: list[list[tuple[int, int]]] = [[] for _ in range(groups)]
    for position, value in row.items():
        kept[position // m].append((position % m, value))
    indices: list[int] = []
    stream: list[int] = []
    for group, entries in enumerate(kept):
        if len(entries) > n:
            raise ValueError(f"Group {group} has {len(entries)} values, but {n} of {m} are allowed")
        for index, value in entries + [(0, 0)] * (n - len(entries)):
            indices.append(index)
            stream.append(value)
    return indices, stream


def decode_row(
    indices: Sequence[int], values: Sequence[int], length: int, n: int, m: int
) -> tuple[list[int], list[int]]:
    """Return the positions and values that :func:`encode_row` encoded."""
    count = entry_count(length, n, m)
    if len(indices) != count or len(values) != count:
        raise ValueError(
            f"Row of {length} positions has {count} entries, but the stream has {len(indices)} indices "
            f"and {len(values)} values"
        )
    kept: list[tuple[int, int]] = []
    for entry, (index, value) in enumerate(zip(indices, values, strict=True)):
        if value:
            offset = entry % m if n == m else index
            kept.append((entry // n * m + offset, value))
    return [position for position, _ in kept], [value for _, value in kept]


def index_width(n: int, m: int) -> int:
    """Return the bits of an index code: none for a dense row."""
    _check_group(n, m)
    return 0 if n == m else (m - 1).bit_length()


def entry_count(length: int, n: int, m: int) -> int:
    """Return how many entries, that is multiply slots, a row of ``length`` positions has."""
    _check_group(n, m)
    return _group_count(length, m) * n


def _group_count(length: int, m: int) -> int:
    """Return the groups of a row, the short last one counted."""
    return -(-length // m)


def _check_group(n: int, m: int) -> None:
    """Refuse a group without an entry or with more entries than positions."""
    if m < 1:
        raise ValueError(f"Group size m must be at least 1, not {m!r}")
    if not 1 <= n <= m:
        raise ValueError(f"Group entries n must be 1 to {m}, not {n!r}")
