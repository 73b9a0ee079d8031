"""Codebook: few distinct weight levels, stored as their number in a table.

Level 0 is entry 0 where it occurs; the other levels ascend. A network without zeros spends no entry on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["build_codebook", "code_width", "decode", "encode"]


def build_codebook(levels: Iterable[int], bits: int) -> tuple[int, ...]:
    """Return the table of the distinct ``levels``: 0 first if it occurs, then ascending.

    Raises
    ------
    ValueError
        If there are no levels, or more than ``2**bits`` distinct ones.
    """
    distinct = {int(level) for level in levels}
    if not distinct:
        raise ValueError("Codebook must have at least one level, not 0")
    if len(distinct) > 1 << bits:
        raise ValueError(f"Weights have {len(distinct)} levels, but a codebook of {bits} bits has {1 << bits}")
    return tuple(sorted(distinct, key=lambda level: (level != 0, level)))


def code_width(codebook: Sequence[int]) -> int:
    """Return the bits of a code, at least 1."""
    return max(1, (len(codebook) - 1).bit_length())


def encode(levels: Iterable[int], codebook: Sequence[int]) -> list[int]:
    """Return the code of each level.

    Raises
    ------
    ValueError
        If a level is not in the codebook.
    """
    codes = {level: code for code, level in enumerate(codebook)}
    result: list[int] = []
    for level in levels:
        if level not in codes:
            raise ValueError(f"Level must be one of {list(codebook)}, not {int(level)}")
        result.append(codes[level])
    return result


def decode(codes: Iterable[int], codebook: Sequence[int]) -> list[int]:
    """Return the level of each code.

    Raises
    ------
    ValueError
        If a code is not an entry of the codebook.
    """
    result: list[int] = []
    for code in codes:
        if not 0 <= code < len(codebook):
            raise ValueError(f"Code must be 0 to {len(codebook) - 1}, not {code}")
        result.append(codebook[code])
    return result
