"""Groups of adjacent entries along an axis: reduced to one value each, and spread out again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["group_count", "group_sizes", "reduce_groups", "spread_groups"]


def group_count(length: int, size: int) -> int:
    """Return the number of groups of ``size`` in ``length`` entries; the last one may be shorter."""
    return -(-length // size)


def group_sizes(length: int, size: int) -> NDArray[np.int64]:
    """Return the length of every group."""
    return np.minimum(size, length - np.arange(0, length, size))


def reduce_groups(values: NDArray[Any], size: int, axis: int, ufunc: np.ufunc = np.add) -> NDArray[Any]:
    """Return one value for every ``size`` adjacent entries along ``axis``; the last group may be shorter."""
    # One strided slice an entry of the group: several times faster than reduceat, and the same order in every group.
    moved = np.moveaxis(values, axis, -1)
    groups = moved[..., ::size].copy()
    for first in range(1, min(size, moved.shape[-1])):
        part = moved[..., first::size]
        full = groups[..., : part.shape[-1]]
        ufunc(full, part, out=full)
    return np.moveaxis(groups, -1, axis)


def spread_groups(groups: NDArray[Any], size: int, axis: int, length: int) -> NDArray[Any]:
    """Return ``length`` entries along ``axis`` that have the value of their group of ``size``."""
    if size == 1:
        return groups
    entries: list[slice] = [slice(None)] * groups.ndim
    entries[axis] = slice(length)
    return np.repeat(groups, min(size, length), axis=axis)[tuple(entries)]
