"""Gradual magnitude pruning: constraint sets that shrink to their final size with the cube of the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from zeroskip.pruning.constraints import (
    NM,
    BankBalanced,
    Codebook,
    ConstraintSet,
    FilterColumn,
    Joint,
    Levels,
    MicroBlock,
    NonStructured,
)

__all__ = ["prunes", "relaxed", "shape_only", "structured"]


def prunes(constraint: ConstraintSet) -> bool:
    """Return whether the set makes weights zero."""
    if isinstance(constraint, MicroBlock):
        return constraint.mode != "unify"
    return not isinstance(constraint, (Levels, Codebook))


def shape_only(constraint: ConstraintSet) -> ConstraintSet:
    """Return the set without fixed values: what a joint set prunes."""
    return constraint.structure if isinstance(constraint, Joint) else constraint


def structured(constraint: ConstraintSet) -> bool:
    """Return whether the set prunes groups of weights, and not single ones."""
    return prunes(constraint) and not isinstance(shape_only(constraint), NonStructured)


def relaxed(constraint: ConstraintSet, shape: Sequence[int], done: float) -> ConstraintSet | None:
    """Return the set on its way from everything to ``constraint``; None while it has nothing to prune yet.

    Of G groups, of which k stay in the end, ``k + (G - k) (1 - done)^3`` are kept (Zhu and Gupta 2017): in banks and
    runs those of each, in ``FilterColumn`` of rows and columns. Values are free until the end.

    Parameters
    ----------
    shape : of the layer's weight
    done : share of the time, 0 to 1
    """
    left = (1 - min(1.0, done)) ** 3
    constraint = shape_only(constraint)

    def between(kept: int, groups: int) -> int:
        return kept + math.floor((groups - kept) * left + 0.5)

    if not prunes(constraint):
        return None
    if isinstance(constraint, NM):
        return replace(constraint, n=between(constraint.n, constraint.m))
    if isinstance(constraint, FilterColumn):
        every = math.prod(shape[1:])
        rows = replace(constraint, columns=every).count(shape) // every
        columns = replace(constraint, filters=shape[0]).count(shape) // shape[0]
        return replace(constraint, filters=between(rows, shape[0]), columns=between(columns, every))
    if isinstance(constraint, MicroBlock):
        constraint = replace(constraint, mode="prune", unified=1.0)
    if isinstance(constraint, BankBalanced):
        banks = shape[0] * constraint.banks
        return replace(constraint, keep=between(constraint.count(shape) // banks, math.prod(shape) // banks))
    everything: ConstraintSet = replace(constraint, keep=1.0)  # type: ignore[type-var]
    kept, groups = constraint.count(shape), everything.count(shape)
    return replace(constraint, keep=between(kept, groups))  # type: ignore[type-var]
