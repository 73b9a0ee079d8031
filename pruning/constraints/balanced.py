"""Balanced pruning: equally many weights in every short run or bank of a row, so that no lane waits for another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.pruning.constraints.base import Mask, Structure, Values, as_matrix, check_axes
from zeroskip.pruning.constraints.topk import check_keep, check_size, kept_count, largest_in_rows
from zeroskip.pruning.constraints.views import group_sizes
from zeroskip.pruning.errors import PruningError

__all__ = ["NM", "BankBalanced"]


@dataclass(frozen=True)
class NM(Structure):
    """Tensors with at most ``n`` nonzero weights in every ``m`` consecutive entries of a row of ``[O, I*kh*kw]``.

    The last run of a row is shorter where ``m`` does not divide the row; it keeps up to ``n`` as well.

    Parameters
    ----------
    n, m : weights kept, and entries a run
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        check_size(self.n, "n")
        check_size(self.m, "m")
        if self.n > self.m:
            raise PruningError(f"n must be at most m, but n is {self.n} and m is {self.m}")

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of weights kept in a tensor of this shape."""
        check_axes("NM", shape)
        sizes = group_sizes(math.prod(shape[1:]), self.m)
        return shape[0] * int(np.minimum(sizes, self.n).sum())

    def scores(self, values: Values) -> Values:
        """Return ``|w|``."""
        return np.abs(values)

    def support(self, gains: Values) -> Mask:
        """Return the weights of largest gain in every run."""
        check_axes("NM", gains.shape)
        matrix = as_matrix(gains)
        columns = matrix.shape[1]
        if columns % self.m:
            # Gains are not negative, so what fills up the last run never wins against a weight.
            matrix = np.pad(matrix, ((0, 0), (0, -columns % self.m)), constant_values=-1)
        kept = largest_in_rows(matrix.reshape(-1, self.m), self.n).reshape(matrix.shape)
        return kept[:, :columns].reshape(gains.shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "nm", "n": self.n, "m": self.m}


@dataclass(frozen=True)
class BankBalanced(Structure):
    """Tensors with equally many weights in each of the equal parts of a row of ``[O, I*kh*kw]`` (METHODS 5).

    Parameters
    ----------
    banks : parts of a row, which must divide it
    keep : fraction of a bank's weights in (0, 1], or their number
    """

    banks: int
    keep: float | int

    def __post_init__(self) -> None:
        check_size(self.banks, "banks")
        check_keep(self.keep)

    def _bank(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return the weights of a bank and how many of them are kept."""
        check_axes("BankBalanced", shape)
        columns = math.prod(shape[1:])
        if columns % self.banks:
            divisors = [banks for banks in range(1, columns + 1) if columns % banks == 0]
            near = sorted(divisors, key=lambda banks: (abs(banks - self.banks), banks))[:2]
            raise PruningError(
                f"BankBalanced needs rows that {self.banks} banks divide, but the weight of shape {tuple(shape)} has "
                f"rows of {columns}; use banks={' or banks='.join(map(str, sorted(near)))}"
            )
        return columns // self.banks, kept_count(self.keep, columns // self.banks, what="weights a bank")

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of weights kept in a tensor of this shape."""
        return shape[0] * self.banks * self._bank(shape)[1]

    def scores(self, values: Values) -> Values:
        """Return ``|w|``."""
        return np.abs(values)

    def support(self, gains: Values) -> Mask:
        """Return the weights of largest gain in every bank."""
        size, kept = self._bank(gains.shape)
        return largest_in_rows(gains.reshape(-1, size), kept).reshape(gains.shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "bank_balanced", "keep": self.keep, "banks": self.banks}
