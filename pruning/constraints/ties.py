"""What masked retraining must hold beside zeros: weights that share a value, and weights that must not move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Frozen", "Tied"]


@dataclass(frozen=True, eq=False)
class Frozen:
    """Weights without any freedom left.

    Parameters
    ----------
    value : what they stay at
    """

    value: Tensor

    def gather_(self, gradient: Tensor) -> None:
        """Replace the gradient by that of the free parameters: there are none."""
        gradient.zero_()

    def hold_(self, weight: Tensor) -> None:
        """Put the weights back in place."""
        weight.copy_(self.value)


@dataclass(frozen=True, eq=False)
class Tied:
    """Weights ``coefficient * a[index]`` of a few shared parameters ``a`` (METHODS 3.2, tied retraining).

    Parameters
    ----------
    index : int64, shaped as the weight
    coefficient : 1, -1, or 0 where a weight is pruned, shaped as the weight
    """

    index: Tensor
    coefficient: Tensor

    def _sums(self, values: Tensor) -> Tensor:
        """Return the sum of ``coefficient * values`` of each parameter, float64."""
        sums = torch.zeros(int(self.index.max()) + 1, dtype=torch.float64, device=values.device)
        return sums.index_add_(0, self.index.reshape(-1), (self.coefficient * values).reshape(-1).to(torch.float64))

    def _spread(self, parameters: Tensor, out: Tensor) -> None:
        out.copy_(self.coefficient * parameters[self.index].to(out.dtype))

    def gather_(self, gradient: Tensor) -> None:
        """Replace the gradient by ``coefficient * da``, where ``da`` is that of the shared parameter."""
        self._spread(self._sums(gradient), gradient)

    def hold_(self, weight: Tensor) -> None:
        """Give the weights of a parameter its mean value again."""
        self._spread(self._sums(weight) / self._sums(self.coefficient).clamp(min=1), weight)
