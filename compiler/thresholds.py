"""Thresholds as the hardware searches them: one table a bit of the result, highest bit first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.ir import Layer, Tensor
from zeroskip.compiler.reference import accumulator_range

__all__ = ["join_tables", "padded_thresholds", "search_stages", "search_tables"]

IntArray = NDArray[np.int64]


def search_stages(thresholds: IntArray | None) -> int:
    """Return the bits of a count of ``thresholds``, shape (O, T): as many stages find it; 0 without thresholds."""
    return 0 if thresholds is None else int(thresholds.shape[1]).bit_length()


def padded_thresholds(layer: Layer, source: Tensor) -> IntArray:
    """Return the thresholds of ``layer`` for every count of its stages, shape ``(O, 2**stages - 1)``.

    None lies outside of what the accumulator can tell apart: with a proved range of ``low`` to ``high`` the threshold
    ``low`` is always reached and ``high + 1`` never, which fills up what is missing.
    """
    thresholds = np.asarray(layer.thresholds, np.int64)
    low, high = accumulator_range(layer, source).partial
    missing = (1 << search_stages(thresholds)) - 1 - thresholds.shape[1]
    padded: IntArray = np.pad(np.clip(thresholds, low, high + 1), ((0, 0), (0, missing)), constant_values=high + 1)
    return padded


def search_tables(thresholds: IntArray) -> list[IntArray]:
    """Return what each stage of a binary search compares with, stage ``s`` of shape ``(O, 2**s)``.

    Entry ``p`` belongs to accumulators whose count begins with the ``s`` bits ``p``: reached, the next bit is 1.

    Parameters
    ----------
    thresholds : ndarray[int64], shape (O, 2**stages - 1), each row ascending
    """
    stages = search_stages(thresholds)
    return [thresholds[:, (1 << stages - 1 - s) - 1 :: 1 << stages - s] for s in range(stages)]


def join_tables(tables: Sequence[IntArray]) -> IntArray:
    """Return the thresholds of ``tables``, the inverse of :func:`search_tables`."""
    stages = len(tables)
    thresholds: IntArray = np.zeros((len(tables[0]), (1 << stages) - 1), np.int64)
    for s, table in enumerate(tables):
        thresholds[:, (1 << stages - 1 - s) - 1 :: 1 << stages - s] = table
    return thresholds
