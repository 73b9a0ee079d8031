"""Non-structured pruning: any weights, at most a given number of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.pruning.constraints.base import Mask, Structure, Values
from zeroskip.pruning.constraints.topk import check_keep, kept_count, largest

__all__ = ["NonStructured"]


@dataclass(frozen=True)
class NonStructured(Structure):
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

    def scores(self, values: Values) -> Values:
        """Return ``|w|``."""
        return np.abs(values)

    def support(self, gains: Values) -> Mask:
        """Return the weights of largest gain."""
        return largest(gains.reshape(-1), self.count(gains.shape)).reshape(gains.shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "nonstructured", "keep": self.keep}
