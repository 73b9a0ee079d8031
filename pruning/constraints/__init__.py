"""Constraint sets: a view of a weight tensor as groups, and the exact projection onto the set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from zeroskip.pruning.constraints.column import Column
from zeroskip.pruning.constraints.levels import Levels
from zeroskip.pruning.constraints.nonstructured import NonStructured

__all__ = ["Column", "ConstraintSet", "Levels", "NonStructured"]


class ConstraintSet(Protocol):
    """What ADMM needs of a set; projections are exact, idempotent and deterministic on ties."""

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor, same shape and dtype, without gradient."""

    def violation(self, weight: Tensor) -> float:
        """Return the distance to the set, 0 when feasible."""

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of groups of the view that are kept."""

    def describe(self) -> dict[str, float | int | str]:
        """Return the set as the artifact's header names it."""
