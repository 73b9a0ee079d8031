"""TensorFlow Lite's fixed-point parameters, computed from scales in the very precision its reference kernels use.

Scales are float32 and stay so where a kernel multiplies or divides them as floats; everything else is double. Sources:
``QuantizeMultiplier``, ``PopulateConvolutionQuantizationParams``, ``CalculateActivationRangeQuantized`` and each
operator's ``Prepare``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ADD_LEFT_SHIFT",
    "activation_range",
    "add_scales",
    "mean_scales",
    "product_scales",
    "ratio_scales",
    "rounded_scales",
    "weight_scales",
]

Scales = tuple[NDArray[np.int32], NDArray[np.int8]]

ADD_LEFT_SHIFT = 20
"""Bits by which an addition shifts its inputs before it rescales them."""
_FRACTION_BITS = 31
_SMALLEST_EXPONENT = -31
_FAR = 1 << 16
_SHIFT_LIMIT = 63
# A tie of the real multiplier needs the next one up: half up and half away differ below zero.
_CORRECTIONS = (0, 1, -1, 2, -2, 3, -3, 4, -4)
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
    "RELU6": (0.0, 6.0),
}


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return ``(M, S)``, ``real`` about ``M / 2**S`` with M below 2**31; ``(0, 31)`` below all that matters."""
    fraction, exponent = math.frexp(real)
    multiplier = _round_half_away(fraction * (1 << _FRACTION_BITS))
    if multiplier == 1 << _FRACTION_BITS:
        multiplier >>= 1
        exponent += 1
    if exponent < _SMALLEST_EXPONENT:
        return 0, _FRACTION_BITS
    return multiplier, _FRACTION_BITS - exponent


def _round_half_away(value: float) -> int:
    """Return the nearest integer, halves away from zero: C's ``round``."""
    whole = math.floor(abs(value))
    return int(math.copysign(whole + (abs(value) - whole >= 0.5), value))


def _arrays(reals: list[float]) -> Scales | None:
    """Return the multipliers and shifts of ``reals``; None where one is beyond 31 bits before the point."""
    if not all(math.isfinite(real) for real in reals):
        return None
    pairs = [quantize_multiplier(real) for real in reals]
    if any(shift < 0 for _, shift in pairs):
        return None
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int8)


def weight_scales(source: np.float32, weights: NDArray[Any], target: np.float32) -> Scales | None:
    """Return multiplier and shift of a convolution, one or one an output channel.

    Parameters
    ----------
    source, target : scales of input and output
    weights : ndarray[float32], shape (1,) or (O,)
    """
    return _arrays(product_scales(source, weights, target))


def product_scales(source: np.float32, weights: NDArray[Any], target: np.float32) -> list[float]:
    """Return the real multipliers of :func:`weight_scales`."""
    return [float(source) * float(weight) / float(target) for weight in weights]


def rounded_scales(real: float, sums: tuple[int, int], steps: tuple[int, int]) -> tuple[int, int] | None:
    """Return ``(M, S)`` that rescale by half up as a linear layer does in double: ``round(sum * real)``, half away.

    A pair is returned only if it gives the same step for every sum. Both rules never fall, so it is enough to compare
    them on both sides of every boundary between two steps. None where no multiplier near ``real`` does.

    Parameters
    ----------
    real : the multiplier in double precision, as the framework computes it
    sums : smallest and largest accumulator, bias included
    steps : smallest and largest result that the clamp leaves, less the zero point
    """
    multiplier, shift = quantize_multiplier(real)
    if not 0 < shift < _SHIFT_LIMIT:
        return None
    limits = np.arange(steps[0] + 1, steps[1] + 1)
    near = np.rint(np.clip((limits - 0.5) / real, *sums)).astype(np.int64)
    # The boundary lies within one of the quotient; a product's rounding may move it by one more.
    points = np.unique(np.clip(near[:, None] + np.arange(-3, 4), *sums))
    wanted = np.clip(_away(points * real), *steps)
    for candidate in (multiplier + step for step in _CORRECTIONS):
        if 0 <= candidate < 1 << _FRACTION_BITS:
            rounded = (points * candidate + (1 << (shift - 1))) >> shift
            if np.array_equal(np.clip(rounded, *steps), wanted):
                return candidate, shift
    return None


def _away(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the nearest integers, halves away from zero."""
    whole = np.floor(np.abs(values))
    rounded: NDArray[np.int64] = (np.sign(values) * (whole + (np.abs(values) - whole >= 0.5))).astype(np.int64)
    return rounded


@np.errstate(over="ignore")
def ratio_scales(source: np.float32, target: np.float32, single: bool = False) -> Scales | None:
    """Return multiplier and shift of ``source / target``, divided as floats where ``single``."""
    return _arrays([float(np.float32(source / target)) if single else float(source) / float(target)])


@np.errstate(over="ignore")
def add_scales(first: np.float32, second: np.float32, target: np.float32) -> Scales | None:
    """Return the three multipliers and shifts of an addition, for its inputs and its output.

    None where the output's is not below 1: the framework aborts there.
    """
    largest = float(np.float32(2) * max(first, second))
    reals = [float(first) / largest, float(second) / largest]
    total = largest / float(np.float32(1 << ADD_LEFT_SHIFT) * target)
    return _arrays([*reals, total]) if total < 1 else None


def _quantized(real: float, scale: np.float32) -> int:
    """Return how many steps of ``scale`` a number is, cut where every code is beyond it."""
    return _round_half_away(float(np.clip(np.float32(real) / scale, -_FAR, _FAR)))


@np.errstate(over="ignore")
def activation_range(activation: str, scale: np.float32, zero_point: int, lo: int, hi: int) -> tuple[int, int] | None:
    """Return the smallest and largest code that an activation leaves; None for one that is no clamp."""
    if activation not in _RANGES:
        return None
    limits = [
        bound if real is None else zero_point + _quantized(real, scale)
        for real, bound in zip(_RANGES[activation], (lo, hi), strict=True)
    ]
    return max(lo, limits[0]), min(hi, limits[1])


def mean_scales(source: np.float32, target: np.float32, count: int) -> Scales | None:
    """Return multiplier and shift of the mean of ``count`` elements, which the framework folds into the multiplier."""
    scales = ratio_scales(source, target)
    if scales is None:
        return None
    multiplier, shift = int(scales[0][0]), int(scales[1][0])
    # As many bits as the count has behind its first; the exponent may not fall below -31.
    more = min(count.bit_length() - 1, 32, 2 * _FRACTION_BITS - shift)
    return np.array([(multiplier << more) // count], np.int32), np.array([shift + more], np.int8)
