"""Sparse and quantized at once: a structure whose nonzero weights lie on levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.constraints.base import ConstraintSet, Structure, finite_values
from zeroskip.pruning.constraints.levels import Levels
from zeroskip.pruning.constraints.ties import Frozen
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.quantizers import Weights

__all__ = ["Joint"]


@dataclass(frozen=True)
class Joint(ConstraintSet):
    """Tensors of a structure whose nonzero weights lie on levels (METHODS 1.5, joint projection in closed form).

    Keeping weight ``v`` on its level ``q`` gains ``v^2 - (v - q)^2``. The groups with the largest sums of gains stay;
    weights that gain nothing become zero. Exact for a given scale, wherever the structure's own projection is.

    Parameters
    ----------
    structure : which weights may be nonzero
    levels : their levels; a scale that is missing is that of the weights which the structure keeps
    """

    structure: Structure
    levels: Levels

    def __post_init__(self) -> None:
        if not isinstance(self.structure, Structure) or not isinstance(self.levels, Levels):
            raise PruningError(
                "Joint needs a set that prunes (such as NonStructured or Block) and Levels, not "
                f"{type(self.structure).__name__} and {type(self.levels).__name__}"
            )

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of groups that the structure keeps."""
        return self.structure.count(shape)

    def fit(self, weight: Tensor) -> Joint:
        """Return the set with what structure and levels choose once."""
        fitted = self.structure.fit(weight)
        return replace(self, structure=fitted, levels=self.levels.fit(fitted.project(weight)))  # type: ignore[arg-type]

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor; of equal gains the lower index wins."""
        levels = self.levels
        if levels.scale is None:
            survivors = self.structure.project(weight)
            if torch.equal(survivors, weight) and levels.own_scale(survivors) is not None:
                return survivors
            levels = replace(levels, scale=levels.find_scale(survivors))
        quantized = levels.project(weight)
        v, q = (np.abs(finite_values(t)).astype(np.float64) for t in (weight, quantized))
        # Signs agree, so v^2 - (v - q)^2 = q * (2 v - q), here without the cancellation.
        gains = np.maximum(q * (2 * v - q), 0)
        mask = torch.from_numpy(self.structure.support(gains) & (gains > 0))
        return quantized.contiguous() * mask.to(weight.device)

    def ties(self, weight: Tensor) -> Frozen:
        """Return the weights themselves: on fixed levels nothing is left to train."""
        return self.levels.ties(weight)

    def levels_of(self, weight: Tensor) -> tuple[Weights, float]:
        """Return the levels and the scale of the feasible ``weight``."""
        return self.levels.levels_of(weight)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return self.structure.describe()
