"""Quantization levels: every kept weight on a multiple of the scale, pruned zeros stay zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.constraints.base import ConstraintSet, Values, finite_values
from zeroskip.pruning.constraints.ties import Frozen
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.quantizers import Weights, alternating_scale, search_scale

__all__ = ["Levels"]

GRIDS = ("zero_excluded", "binary", "ternary", "symmetric")


@dataclass(frozen=True)
class Levels(ConstraintSet):
    """Tensors whose nonzero weights lie on ``scale`` times the levels of a grid (ADMM-NN, METHODS 1.5).

    With a given scale the projection is exact. Without one, the scale of a zero-excluded grid is searched once, before
    ADMM (1.5a); that of the others alternates with the levels in every projection (1.5b): feasible and idempotent, not
    exact. Zeros are pruned positions and stay zero.

    Parameters
    ----------
    bits : weight bits, 1 to 8; 1 for binary, 2 for ternary
    scale : distance of neighbouring levels, None to have it found
    grid : ``zero_excluded`` (``-2^(b-1)..-1, 1..2^(b-1)``), ``binary`` (-1 and 1), ``ternary`` (-1, 0, 1) or
        ``symmetric`` (``-(2^(b-1)-1)..2^(b-1)-1``)
    """

    bits: int
    scale: float | None = None
    grid: str = "zero_excluded"

    def __post_init__(self) -> None:
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise PruningError(f"scale must be a positive number, not {self.scale!r}")
        if self.grid not in GRIDS:
            raise PruningError(f"grid must be one of {', '.join(GRIDS)}, not {self.grid!r}")
        Weights(self.bits, self.grid)

    @property
    def weights(self) -> Weights:
        """The levels."""
        return Weights(self.bits, self.grid)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of weights that may be nonzero: all of them."""
        return math.prod(shape)

    def own_scale(self, weight: Tensor) -> float | None:
        """Return the scale that ``weight`` lies on, up to the rounding of its dtype; None where it lies on none."""
        if self.scale is not None:
            return self.scale
        values = np.abs(finite_values(weight).reshape(-1))
        values = values[values != 0]
        # Most weights are found out by their first few.
        if not values.size or len(np.unique(values[:4096])) > self.weights.hi:
            return None
        found = np.unique(values).astype(np.float64)
        tolerance = 2 * torch.finfo(weight.dtype).eps
        for top in range(len(found), self.weights.hi + 1):
            scale = float(found[-1]) / top
            if _lies_on(found, scale, tolerance):
                return scale
        return None

    def find_scale(self, weight: Tensor) -> float:
        """Return a good scale for the nonzero weights: the given one, their own, else the result of the search."""
        own = self.own_scale(weight)
        if own is not None:
            return own
        search = search_scale if self.grid == "zero_excluded" else alternating_scale
        return search(weight, self.weights)

    def fit(self, weight: Tensor) -> Levels:
        """Return the set with the scale of a zero-excluded grid found from ``weight``."""
        return replace(self, scale=self.find_scale(weight)) if self.grid == "zero_excluded" else self

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor; between two levels :meth:`Weights.levels` decides."""
        values = torch.from_numpy(finite_values(weight)).to(weight.device)
        if self.scale is None and self.own_scale(weight) is not None:
            return weight.detach().clone(memory_format=torch.contiguous_format)
        scale = self.find_scale(values)
        return (self.weights.levels(values, scale) * scale * (values != 0)).to(weight.dtype)

    def ties(self, weight: Tensor) -> Frozen:
        """Return the weights themselves: on fixed levels nothing is left to train."""
        return Frozen(weight.detach().clone())

    def levels_of(self, weight: Tensor) -> tuple[Weights, float]:
        """Return the levels and the scale of the feasible ``weight``."""
        return self.weights, self.find_scale(weight)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "dense"}


def _lies_on(magnitudes: Values, scale: float, tolerance: float) -> bool:
    """Return whether all magnitudes are multiples of ``scale``."""
    levels = np.rint(magnitudes / scale)
    return bool((levels >= 1).all() and (np.abs(levels * scale - magnitudes) <= tolerance * magnitudes).all())
