"""Zero-excluded levels: every kept weight on a multiple of the scale, pruned zeros stay zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.quantizers import Weights

__all__ = ["Levels"]


@dataclass(frozen=True)
class Levels:
    """Tensors whose nonzero weights lie on ``scale * {-2^(b-1)..-1, 1..2^(b-1)}`` (ADMM-NN, METHODS 1.5a).

    The scale is fixed, so that the projection is exact and idempotent; :func:`zeroskip.pruning.quantizers.search_scale`
    finds a good one. Zeros are pruned positions and stay zero.

    Parameters
    ----------
    bits : weight bits, 1..8
    scale : distance of neighbouring levels
    """

    bits: int
    scale: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise PruningError(f"scale must be a positive number, not {self.scale!r}")
        Weights(self.bits, "zero_excluded")

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of weights that may be nonzero: all of them."""
        return math.prod(shape)

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor; a weight between two levels goes to the larger magnitude."""
        flat = weight.detach()
        levels = Weights(self.bits, "zero_excluded").levels(flat, self.scale)
        return (levels * self.scale * (flat != 0)).to(weight.dtype)

    def violation(self, weight: Tensor) -> float:
        """Return the distance to the set, 0 when feasible."""
        return float((weight.detach() - self.project(weight)).norm())

    def describe(self) -> dict[str, float | int | str]:
        """Return the set as the artifact's header names it."""
        return {"kind": "dense"}
