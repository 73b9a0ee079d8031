"""How much accuracy a layer costs when it alone is pruned (the scan of Mao et al. 2017): a start for its rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.allocation import with_keep
from zeroskip.pruning.budgets import groups_of
from zeroskip.pruning.constraints import ConstraintSet
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.layers import weight_of

__all__ = ["DENSITIES", "Judge", "Sensitivity", "sensitivities"]

Judge = Callable[[Callable[[Tensor], Tensor]], float]
"""Returns a score, more is better, of a network given as a function of its inputs."""

DENSITIES = (0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
"""Shares of the groups that stay; those of the curves of 1705.08922."""


@dataclass(frozen=True)
class Sensitivity:
    """The score of the network with one layer projected and all others as they are.

    Members
    -------
    layer, density : which layer, and the share of its groups that was asked for
    kept : groups that stay
    score : what ``judge`` returned
    """

    layer: str
    density: float
    kept: int
    score: float


def sensitivities(
    model: nn.Module,
    sets: Mapping[str, ConstraintSet],
    judge: Judge,
    *,
    densities: Sequence[float] = DENSITIES,
    parent: Admm | Mapping[str, Tensor] | None = None,
) -> list[Sensitivity]:
    """Return the scores of every layer at every density, in model order; the model stays as it is.

    Nothing is retrained, so the scores say in which order layers give way, and not what they reach after pruning.

    Parameters
    ----------
    model : the network; in eval mode while it is judged
    sets : layer name or glob -> set of groups, whose ``keep`` does not count
    judge : called with the network as a function of its inputs; judge on samples that were held back from training, and
        not on the test set
    densities : shares of a layer's groups that stay, in (0, 1]
    parent : an earlier Admm, or masks by layer name, whose zeros stay zero

    Raises
    ------
    PruningError
        If a layer does not exist, a set has no groups to count, or a density is none.
    """
    if not densities or not all(0 < density <= 1 for density in densities):
        raise PruningError(f"densities must be shares above 0 and at most 1, not {tuple(densities)!r}")
    named = Admm(model, sets, parent=parent)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return [
                _score(model, name, with_keep(constraint, float(density)), float(density), judge, named)
                for name in named.names()
                if (constraint := named.constraint(name)) is not None and groups_of(constraint)
                for density in densities
            ]
    finally:
        model.train(training)


def _score(
    model: nn.Module, name: str, constraint: ConstraintSet, density: float, judge: Judge, all_layers: Admm
) -> Sensitivity:
    one = Admm(model, {name: constraint}, parent=all_layers.masks())
    kept = constraint.count(weight_of(model, name).shape)
    return Sensitivity(name, density, kept, float(judge(one.mapped())))
