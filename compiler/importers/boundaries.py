"""From a monotone function of accumulators to integer parameters: its boundaries, then multiplier, shift and bias.

Everything is decided on the boundaries: two functions that never fall are equal on a range when every code begins at
the same accumulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.ir import Rounding
from zeroskip.compiler.reference import rescale
from zeroskip.compiler.verify import MULTIPLIER_LIMIT, SHIFT_LIMIT, TFLITE_MULTIPLIER_LIMIT, TFLITE_SHIFT_LIMIT

__all__ = [
    "NARROW",
    "WIDE",
    "Bounds",
    "Scaling",
    "find_boundaries",
    "find_float_boundaries",
    "find_scaling",
    "suggested_biases",
]

IntArray = NDArray[np.int64]
FloatArray = NDArray[Any]

NARROW = (Rounding.HALF_UP, Rounding.HALF_EVEN, Rounding.HALF_AWAY, Rounding.FLOOR)
"""Roundings with multipliers of 17 bits, in the order in which they are tried; networks made here use the first."""
WIDE = (Rounding.TFLITE_SINGLE,)
"""The rounding with multipliers of 31 bits, which take twice as many hardware multipliers."""
_INT32 = np.iinfo(np.int32)


def find_boundaries(codes: Callable[[IntArray], IntArray], low: IntArray, high: IntArray, levels: IntArray) -> IntArray:
    """Return the smallest accumulator of each channel that reaches each level, by bisection; ``high + 1``: none does.

    Parameters
    ----------
    codes : int64 ``(C, n)`` accumulators to int64 ``(C, n)`` codes, never falling within a channel
    low, high : ndarray[int64], shape (C,), the range of the accumulators
    levels : ndarray[int64], shape (K,)

    Returns
    -------
    ndarray[int64], shape (C, K)
    """
    shape = (len(low), len(levels))
    first = np.broadcast_to(low[:, None], shape).copy()
    last = np.broadcast_to(high[:, None] + 1, shape).copy()
    while (first < last).any():
        middle = first + (last - first) // 2
        # where the search is over the middle may be high + 1, beyond what is proved
        reached = codes(np.minimum(middle, high[:, None])) >= levels
        open_ = first < last
        last = np.where(open_ & reached, middle, last)
        first = np.where(open_ & ~reached, middle + 1, first)
    return first


def find_float_boundaries(codes: Callable[[NDArray[np.float32]], IntArray], levels: IntArray) -> NDArray[np.float32]:
    """Return the smallest float32 that reaches each level, infinity where none does, shape of ``levels``.

    ``codes`` takes float32 and never falls.
    """

    def number(order: IntArray) -> NDArray[np.float32]:
        # the order of the floats is that of their bits, with the negative ones mirrored
        bits = np.where(order >= 0, order, -order | (1 << 31))
        return bits.astype(np.uint32).view(np.float32)

    limit = int(np.array([np.finfo(np.float32).max]).view(np.int32)[0])
    one = np.array([limit])
    found = find_boundaries(lambda order: codes(number(order)), -one, one, levels)[0]
    return np.where(found > limit, np.float32(np.inf), number(np.minimum(found, limit)))


@dataclass(frozen=True)
class Bounds:
    """What a function of accumulators must do, for ``C`` channels and ``K`` levels.

    Attributes
    ----------
    levels : int64 ``(K,)``, less the zero point
    reach : int64 ``(C, K)``, an accumulator that must reach the level
    miss : int64 ``(C, K)``, an accumulator that must not
    reached, missed : bool ``(C, K)``, whether there is such an accumulator
    """

    levels: IntArray
    reach: IntArray
    miss: IntArray
    reached: NDArray[np.bool_]
    missed: NDArray[np.bool_]

    @classmethod
    def of(cls, boundaries: IntArray, low: IntArray, high: IntArray, levels: IntArray, zero_point: int) -> Bounds:
        """Return the bounds of a function whose boundaries over ``low`` to ``high`` are known."""
        return cls(
            levels - zero_point,
            np.clip(boundaries, low[:, None], high[:, None]),
            np.clip(boundaries - 1, low[:, None], high[:, None]),
            boundaries <= high[:, None],
            boundaries > low[:, None],
        )

    def of_channels(self, channels: NDArray[np.bool_]) -> Bounds:
        """Return the bounds of some channels."""
        chosen = (self.reach[channels], self.miss[channels])
        return Bounds(self.levels, *chosen, self.reached[channels], self.missed[channels])


@dataclass(frozen=True)
class Scaling:
    """``round((acc + bias) * multiplier / 2**shift)``, one entry a channel."""

    rounding: Rounding
    multiplier: IntArray
    shift: IntArray
    bias: IntArray


def find_scaling(
    bounds: Bounds, biases: Iterable[IntArray] | None = None, roundings: Sequence[Rounding] = (*NARROW, *WIDE)
) -> Scaling | None:
    """Return integer parameters that keep within all ``bounds``, None if none are found.

    A scaling that is returned is proved: it is applied to both sides of every boundary.

    Parameters
    ----------
    bounds : Bounds
    biases : candidates, int64 ``(C,)`` each; default: 0 and those that the boundaries suggest
    roundings : what is tried, in this order
    """
    candidates = list(suggested_biases(bounds) if biases is None else biases)
    for rounding in roundings:
        slopes = [_slopes(bounds, candidate, rounding) for candidate in candidates]
        if not np.logical_or.reduce([slope.possible for slope in slopes]).all():
            continue
        scaling = _choose(bounds, candidates, slopes, rounding)
        if scaling is not None:
            return scaling
    return None


def _choose(bounds: Bounds, candidates: list[IntArray], slopes: list[_Slopes], rounding: Rounding) -> Scaling | None:
    """Return for each channel the first bias that has a multiplier, with the smallest shift; None if one has none."""
    channels = len(bounds.reach)
    done = np.zeros(channels, bool)
    multiplier, shift, bias = (np.zeros(channels, np.int64) for _ in range(3))
    wide = rounding in WIDE
    for candidate, slope in zip(candidates, slopes, strict=True):
        for exponent in range(TFLITE_SHIFT_LIMIT if wide else SHIFT_LIMIT):
            found = slope.smallest(exponent, TFLITE_MULTIPLIER_LIMIT if wide else MULTIPLIER_LIMIT)
            good = slope.possible & ~done & (found >= 0)
            if good.any():
                good[good] = _holds(bounds.of_channels(good), candidate[good], found[good], exponent, rounding)
                multiplier[good], shift[good], bias[good] = found[good], exponent, candidate[good]
                done |= good
            if (done | ~slope.possible).all():
                break
    return Scaling(rounding, multiplier, shift, bias) if done.all() else None


def suggested_biases(bounds: Bounds) -> Iterator[IntArray]:
    """Yield biases that may serve: none, and those of a line through the first and the last boundary."""
    channels = len(bounds.reach)
    yield np.zeros(channels, np.int64)
    both = bounds.reached & bounds.missed
    rows = np.arange(channels)
    first = np.argmax(both, axis=1)
    last = both.shape[1] - 1 - np.argmax(both[:, ::-1], axis=1)
    count = both.sum(axis=1)
    start, end = bounds.reach[rows, first], bounds.reach[rows, last]
    rise, run = bounds.levels[last] - bounds.levels[first], end - start
    line = (count >= 2) & (run > 0) & (rise > 0)
    middle = bounds.levels[first] - 0.5
    offset = np.where(line, middle * run / np.maximum(rise, 1) - start, 0.0)
    # One boundary, or none: a slope so low that the whole range of accumulators is less than a step.
    span = bounds.reach.max(axis=1) - bounds.reach.min(axis=1)
    span = np.maximum(span, bounds.miss.max(axis=1) - bounds.miss.min(axis=1))
    step = np.int64(1) << np.minimum(np.array([int(s).bit_length() + 2 for s in span]), 40)
    constant = np.where(bounds.reached, bounds.levels, bounds.levels[0] - 1).max(axis=1)
    center = (bounds.reach.max(axis=1) + bounds.reach.min(axis=1)) // 2
    flat = np.where(count == 1, bounds.levels[first] * step - step // 2 - start, constant * step - center)
    for nudge in (0, -1, 1, -2, 2):
        rounded = np.floor(offset + 0.5).astype(np.int64) + nudge
        yield np.where(line, rounded, flat + nudge)


def _slopes(bounds: Bounds, bias: IntArray, rounding: Rounding) -> _Slopes:
    """Return the slopes with which this bias keeps within the bounds."""
    # (acc + bias) * slope must be at or above the middle below a level (or beside it, where a tie goes the wrong way)
    middle = bounds.levels - (0.0 if rounding is Rounding.FLOOR else 0.5)
    rises = {
        Rounding.HALF_UP: np.ones(len(middle), bool),
        Rounding.FLOOR: np.ones(len(middle), bool),
        Rounding.TFLITE_SINGLE: np.ones(len(middle), bool),
        Rounding.HALF_EVEN: bounds.levels % 2 == 0,
        Rounding.HALF_AWAY: bounds.levels >= 1,
    }[rounding]
    slopes = _Slopes(len(bias))
    slopes.possible = np.abs(bias) <= _INT32.max
    slopes.demand(bounds.reach + bias[:, None], middle, bounds.reached, rises, at_least=True)
    slopes.demand(bounds.miss + bias[:, None], middle, bounds.missed, ~rises, at_least=False)
    return slopes


class _Slopes:
    """The slopes that a bias leaves, one interval a channel; ends that are excluded stand apart."""

    def __init__(self, channels: int) -> None:
        self.possible = np.ones(channels, bool)
        self.low, self.above = np.zeros(channels), np.full(channels, -1.0)
        self.high, self.below = (np.full(channels, np.inf) for _ in range(2))

    def demand(
        self, value: IntArray, middle: FloatArray, needed: FloatArray, closed: FloatArray, *, at_least: bool
    ) -> None:
        """Demand ``value * slope >= middle`` (or ``<=``), without equality where not ``closed``."""
        closed = np.broadcast_to(closed, value.shape)
        level = np.broadcast_to(middle, value.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = level / value
        sign = -level if at_least else level
        zero_holds = (sign > 0) | ((sign == 0) & closed)
        self.possible = self.possible & np.asarray(~needed | (value != 0) | zero_holds).all(axis=1)
        floor = needed & ((value > 0) if at_least else (value < 0))
        ceiling = needed & ((value < 0) if at_least else (value > 0))
        self.low = np.maximum(self.low, np.where(floor & closed, slope, 0.0).max(axis=1))
        self.above = np.maximum(self.above, np.where(floor & ~closed, slope, -1.0).max(axis=1))
        self.high = np.minimum(self.high, np.where(ceiling & closed, slope, np.inf).min(axis=1))
        self.below = np.minimum(self.below, np.where(ceiling & ~closed, slope, np.inf).min(axis=1))
        self.possible &= np.maximum(self.low, self.above) <= np.minimum(self.high, self.below)

    def smallest(self, shift: int, limit: int) -> IntArray:
        """Return the smallest multiplier below ``limit`` that this shift makes a slope that is left; -1: none."""
        factor = float(1 << shift)
        least = np.maximum(np.ceil(self.low * factor), np.floor(self.above * factor) + 1)
        most = np.minimum(np.floor(self.high * factor), np.ceil(self.below * factor) - 1)
        found: IntArray = np.where((least <= most) & (least < limit), least, -1).astype(np.int64)
        return found


def _holds(bounds: Bounds, bias: IntArray, multiplier: IntArray, shift: int, rounding: Rounding) -> NDArray[np.bool_]:
    """Return for which channels the parameters keep within the bounds, computed as the hardware does."""
    scale = np.maximum(multiplier, 0)[:, None]
    reach = rescale(bounds.reach + bias[:, None], scale, shift, rounding) >= bounds.levels
    miss = rescale(bounds.miss + bias[:, None], scale, shift, rounding) < bounds.levels
    held: NDArray[np.bool_] = np.all((reach | ~bounds.reached) & (miss | ~bounds.missed), axis=1)
    return held
