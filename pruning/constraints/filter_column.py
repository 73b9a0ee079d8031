"""Filter and column pruning together: a submatrix of the GEMM view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.pruning.constraints.base import Mask, Structure, Values, as_matrix, check_axes
from zeroskip.pruning.constraints.topk import check_keep, kept_count, largest

__all__ = ["FilterColumn"]


@dataclass(frozen=True)
class FilterColumn(Structure):
    """Tensors whose nonzero weights lie in a submatrix of the GEMM view (METHODS 1.4, filter and column).

    The best submatrix is hard to find. Rows and columns are chosen in turn, given the others, until nothing changes;
    this starts from all columns and from all rows, and the better result stays. So the projection is not exact, but
    never worse than pruning filters before columns or columns before filters.

    Parameters
    ----------
    filters : fraction of the filters in (0, 1], or their number
    columns : fraction of the columns in (0, 1], or their number
    """

    filters: float | int
    columns: float | int

    def __post_init__(self) -> None:
        check_keep(self.filters, "filters")
        check_keep(self.columns, "columns")

    def _counts(self, shape: Sequence[int]) -> tuple[int, int]:
        check_axes("FilterColumn", shape)
        rows = kept_count(self.filters, shape[0], "filters", "filters")
        return rows, kept_count(self.columns, math.prod(shape[1:]), "columns", "columns")

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of weights of the submatrix kept in a tensor of this shape."""
        return math.prod(self._counts(shape))

    def support(self, gains: Values) -> Mask:
        """Return the better submatrix of the two that the alternation finds."""
        matrix = as_matrix(gains)
        row_count, column_count = self._counts(gains.shape)
        rows, columns, by_rows = _alternate(matrix, row_count, column_count)
        other_columns, other_rows, by_columns = _alternate(matrix.T, column_count, row_count)
        if by_columns > by_rows:
            rows, columns = other_rows, other_columns
        return np.logical_and.outer(rows, columns).reshape(gains.shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it: filters of zeros need no word in it."""
        return {"kind": "column", "keep": self.columns, "group": 1}


def _alternate(matrix: Values, row_count: int, column_count: int) -> tuple[Mask, Mask, float]:
    """Return rows, columns and their gain, starting from the rows of largest sum."""
    sums = matrix.sum(axis=1)
    rows, columns, kept = largest(sums, row_count), np.zeros(matrix.shape[1], bool), -1.0
    while True:
        by_column = matrix[rows].sum(axis=0)
        better_columns = largest(by_column, column_count)
        by_row = matrix[:, better_columns].sum(axis=1)
        better_rows = largest(by_row, row_count)
        gain = float(by_row[better_rows].sum())
        # Rounding could let equal choices follow one another forever, so only a gain goes on.
        if gain <= kept:
            return rows, columns, kept
        rows, columns, kept = better_rows, better_columns, gain
