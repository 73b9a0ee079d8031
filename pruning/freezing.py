"""Progressive freezing of ADMM-NN: round by round the weights nearest to their levels stay there (METHODS 1.5a)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.calibration import Plan, fake_quant_forward
from zeroskip.pruning.graph import Graph, Op
from zeroskip.pruning.quantizers import as_factor

__all__ = ["Freezing"]


class Freezing:
    """The weights of a network on their way to the levels of ``plan``.

    :meth:`grow` puts a share of the free weights of every level on it, where they stay; the others train on as floats,
    with the activations already rounded. A share of 1 puts the rest there, and leaves biases and BatchNorm to train.

    Parameters
    ----------
    graph, tensors : the network and its live parameters
    masks : kept weights by layer name; pruned weights stay zero

    Members
    -------
    frozen : layer name -> which weights are on their level
    forward : the network as a function of its inputs, with gradients to the free weights
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor], plan: Plan, masks: Mapping[str, Tensor]) -> None:
        self._plan, self._masks = plan, masks
        self._weights = {op.name: tensors[op.weight] for op in graph.ops if op.weight}
        self.frozen = {name: ~masks[name] for name in self._weights}
        self.forward = fake_quant_forward(graph, tensors, plan, masks, self._weight)

    def _on_levels(self, name: str) -> Tensor:
        """Return the weights of a layer, each on its nearest level; pruned ones are 0."""
        weight = self._weights[name].detach()
        factor = as_factor(self._plan.weight_scales[name], weight)
        return self._plan.grids[name].levels(weight, factor) * factor * self._masks[name]

    def _weight(self, op: Op, value: Tensor) -> Tensor:
        return torch.where(self.frozen[op.name], self._on_levels(op.name), value)

    def grow(self, share: float) -> None:
        """Put ``share`` of the free weights of every level of a layer on it, the nearest first, and one at least."""
        for name, weight in self._weights.items():
            levels = self._on_levels(name)
            distance = (weight.detach() - levels).abs().cpu().to(torch.float64).reshape(-1).numpy()
            free = np.flatnonzero(~self.frozen[name].cpu().reshape(-1).numpy())
            _, level = np.unique(levels.cpu().reshape(-1).numpy()[free], return_inverse=True)
            # By level, then by distance; of equal distances the lower index comes first.
            order = np.lexsort((free, distance[free], level))
            sizes = np.bincount(level)
            rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            chosen = free[order[rank < np.ceil(share * sizes)[level[order]]]]
            taken = torch.zeros(weight.numel(), dtype=torch.bool)
            taken[torch.from_numpy(chosen)] = True
            taken = taken.reshape(weight.shape).to(weight.device)
            with torch.no_grad():
                weight.copy_(torch.where(taken, levels, weight))
            self.frozen[name] = self.frozen[name] | taken
