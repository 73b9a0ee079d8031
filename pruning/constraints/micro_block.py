"""Micro-structured unification: one magnitude a block with free signs, so that n additions share one product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.constraints.base import ConstraintSet, Mask, Values, as_matrix, check_axes, finite_values
from zeroskip.pruning.constraints.ties import Tied
from zeroskip.pruning.constraints.topk import check_keep, check_size, kept_count, largest
from zeroskip.pruning.constraints.views import group_count, group_sizes, reduce_groups, spread_groups
from zeroskip.pruning.errors import PruningError

__all__ = ["MicroBlock"]

MODES = ("unify", "prune", "both")


@dataclass(frozen=True)
class MicroBlock(ConstraintSet):
    """Tensors whose blocks of the matrix ``[O, I*kh*kw]`` are pruned or share one magnitude (METHODS 3.2).

    ``unify``: the magnitude of every block is its mean ``|w|``; signs stay, the sign of 0 is +. ``prune``: blocks of
    least energy go, the others keep their values. ``both``: a block goes or is unified. These are exact. Where
    ``unified`` leaves blocks free, pruned blocks are chosen first and unified ones among the rest, the order of the
    authors' patent: feasible and idempotent, not exact.

    Blocks of 1 x n along a row suit an engine with n signed additions a product. The artifact names runs along a row
    only, so that blocks of several rows count as one run a row, and n x 1 as pruned blocks without a shared magnitude.

    Parameters
    ----------
    keep : fraction of the blocks that are not pruned in (0, 1], or their number; 1.0 with ``unify``
    rows, columns : entries a block, such as 1 x 4, 4 x 1, 1 x 8, 1 x 16, 4 x 4; smaller at the lower and right edge
    mode : ``unify``, ``prune`` or ``both``
    unified : fraction of the kept blocks that share a magnitude in (0, 1], or their number; 1.0 with ``prune``
    """

    keep: float | int = 1.0
    rows: int = 1
    columns: int = 4
    mode: str = "unify"
    unified: float | int = 1.0

    def __post_init__(self) -> None:
        check_keep(self.keep)
        check_keep(self.unified, "unified")
        check_size(self.rows, "rows")
        check_size(self.columns, "columns")
        if self.mode not in MODES:
            raise PruningError(f"mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        # A whole number counts blocks: 1 is one of them, 1.0 is all.
        if self.mode == "unify" and not _all(self.keep):
            raise PruningError(f"mode unify prunes nothing, so keep must be 1.0, not {self.keep!r}; use mode both")
        if self.mode == "prune" and not _all(self.unified):
            raise PruningError(f"mode prune unifies nothing, so unified must be 1.0, not {self.unified!r}; use both")

    def _blocks(self, shape: Sequence[int]) -> int:
        check_axes("MicroBlock", shape)
        return group_count(shape[0], self.rows) * group_count(math.prod(shape[1:]), self.columns)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of blocks kept in a tensor of this shape."""
        return self._counts(shape)[0]

    def _counts(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return how many blocks are kept, and how many of these share a magnitude."""
        blocks = self._blocks(shape)
        kept = blocks if self.mode == "unify" else kept_count(self.keep, blocks)
        return kept, 0 if self.mode == "prune" else kept_count(self.unified, kept, "unified", "kept blocks")

    def _reduce(self, matrix: Values, ufunc: np.ufunc = np.add) -> Values:
        return reduce_groups(reduce_groups(matrix, self.rows, 0, ufunc), self.columns, 1, ufunc)

    def _spread(self, blocks: Values, shape: tuple[int, ...]) -> Values:
        return spread_groups(spread_groups(blocks, self.columns, 1, shape[1]), self.rows, 0, shape[0])

    def _entries(self, matrix: Values) -> Values:
        """Return the entries of every block."""
        return np.outer(group_sizes(matrix.shape[0], self.rows), group_sizes(matrix.shape[1], self.columns))

    def _magnitudes(self, matrix: Values) -> tuple[Values, Mask]:
        """Return the mean ``|w|`` of every block, and which blocks have one magnitude already: these keep it."""
        size = np.abs(matrix)
        highest = self._reduce(size, np.maximum)
        uniform = highest == self._reduce(size, np.minimum)
        # Divided first: a sum of the largest numbers would overflow.
        mean = self._reduce(size.astype(np.float64) / self._spread(self._entries(matrix), matrix.shape))
        return np.where(uniform, highest, mean), uniform

    def _selected(self, matrix: Values, mean: Values, uniform: Mask, shape: Sequence[int]) -> tuple[Mask, Mask]:
        """Return which blocks stay, and which of these are unified."""
        count, unified_count = self._counts(shape)
        scale = float(np.abs(matrix).max()) or 1.0
        scaled = matrix.astype(np.float64) / scale
        if unified_count == count:
            # All that stays is unified: pruning a block costs n * mean^2 more than unifying it.
            gains = self._entries(matrix) * np.square(mean / scale)
            kept = largest(gains.reshape(-1), count).reshape(mean.shape)
            return kept, kept
        kept = largest(self._reduce(np.square(scaled)).reshape(-1), count).reshape(mean.shape)
        if not unified_count:
            return kept, np.zeros(mean.shape, bool)
        spread = self._spread(mean / scale, matrix.shape)
        costs = np.where(uniform, 0.0, self._reduce(np.square(np.abs(scaled) - spread)))
        # Costs are not negative; blocks that are pruned never come before one that stays.
        cheap = np.where(kept, -costs, -np.inf).reshape(-1)
        return kept, largest(cheap, unified_count).reshape(mean.shape)

    def project(self, weight: Tensor) -> Tensor:
        """Return the feasible tensor: exact unless blocks stay free; of equal blocks the lower index wins."""
        self.count(weight.shape)
        matrix = as_matrix(finite_values(weight))
        mean, uniform = self._magnitudes(matrix)
        kept, unified = (self._spread(m, matrix.shape) for m in self._selected(matrix, mean, uniform, weight.shape))
        shared = self._spread(mean, matrix.shape).astype(matrix.dtype)
        result = np.where(unified, np.where(matrix < 0, -shared, shared), matrix) * kept
        return torch.from_numpy(result.reshape(tuple(weight.shape))).to(weight.device, weight.dtype)

    def fit(self, weight: Tensor) -> MicroBlock:
        """Return the set with a count for a fraction, which :meth:`describe` needs for blocks of several rows."""
        count = self.count(weight.shape)
        return self if self.mode == "unify" or self.rows == 1 else replace(self, keep=count)

    def ties(self, weight: Tensor) -> Tied | None:
        """Return the blocks that share a magnitude; weights of other blocks are free."""
        if self.mode == "prune":
            return None
        matrix = as_matrix(finite_values(weight))
        uniform = self._spread(self._magnitudes(matrix)[1], matrix.shape)
        blocks = np.arange(self._blocks(weight.shape)).reshape(group_count(matrix.shape[0], self.rows), -1)
        own = blocks.size + np.arange(matrix.size).reshape(matrix.shape)
        index = np.where(uniform, self._spread(blocks, matrix.shape), own)
        sign = np.where(uniform & (matrix < 0), -1.0, 1.0) * (matrix != 0)
        return Tied(
            torch.from_numpy(index.reshape(tuple(weight.shape))).to(weight.device),
            torch.from_numpy(sign.reshape(tuple(weight.shape))).to(weight.device, weight.dtype),
        )

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        if self.mode != "prune" and _all(self.unified) and self.columns > 1:
            whole = self.keep * self.rows if isinstance(self.keep, int) else 1.0
            return {"kind": "micro_block", "keep": self.keep if self.rows == 1 else whole, "size": self.columns}
        if self.mode == "unify":
            return {"kind": "dense"}
        return {"kind": "block", "keep": self.keep, "rows": self.rows, "columns": self.columns}


def _all(share: float | int) -> bool:
    """Return whether a fraction, or a count, is the fraction 1."""
    return isinstance(share, float) and share == 1.0
