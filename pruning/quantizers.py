"""Uniform weight quantizers, plain and zero-excluded: levels, scale search, straight-through rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.errors import PruningError

__all__ = ["Weights", "fake_quantize", "round_half_up", "search_scale"]

GRIDS = ("signed", "symmetric", "zero_excluded")
_SEARCH_STEPS = 240
_SEARCH_LOWEST = 0.15


@dataclass(frozen=True)
class Weights:
    """The legal levels of a layer's weights.

    ``zero_excluded`` of b bits: ``-2^(b-1)..-1, 1..2^(b-1)``, where 0 is a pruned position without a code;
    ``symmetric``: ``-(2^(b-1)-1)..2^(b-1)-1``; ``signed``: ``-2^(b-1)..2^(b-1)-1``.
    """

    bits: int
    grid: str

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise PruningError(f"Weight bits must be a whole number from 1 to 8, not {self.bits!r}")
        if self.grid not in GRIDS:
            raise PruningError(f"Weight grid must be one of {', '.join(GRIDS)}, not {self.grid!r}")
        if self.bits == 1 and self.grid != "zero_excluded":
            raise PruningError(f"Weight grid {self.grid!r} needs at least 2 bits; use zero_excluded for 1 bit")

    @classmethod
    def of_bits(cls, bits: int) -> Weights:
        """Return the usual grid of a width: symmetric at 8 bits, zero-excluded below."""
        return cls(bits, "symmetric" if bits == 8 else "zero_excluded")

    @property
    def lo(self) -> int:
        """Smallest level."""
        return -(1 << (self.bits - 1)) if self.grid != "symmetric" else 1 - (1 << (self.bits - 1))

    @property
    def hi(self) -> int:
        """Largest level."""
        return (1 << (self.bits - 1)) if self.grid == "zero_excluded" else (1 << (self.bits - 1)) - 1

    def levels(self, weight: Tensor, scale: float) -> Tensor:
        """Return the nearest level of every weight, as floats; never 0 on the zero-excluded grid."""
        if self.grid == "zero_excluded":
            sign = torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
            return sign * torch.floor(weight.abs() / scale + 0.5).clamp(1, self.hi)
        return torch.round(weight / scale).clamp(self.lo, self.hi)


def _error(values: np.ndarray[Any, Any], weights: Weights, scale: float) -> float:
    """Return the squared error of quantizing ``values`` (1-D float64)."""
    if weights.grid == "zero_excluded":
        magnitude = np.abs(values)
        nearest = np.clip(np.floor(magnitude / scale + 0.5), 1, weights.hi)
        return float(np.square(magnitude - scale * nearest).sum())
    nearest = np.clip(np.round(values / scale), weights.lo, weights.hi)
    return float(np.square(values - scale * nearest).sum())


def search_scale(weight: Tensor, weights: Weights) -> float:
    """Return the scale with the least squared error over the nonzero weights.

    Pruned zeros are not part of the sum: zero is no level of the zero-excluded grid, and counting them would pull the
    scale down. The scan runs from the scale that just reaches the largest weight down to 0.15 of it.
    """
    values = weight.detach().cpu().to(torch.float64).reshape(-1).numpy()
    values = values[values != 0]
    if values.size == 0:
        return 1.0
    if not np.isfinite(values).all():
        raise PruningError("Weights must be finite, but a NaN or an infinity was found; lower the learning rate")
    top = float(np.abs(values).max()) / max(weights.hi, 1)
    if values.size > 100_000:
        values = values[:: math.ceil(values.size / 100_000)]
    scales = [top * (_SEARCH_LOWEST + (1 - _SEARCH_LOWEST) * i / _SEARCH_STEPS) for i in range(_SEARCH_STEPS + 1)]
    errors = [_error(values, weights, scale) for scale in scales]
    return scales[int(np.argmin(errors))]


def round_half_up(x: Tensor) -> Tensor:
    """Round to the nearest integer, halves up, with a straight-through gradient."""
    rounded: Tensor = x + (torch.floor(x + 0.5) - x).detach()
    return rounded


def fake_quantize(weight: Tensor, weights: Weights, scale: float, mask: Tensor | None) -> Tensor:
    """Return the weights on their levels (times the scale) with a straight-through gradient; masked positions are 0."""
    quantized: Tensor = weight + (weights.levels(weight, scale) * scale - weight).detach()
    return quantized if mask is None else quantized * mask
