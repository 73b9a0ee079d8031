"""Vectors of channels and blocks of the GEMM view: groups that an engine reads in one word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zeroskip.pruning.constraints.base import Grouped, Mask, Values, as_kernels, as_matrix, check_axes
from zeroskip.pruning.constraints.topk import check_keep, check_size, kept_count
from zeroskip.pruning.constraints.views import group_count, reduce_groups, spread_groups
from zeroskip.pruning.errors import PruningError

__all__ = ["Block", "Vector"]

AXES = ("output", "input")


@dataclass(frozen=True)
class Vector(Grouped):
    """Tensors with at most ``count`` nonzero runs of channels at one kernel position (METHODS 4.1, 1-D).

    Parameters
    ----------
    keep : fraction of the vectors in (0, 1], or their number
    axis : ``input``: 1 x n along the input channels; ``output``: n x 1 along the output channels
    size : channels a vector; the last one is shorter where they do not divide
    """

    keep: float | int
    axis: str = "input"
    size: int = 4

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_size(self.size, "size")
        if self.axis not in AXES:
            raise PruningError(f"axis must be input or output, not {self.axis!r}")

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of vectors kept in a tensor of this shape."""
        check_axes("Vector", shape)
        axis = AXES.index(self.axis)
        groups = math.prod(shape) // shape[axis] * group_count(shape[axis], self.size)
        return kept_count(self.keep, groups)

    def sums(self, gains: Values) -> Values:
        """Return the sum of every vector, by output, input and position."""
        return reduce_groups(as_kernels(gains), self.size, AXES.index(self.axis))

    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return the weights of the kept vectors."""
        axis = AXES.index(self.axis)
        return spread_groups(kept, self.size, axis, shape[axis]).reshape(shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "vector", "keep": self.keep, "axis": self.axis, "size": self.size}


@dataclass(frozen=True)
class Block(Grouped):
    """Tensors with at most ``count`` nonzero blocks of the matrix ``[O, I*kh*kw]``.

    Parameters
    ----------
    keep : fraction of the blocks in (0, 1], or their number
    rows, columns : entries a block; blocks at the lower and right edge are smaller where the matrix does not divide
    """

    keep: float | int
    rows: int = 4
    columns: int = 4

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_size(self.rows, "rows")
        check_size(self.columns, "columns")

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of blocks kept in a tensor of this shape."""
        check_axes("Block", shape)
        bands = group_count(shape[0], self.rows)
        return kept_count(self.keep, bands * group_count(math.prod(shape[1:]), self.columns))

    def sums(self, gains: Values) -> Values:
        """Return the sum of every block, by band and column."""
        return reduce_groups(reduce_groups(as_matrix(gains), self.rows, 0), self.columns, 1)

    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return the weights of the kept blocks."""
        bands = spread_groups(kept, self.columns, 1, math.prod(shape[1:]))
        return spread_groups(bands, self.rows, 0, shape[0]).reshape(shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "block", "keep": self.keep, "rows": self.rows, "columns": self.columns}
