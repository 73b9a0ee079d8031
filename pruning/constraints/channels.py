"""Filters, input channels and kernels: the groups that the axes of a convolution's weight give by themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.pruning.constraints.base import Grouped, Mask, Values, as_kernels, as_matrix, check_axes
from zeroskip.pruning.constraints.topk import check_keep, kept_count
from zeroskip.pruning.errors import PruningError

__all__ = ["Channel", "Filter", "Kernel"]


@dataclass(frozen=True)
class Filter(Grouped):
    """Tensors with at most ``count`` nonzero filters, the rows of the GEMM view (StructADMM 2.1).

    Parameters
    ----------
    keep : fraction of the filters (a linear layer's outputs) in (0, 1], or their number
    """

    keep: float | int

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of filters kept in a tensor of this shape."""
        check_axes("Filter", shape)
        return kept_count(self.keep, shape[0])

    def sums(self, gains: Values) -> Values:
        """Return the sum of every filter."""
        result: Values = as_matrix(gains).sum(axis=1)
        return result

    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return the weights of the kept filters."""
        return np.broadcast_to(kept.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "filter", "keep": self.keep}


@dataclass(frozen=True)
class Channel(Grouped):
    """Tensors with at most ``count`` nonzero input channels (StructADMM 2.1); with groups, those of one.

    Parameters
    ----------
    keep : fraction of the input channels (a linear layer's inputs) in (0, 1], or their number
    """

    keep: float | int

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of input channels kept in a tensor of this shape."""
        check_axes("Channel", shape)
        if shape[1] == 1:
            raise PruningError(
                f"Channel needs two or more input channels, but the weight of shape {tuple(shape)} has one; use Filter "
                "or Kernel, as for depthwise convolutions"
            )
        return kept_count(self.keep, shape[1])

    def sums(self, gains: Values) -> Values:
        """Return the sum of every input channel."""
        result: Values = as_kernels(gains.sum(axis=0, keepdims=True)).sum(axis=(0, 2))
        return result

    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return the weights of the kept input channels."""
        return np.broadcast_to(kept.reshape(1, -1, *(1,) * (len(shape) - 2)), shape).copy()

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "channel", "keep": self.keep}


@dataclass(frozen=True)
class Kernel(Grouped):
    """Tensors with at most ``count`` nonzero kernels, pairs of output and input channel (METHODS 4.1, 2-D).

    In a linear layer and in 1 x 1 convolutions kernels are single weights.

    Parameters
    ----------
    keep : fraction of the kernels in (0, 1], or their number
    """

    keep: float | int

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def count(self, shape: Sequence[int]) -> int:
        """Return the number of kernels kept in a tensor of this shape."""
        check_axes("Kernel", shape)
        return kept_count(self.keep, shape[0] * shape[1])

    def sums(self, gains: Values) -> Values:
        """Return the sum of every kernel, by output and input channel."""
        kernels = as_kernels(gains)
        result: Values = kernels[..., 0] if kernels.shape[2] == 1 else kernels.sum(axis=2)
        return result

    def spread(self, kept: Mask, shape: Sequence[int]) -> Mask:
        """Return the weights of the kept kernels."""
        return np.repeat(kept.reshape(-1), math.prod(shape[2:])).reshape(shape)

    def describe(self) -> dict[str, Any]:
        """Return the structure as the artifact's header names it."""
        return {"kind": "kernel", "keep": self.keep}
