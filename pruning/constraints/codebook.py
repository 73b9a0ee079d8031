"""Weight sharing: the nonzero weights of a layer have a few values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.constraints.base import ConstraintSet, Values, finite_values
from zeroskip.pruning.constraints.ties import Tied
from zeroskip.pruning.constraints.topk import check_size
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.quantizers import SharedWeights, Weights

__all__ = ["Codebook"]

_LIMIT = 255
_ROUNDS = 50


@dataclass(frozen=True)
class Codebook(ConstraintSet):
    """Tensors whose nonzero weights have at most ``k`` values (Deep Compression); zeros are pruned and stay zero.

    The values are found by Lloyd's iteration from ``k`` values spread evenly between the smallest and the largest
    weight, so the projection is deterministic and a local optimum, not exact. A weight half way between two values
    takes the larger.

    Parameters
    ----------
    k : shared values, 1 to 255
    """

    k: int

    def __post_init__(self) -> None:
        check_size(self.k, "k")
        if self.k > _LIMIT:
            raise PruningError(f"k must be at most {_LIMIT}, not {self.k}")

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of weights that may be nonzero: all of them."""
        return math.prod(shape)

    def _shared(self, values: Values) -> Values | None:
        """Return the values of a feasible weight, ascending and without 0; None where there are more than ``k``."""
        nonzero = values[values != 0]
        # Most weights are found out by their first few.
        if len(np.unique(nonzero[: 16 * self.k])) > self.k:
            return None
        found = np.unique(nonzero)
        return found if len(found) <= self.k else None

    def project(self, weight: Tensor) -> Tensor:
        """Return a near feasible tensor; a feasible weight is its own projection."""
        values = finite_values(weight)
        flat = values.reshape(-1)
        if self._shared(flat) is not None:
            return weight.detach().clone(memory_format=torch.contiguous_format)
        ordered = np.sort(flat[flat != 0])
        centres = _lloyd(ordered.astype(np.float64), self.k)
        cluster = np.searchsorted(_borders(centres), flat, side="right")
        nearest = centres.astype(values.dtype)[cluster]
        lost = (nearest == 0) & (flat != 0)
        if lost.any():
            # A mean of exactly 0 would prune its weights; the one nearest to 0 takes its place.
            nearest[lost] = flat[lost][np.abs(flat[lost]).argmin()]
        result = np.where(flat != 0, nearest, 0).astype(values.dtype).reshape(values.shape)
        return torch.from_numpy(result).to(weight.device, weight.dtype)

    def ties(self, weight: Tensor) -> Tied:
        """Return the clusters: weights of one value share it in retraining, too."""
        values = finite_values(weight)
        found, index = np.unique(values, return_inverse=True)
        alive = torch.from_numpy((values != 0).astype(values.dtype))
        shape = tuple(weight.shape)
        return Tied(
            torch.from_numpy(index.reshape(shape).astype(np.int64)).to(weight.device),
            alive.to(weight.device, weight.dtype),
        )

    def levels_of(self, weight: Tensor) -> tuple[Weights, float]:
        """Return the shared values as integer levels of up to 255, and the distance of these."""
        shared = self._shared(finite_values(weight).reshape(-1))
        if shared is None:
            raise PruningError(f"Weights have more than {self.k} values; project them onto the Codebook first")
        return SharedWeights.of_values(shared.tolist())

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "dense"}


def _borders(centres: Values) -> Values:
    """Return the points half way between neighbours."""
    middle: Values = centres[:-1] / 2 + centres[1:] / 2
    return middle


def _lloyd(ordered: Values, k: int) -> Values:
    """Return ``k`` values for sorted float64 weights: every one the mean of the weights nearest to it."""
    centres: Values = np.linspace(ordered[0], ordered[-1], k) if k > 1 else ordered[:1]
    # Scaled by a power of two, so that no sum overflows.
    scale = 2.0 ** int(np.frexp(np.abs(ordered[[0, -1]]).max())[1])
    sums = np.concatenate([[0.0], np.cumsum(ordered / scale)])
    ends = np.array([], np.int64)
    for _ in range(_ROUNDS):
        cuts = np.concatenate([[0], np.searchsorted(ordered, _borders(centres), side="left"), [len(ordered)]])
        if np.array_equal(cuts, ends):
            break
        ends = cuts
        sizes = np.diff(cuts)
        means = (sums[cuts[1:]] - sums[cuts[:-1]]) / np.maximum(sizes, 1) * scale
        # A value that no weight is nearest to stays where it is.
        centres = np.where(sizes > 0, means, centres)
    return centres
