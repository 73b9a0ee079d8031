"""Weight quantizers, uniform and with shared values: levels, scale search, straight-through rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.errors import PruningError

__all__ = [
    "Scale",
    "SharedWeights",
    "Weights",
    "alternating_scale",
    "as_factor",
    "channel_scales",
    "fake_quantize",
    "search_scale",
]

Scale = float | tuple[float, ...]
"""Distance of a layer's levels: one for all weights, or one for each output channel."""

GRIDS = ("signed", "symmetric", "zero_excluded", "binary", "ternary")
_FIXED_BITS = {"binary": 1, "ternary": 2}
_ALTERNATIONS = 5
_SHARED_TOP = 255
_SEARCH_STEPS = 240
_SEARCH_LOWEST = 0.15
# A bias is counted in steps of its channel's scale and has 32 bits: a channel of tiny weights keeps a coarser one.
_SMALLEST_CHANNEL = 2.0**-12


@dataclass(frozen=True)
class Weights:
    """The legal levels of a layer's weights.

    ``zero_excluded`` of b bits: ``-2^(b-1)..-1, 1..2^(b-1)``, where 0 is a pruned position without a code;
    ``symmetric``: ``-(2^(b-1)-1)..2^(b-1)-1``; ``signed``: ``-2^(b-1)..2^(b-1)-1``; ``binary`` (1 bit): -1 and 1;
    ``ternary`` (2 bits): -1, 0 and 1.
    """

    bits: int
    grid: str

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise PruningError(f"Weight bits must be a whole number from 1 to 8, not {self.bits!r}")
        if self.grid not in GRIDS:
            raise PruningError(f"Weight grid must be one of {', '.join(GRIDS)}, not {self.grid!r}")
        wanted = _FIXED_BITS.get(self.grid, self.bits)
        if self.bits != wanted:
            raise PruningError(f"Weight grid {self.grid!r} needs {wanted} bits, not {self.bits}")
        if self.bits == 1 and not self.excludes_zero:
            raise PruningError(f"Weight grid {self.grid!r} needs at least 2 bits; use zero_excluded for 1 bit")

    @classmethod
    def of_bits(cls, bits: int) -> Weights:
        """Return the usual grid of a width: symmetric at 8 bits, zero-excluded below."""
        return cls(bits, "symmetric" if bits == 8 else "zero_excluded")

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is no level."""
        return self.grid in ("zero_excluded", "binary")

    @property
    def lo(self) -> int:
        """Smallest level."""
        return -(1 << (self.bits - 1)) if self.excludes_zero or self.grid == "signed" else 1 - (1 << (self.bits - 1))

    @property
    def hi(self) -> int:
        """Largest level."""
        return (1 << (self.bits - 1)) if self.excludes_zero else (1 << (self.bits - 1)) - 1

    def levels(self, weight: Tensor, scale: float | Tensor) -> Tensor:
        """Return the nearest level of every weight, as floats; never 0 on a grid that excludes it."""
        if self.excludes_zero:
            sign = torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)
            return sign * torch.floor(weight.abs() / scale + 0.5).clamp(1, self.hi)
        return torch.round(weight / scale).clamp(self.lo, self.hi)


@dataclass(frozen=True)
class SharedWeights(Weights):
    """Levels that a layer's weights share: ``codebook`` ascending, without the 0 of pruned positions.

    ``bits`` is the width of an index. Signs of whole filters may flip, so levels reach as far to either side.
    """

    codebook: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.grid != "codebook" or not self.codebook or list(self.codebook) != sorted(set(self.codebook) - {0}):
            raise PruningError(f"A codebook must have ascending levels other than 0, not {self.codebook!r}")

    @classmethod
    def of_values(cls, values: Sequence[float]) -> tuple[SharedWeights, float]:
        """Return the levels nearest to the shared values, and the distance of levels that brings the largest to 255."""
        scale = max((abs(value) for value in values), default=_SHARED_TOP) / _SHARED_TOP
        levels = {round(value / scale) for value in values}
        # A value too small for a level of its own takes the smallest one: a kept weight is never 0.
        levels = (levels - {0}) | ({1} if 0 in levels else set()) or {1}
        return cls(len(levels).bit_length(), "codebook", tuple(sorted(levels))), scale

    @property
    def lo(self) -> int:
        """Smallest level."""
        return -_SHARED_TOP

    @property
    def hi(self) -> int:
        """Largest level."""
        return _SHARED_TOP

    def levels(self, weight: Tensor, scale: float | Tensor) -> Tensor:
        """Return the nearest level of every weight, as floats."""
        known = torch.tensor(self.codebook, dtype=weight.dtype, device=weight.device)
        return known[torch.bucketize(weight / scale, (known[:-1] + known[1:]) / 2, right=True)]


def _error(values: np.ndarray[Any, Any], weights: Weights, scale: float) -> float:
    """Return the squared error of quantizing ``values`` (1-D float64)."""
    if weights.excludes_zero:
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


def channel_scales(weight: Tensor, weights: Weights) -> tuple[float, ...]:
    """Return the scale of :func:`search_scale` for each output channel; one without weights has the layer's."""
    whole = search_scale(weight, weights)
    alive = weight.detach().flatten(1).any(1).tolist()
    scales = [search_scale(row, weights) if kept else whole for row, kept in zip(weight, alive, strict=True)]
    return tuple(max(scale, whole * _SMALLEST_CHANNEL) for scale in scales)


def as_factor(scale: Scale, weight: Tensor) -> float | Tensor:
    """Return a scale so that it broadcasts along the output channels of ``weight``."""
    if not isinstance(scale, tuple):
        return scale
    return torch.tensor(scale, dtype=weight.dtype, device=weight.device).reshape(-1, *(1,) * (weight.dim() - 1))


def alternating_scale(weight: Tensor, weights: Weights) -> float:
    """Return a scale from five rounds of choosing levels Q for it and then the best scale for Q, from two starts.

    The best scale for levels Q of weights V is ``<V, Q> / <Q, Q>``; for binary levels that is the mean ``|w|``
    (METHODS 1.5b). Zeros are pruned positions and no part of the means.
    """
    values = np.abs(weight.detach().cpu().to(torch.float64).reshape(-1).numpy())
    values = values[values != 0]
    if values.size == 0:
        return 1.0
    if not np.isfinite(values).all():
        raise PruningError("Weights must be finite, but a NaN or an infinity was found; lower the learning rate")
    # Scaled, so that no square is 0.
    top = float(values.max())
    values = values / top
    lowest = 1 if weights.excludes_zero else 0
    found: list[tuple[float, float]] = []
    # The start of the paper clips all above twice the mean and stays there at 8 bits; the other reaches the largest.
    for scale in (float(values.mean()) / max(1.0, weights.hi / 2), 1.0 / weights.hi):
        for _ in range(_ALTERNATIONS):
            levels = np.clip(np.floor(values / scale + 0.5), lowest, weights.hi)
            scale = float(values @ levels) / float(levels @ levels)
        found.append((_error(values, weights, scale), scale))
    return min(found)[1] * top


def fake_quantize(weight: Tensor, weights: Weights, scale: float | Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights on their levels (times the scale) with a straight-through gradient; masked positions are 0."""
    quantized: Tensor = weight + (weights.levels(weight, scale) * scale - weight).detach()
    return quantized if mask is None else quantized * mask
