"""Column pruning: whole columns of the GEMM view, so that one short list of positions serves every output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.pruning.constraints.base import Grouped, Mask, Values, as_matrix, check_axes
from zeroskip.pruning.constraints.topk import check_keep, check_size, kept_count
from zeroskip.pruning.constraints.views import group_count, reduce_groups, spread_groups

__all__ = ["Column"]


@dataclass(frozen=True)
class Column(Grouped):
    """Tensors with at most ``count`` nonzero column groups (StructADMM 2.1, filter-shape-wise).

    The view is the matrix ``[O, I*kh*kw]`` of a convolution or ``[O, I]`` of a linear layer; ``group`` adjacent columns
    live or die together (the last group is shorter where the columns do not divide). Group 4 on a linear layer lets an
    engine of four lanes read whole words.

    Parameters
    ----------
    keep : fraction of the column groups in (0, 1], or their number
    group : adjacent columns a group
    """

    keep: float | int
    group: int = 1

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_size(self.group, "group")

    def groups(self, shape: Sequence[int]) -> int:
        """Return the number of column groups of a tensor of this shape."""
        check_axes("Column", shape)
        return group_count(math.prod(shape[1:]), self.group)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of column groups kept in a tensor of this shape."""
        return kept_count(self.keep, self.groups(shape))

    def sums(self, gains: Values) -> Values:
        """Return the sum of every column group, in order."""
        return reduce_groups(as_matrix(gains).sum(axis=0), self.group, 0)

    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return the weights of the kept column groups."""
        columns = math.prod(shape[1:])
        mask = spread_groups(kept, self.group, 0, columns)
        return np.broadcast_to(mask, (shape[0], columns)).copy().reshape(shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "column", "keep": self.keep, "group": self.group}
