"""Weights that share values, as a checkpoint of others brings them: the levels that keep them shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zeroskip.pruning.graph import Op
from zeroskip.pruning.quantizers import SharedWeights, Weights

__all__ = ["shared_levels"]

_VALUES = 255
_UNIFORM_TOP = 127
_TOLERANCE = 1e-3


def shared_levels(op: Op, tensors: Mapping[str, Tensor]) -> tuple[Weights, float] | None:
    """Return the grid and scale on which the weights of layer ``op`` keep sharing values; None where they do not share.

    Weights share where at most 255 values other than 0 stand for twice as many weights. The grid is uniform where the
    values lie on one of up to 8 bits (within 1/1000 of a step) and an index into a codebook would be no shorter. A
    codebook needs room for both signs of values in filters whose BatchNorm has a negative gain; without it the layer
    counts as not shared, and a uniform grid with one scale keeps equal weights equal.
    """
    weight = tensors[op.weight or ""].detach().cpu().numpy()
    flat = weight.reshape(len(weight), -1)
    nonzero = flat[flat != 0]
    # Most weights are found out by their first few.
    if len(np.unique(nonzero[: 4 * _VALUES])) > _VALUES:
        return None
    values = np.unique(nonzero)
    if not len(values) or len(values) > _VALUES or 2 * len(values) > len(nonzero) or not np.isfinite(values).all():
        return None
    uniform = _uniform(values.astype(np.float64))
    index_bits = len(values).bit_length()
    if uniform is not None and uniform[0].bits <= index_bits:
        return uniform
    turned = _turned(op, tensors, flat)
    if len(np.unique(np.concatenate([values, turned]))) > _VALUES:
        return uniform
    return SharedWeights.of_values(values.astype(np.float64).tolist())


def _uniform(values: NDArray[np.float64]) -> tuple[Weights, float] | None:
    """Return the narrowest uniform grid that holds all values, None where there is none."""
    top = float(np.abs(values).max())
    for steps in range(1, _UNIFORM_TOP + 1):
        levels = values / top * steps
        if np.abs(levels - np.round(levels)).max() <= _TOLERANCE and np.round(levels).all():
            grid = Weights(1, "binary") if steps == 1 else Weights(steps.bit_length() + 1, "symmetric")
            return grid, top / steps
    return None


def _turned(op: Op, tensors: Mapping[str, Tensor], flat: NDArray[Any]) -> NDArray[Any]:
    """Return the values that BatchNorm's negative gains add, by turning the signs of their filters."""
    if op.norm is None:
        return flat[:0, 0]
    gain, _ = op.norm.affine(tensors)
    rows = -flat[(gain < 0).cpu().numpy()]
    found: NDArray[Any] = np.unique(rows[rows != 0])
    return found
