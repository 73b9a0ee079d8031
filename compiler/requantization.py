"""Multipliers and shifts as the hardware applies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.ir import Layer, Rounding, Tensor
from zeroskip.compiler.reference import TFLITE_SHIFT
from zeroskip.compiler.target import EngineConfig

__all__ = ["MULTIPLIER_BITS", "Scales", "align_shifts", "average_scales", "operand_parts", "scaler_count"]

MULTIPLIER_BITS = 17
"""Multipliers of networks made here; wider ones are cut in two."""
LOW_BITS = 15
"""Where operands are cut: with a sign the lower part fits a 16 x 16 multiplier, the smallest there is."""


def operand_parts(config: EngineConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the widths in bits of the parts, lowest first, of a biased accumulator and of M, as they are multiplied.

    Each width counts the sign, which a lower part does not have. M is empty where all scales are powers of two.
    """
    value = max(config.accumulator_width, config.bias_width) + 1
    values = (LOW_BITS + 1, value - LOW_BITS) if value > LOW_BITS else (value,)
    width = config.multiplier_width
    if not width:
        return values, ()
    return values, (LOW_BITS + 1, width + 1 - LOW_BITS) if width > MULTIPLIER_BITS else (width + 1,)


def scaler_count(config: EngineConfig) -> int:
    """Return how many multipliers one post-processor has."""
    values, multipliers = operand_parts(config)
    return len(values) * len(multipliers)


@dataclass
class Scales:
    """``(value * multiplier) >> shift`` with ``rounding``; one entry, or one a channel."""

    multiplier: list[int]
    shift: list[int]
    rounding: Rounding

    @classmethod
    def of(cls, layer: Layer) -> Scales:
        """Return the scales of ``layer``, reduced to one entry where all channels agree."""
        multiplier, shift = np.broadcast_arrays(np.asarray(layer.multiplier), np.asarray(layer.shift))
        pairs = [(int(m), int(s)) for m, s in zip(multiplier.ravel(), shift.ravel(), strict=True)]
        if len(set(pairs)) == 1:
            pairs = pairs[:1]
        # TensorFlow Lite's single rounding is the same rule
        rounding = Rounding.HALF_UP if layer.rounding is Rounding.TFLITE_SINGLE else layer.rounding
        return cls([m for m, _ in pairs], [s for _, s in pairs], rounding)

    @classmethod
    def identity(cls) -> Scales:
        """Return the scale that changes nothing."""
        return cls([1], [0], Rounding.HALF_UP)


def align_shifts(scales: Sequence[Scales]) -> None:
    """Bring the shifts of all layers close together, exactly: ``(M, S)`` and ``(M * 2**j, S + j)`` round alike.

    A narrow range of shifts is a narrow barrel shifter. No multiplier grows beyond the widest one given. Power-of-two
    designs (every multiplier 1) are left alone: they have no multiplier to absorb a factor. So are scales that are
    rounded in two steps, for the first one takes a number of bits that is given.
    """
    for scale in scales:
        _settle(scale)
    if all(m == 1 for scale in scales for m in scale.multiplier):
        return
    widest = max(m.bit_length() for scale in scales for m in scale.multiplier)
    goal = max(s for scale in scales for s in scale.shift)
    for scale in scales:
        for index, (m, s) in enumerate(zip(scale.multiplier, scale.shift, strict=True)):
            room = widest - m.bit_length()
            limit = goal
            if scale.rounding is Rounding.TFLITE_DOUBLE:
                limit = s if s > TFLITE_SHIFT else min(goal, TFLITE_SHIFT)
            raise_by = max(0, min(room, limit - s))
            scale.multiplier[index] = m << raise_by
            scale.shift[index] = s + raise_by


def _settle(scale: Scales) -> None:
    """Give HALF_AWAY a shift of at least 1: the hardware's rule for negative halves knows no exact product.

    TensorFlow Lite's rounding in two steps is HALF_UP where the first takes all bits.
    """
    if scale.rounding is Rounding.TFLITE_DOUBLE and max(scale.shift) <= TFLITE_SHIFT:
        scale.rounding = Rounding.HALF_UP
    if scale.rounding is not Rounding.HALF_AWAY or min(scale.shift) > 0:
        return
    if not any(scale.shift):
        scale.rounding = Rounding.HALF_UP
        return
    for index, shift in enumerate(scale.shift):
        if shift == 0:
            scale.multiplier[index] <<= 1
            scale.shift[index] = 1


def average_scales(layer: Layer, source: Tensor, count: int) -> Scales:
    """Return the reciprocal multiply that divides every possible sum by ``count``, half away from zero, proved."""
    low, high = min(0, source.lo * count), max(0, source.hi * count)
    sums = np.arange(low, high + 1, dtype=np.int64)
    wanted = np.sign(sums) * ((2 * np.abs(sums) + count) // (2 * count))
    for shift in range(0, 31):
        multiplier = ((1 << shift) + count // 2) // count
        if multiplier == 0 or multiplier >= 1 << MULTIPLIER_BITS:
            continue
        product = np.abs(sums) * multiplier
        rounded = product if shift == 0 else (product + (1 << (shift - 1))) >> shift
        if np.array_equal(np.sign(sums) * rounded, wanted):
            rounding = Rounding.HALF_AWAY if low < 0 else Rounding.HALF_UP
            return Scales([multiplier], [shift], rounding)
    raise CompileError(
        f"Layer {layer.name!r} averages {count} elements; no multiplier of {MULTIPLIER_BITS} bits divides exactly"
    )
