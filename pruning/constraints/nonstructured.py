"""Non-structured pruning: any weights, at most a given number of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.pruning.constraints.base import Grouped, Mask, Values
from zeroskip.pruning.constraints.topk import check_keep, kept_count

__all__ = ["NonStructured"]


@dataclass(frozen=True)
class NonStructured(Grouped):
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

    def sums(self, gains: Values) -> Values:
        """Return ``gains``: every weight is a group."""
        return gains

    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return ``kept``."""
        return kept

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "nonstructured", "keep": self.keep}
