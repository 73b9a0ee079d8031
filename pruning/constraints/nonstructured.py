"""Non-structured pruning: any weights, at most a given number of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroskip.pruning.constraints.topk import check_keep, kept_count, largest

__all__ = ["NonStructured"]


@dataclass(frozen=True)
class NonStructured:
    """Tensors with at most ``count`` nonzero weights (METHODS 1.4); the groups are the single weights.

    Parameters
    ----------
    keep : fraction of the weights in (0, 1], or their number
    """

    keep: float | int

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of weights kept in a tensor of this shape."""
        return kept_count(self.keep, math.prod(shape))

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest feasible tensor: the largest ``|w|`` stay, the lower flat index wins a tie."""
        flat = weight.detach().reshape(-1)
        mask = largest(flat.abs().cpu().numpy(), self.count(weight.shape))
        return (flat * torch.from_numpy(mask).to(flat.device)).reshape(weight.shape)

    def violation(self, weight: Tensor) -> float:
        """Return the distance to the set, 0 when feasible."""
        return float((weight.detach() - self.project(weight)).norm())

    def describe(self) -> dict[str, float | int | str]:
        """Return the set as the artifact's header names it."""
        return {"kind": "nonstructured", "keep": self.keep}
