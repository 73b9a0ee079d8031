"""The integer parameters of an addition that equal a float32 function of two codes on every pair of codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.importers.boundaries import NARROW, WIDE, Bounds, find_scaling
from zeroskip.compiler.importers.float_functions import Quantizer, directions, run_steps
from zeroskip.compiler.importers.flows import Flow, Sum
from zeroskip.compiler.ir import Kind, Layer, Rounding
from zeroskip.compiler.verify import MULTIPLIER_LIMIT

__all__ = ["add_layer"]

IntArray = NDArray[np.int64]

_RATIO_LIMIT = 1 << 10
_WIDEST = 21
"""Bits of a multiplier whose products with two codes of 8 bits and a sign fit 31 bits."""


def add_layer(name: str, flow: Flow, source: Sum, quantizer: Quantizer, inputs: tuple[str, str], output: str) -> Layer:
    """Return the addition that gives the codes of ``flow`` for every pair of codes.

    Raises
    ------
    CompileError
        If no multipliers do, or the function is not the same in every channel.
    """
    table = _Table.of(flow, source, quantizer)
    levels = np.arange(quantizer.lo + 1, quantizer.hi + 1)
    for first, second, roundings in _multipliers(source.first.scale, source.second.scale):
        sums = (table.first[:, None] * first + table.second[None, :] * second).ravel()
        bounds = _bounds(sums, table.codes.ravel(), levels, quantizer.zero_point)
        scaling = None if bounds is None else find_scaling(bounds, [np.zeros(1, np.int64)], roundings)
        if scaling is not None:
            return Layer(
                name,
                Kind.ADD,
                inputs,
                output,
                multiplier=np.array([first, second, scaling.multiplier[0]], np.int32),
                shift=np.array([0, 0, scaling.shift[0]], np.int8),
                rounding=scaling.rounding,
                clamp=(quantizer.lo, quantizer.hi),
            )
    raise CompileError(
        f"Node {source.node!r} adds codes of scales {source.first.scale:g} and {source.second.scale:g}, and no integer "
        f"multipliers give its {table.codes.size} results; give both inputs one scale"
    )


@dataclass(frozen=True)
class _Table:
    """All codes of two inputs, less their zero points, and the code of the result of each pair."""

    first: IntArray
    second: IntArray
    codes: IntArray

    @classmethod
    def of(cls, flow: Flow, source: Sum, quantizer: Quantizer) -> _Table:
        """Evaluate the float function on every pair."""
        codes = [np.arange(part.lo, part.hi + 1) - part.zero_point for part in (source.first, source.second)]
        if any(np.ndim(step.direction) for step in flow.steps):
            raise CompileError(
                f"Node {source.node!r} adds two tensors, and what follows differs by channel; put a Quant behind it"
            )
        if directions(flow.steps, 1)[0] < 0:
            raise CompileError(f"Node {source.node!r} adds two tensors, and what follows turns the sum around")
        with np.errstate(over="ignore", invalid="ignore"):
            values = [
                (part * stored.scale).astype(np.float32)
                for part, stored in zip(codes, (source.first, source.second), strict=True)
            ]
            total = (values[0][:, None] + values[1][None, :]).reshape(1, -1)
        result = quantizer.codes(run_steps(flow.steps, total)).reshape(len(codes[0]), len(codes[1]))
        return cls(codes[0], codes[1], result)


def _multipliers(first: float, second: float) -> Iterator[tuple[int, int, tuple[Rounding, ...]]]:
    """Yield pairs of multipliers in the ratio of the scales, the exact one where it is short, and their roundings."""
    ratio = (Fraction(first) / Fraction(second)).limit_denominator(_RATIO_LIMIT)
    if 0 < ratio.numerator < MULTIPLIER_LIMIT:
        yield ratio.numerator, ratio.denominator, NARROW
    largest = max(first, second)
    for bits in range(8, _WIDEST + 1):
        top = (1 << bits) - 1
        pair = round(first / largest * top), round(second / largest * top)
        if min(pair) > 0:
            yield *pair, NARROW if top < MULTIPLIER_LIMIT else WIDE


def _bounds(sums: IntArray, codes: IntArray, levels: IntArray, zero_point: int) -> Bounds | None:
    """Return for each level the smallest sum that reaches it and the largest that does not; None where they cross."""
    order = np.argsort(sums, kind="stable")
    sums, codes = sums[order], codes[order]
    least = np.minimum.accumulate(codes[::-1])[::-1]
    most = np.maximum.accumulate(codes)
    # the first sum with a code at or above a level, the last one with a code below it
    first = np.searchsorted(most, levels, side="left")
    last = np.searchsorted(least, levels, side="left") - 1
    reached, missed = first < len(sums), last >= 0
    reach = sums[np.minimum(first, len(sums) - 1)]
    miss = sums[np.maximum(last, 0)]
    if (reached & missed & (miss >= reach)).any():
        return None
    return Bounds(levels - zero_point, reach[None], miss[None], reached[None], missed[None])
