"""Column pruning: whole columns of the GEMM view, so that one short list of positions serves every output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.constraints.topk import check_keep, kept_count, largest
from zeroskip.pruning.errors import PruningError

__all__ = ["Column"]


@dataclass(frozen=True)
class Column:
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
        if self.group < 1:
            raise PruningError(f"group must be at least 1, not {self.group!r}")

    def groups(self, shape: Sequence[int]) -> int:
        """Return the number of column groups of a tensor of this shape."""
        if len(shape) < 2:
            raise PruningError(f"Column needs a weight with two or more axes, not shape {tuple(shape)}")
        return -(-math.prod(shape[1:]) // self.group)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of column groups kept in a tensor of this shape."""
        return kept_count(self.keep, self.groups(shape))

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor: the groups of largest L2 norm stay, the lower index wins a tie."""
        matrix = weight.detach().reshape(weight.shape[0], -1)
        energy = matrix.cpu().numpy().astype(np.float64)
        scores = np.add.reduceat((energy * energy).sum(axis=0), np.arange(0, matrix.shape[1], self.group))
        columns = np.repeat(largest(scores, self.count(weight.shape)), self.group)[: matrix.shape[1]]
        return (matrix * torch.from_numpy(columns).to(matrix.device)).reshape(weight.shape)

    def violation(self, weight: Tensor) -> float:
        """Return the distance to the set, 0 when feasible."""
        return float((weight.detach() - self.project(weight)).norm())

    def describe(self) -> dict[str, float | int | str]:
        """Return the set as the artifact's header names it."""
        return {"kind": "column", "keep": self.keep, "group": self.group}
