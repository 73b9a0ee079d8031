"""The layer of a product: weights on a grid, and (M, S, bias) or thresholds that equal the float function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.importers.boundaries import Bounds, find_boundaries, find_scaling, suggested_biases
from zeroskip.compiler.importers.float_functions import Quantizer, directions, run_steps
from zeroskip.compiler.importers.flows import Flow, Product
from zeroskip.compiler.ir import Grid, Kind, Layer, Rounding, Tensor
from zeroskip.compiler.verify import grid_limits

__all__ = ["ProductFunction", "code_bits", "grid_of"]

IntArray = NDArray[np.int64]

_INT32 = np.iinfo(np.int32)
_OPEN = 1 << 24
"""Codes of a quantizer without declared bits are sought among integers that float32 tells apart."""


def code_bits(lo: int, hi: int) -> tuple[int, bool]:
    """Return the bits of a tensor that holds the codes ``lo`` to ``hi`` and 0, and whether they are signed."""
    lo, hi = min(lo, 0), max(hi, 0)
    signed = lo < 0
    return max(hi.bit_length(), (~lo).bit_length() if signed else 0, 0 if signed else 1) + signed, signed


def grid_of(levels: IntArray, bits: int, narrow: bool, binary: bool) -> tuple[Grid, int] | None:
    """Return the narrowest grid and its bits that hold weight levels declared with ``bits``; None: no grid does."""
    least, most = (int(levels.min()), int(levels.max())) if levels.size else (0, 0)
    bits = min(max(bits, 1), 8)
    choices: list[tuple[Grid, int]] = []
    if binary and levels.all():
        choices.append((Grid.BINARY, 1))
    if narrow and bits >= 2:
        choices.append((Grid.TERNARY, 2) if bits == 2 else (Grid.SYMMETRIC, bits))
    choices += [(Grid.SIGNED, wider) for wider in range(max(bits, 2), 9)]
    choices.append((Grid.ZERO_EXCLUDED, 8))
    for grid, width in choices:
        low, high = grid_limits(grid, width)
        if low <= least and most <= high:
            return grid, width
    low, high = grid_limits(Grid.CODEBOOK, 8)
    if low <= least and most <= high and len(np.union1d(levels, [0])) <= 256:
        return Grid.CODEBOOK, 8
    return None


class ProductFunction:
    """The codes of a product's accumulators, with the signs of falling channels turned.

    A filter whose function falls gets weights of the other sign, so that its codes rise with its accumulator.
    """

    def __init__(self, flow: Flow, product: Product, quantizer: Quantizer) -> None:
        self.product, self.steps, self.quantizer = product, flow.steps, quantizer
        channels = len(product.weight)
        before = flow.steps if flow.pool is None else flow.steps[: flow.pool.after]
        self.signs = np.where(directions(before, channels) < 0, -1, 1)
        if flow.pool is not None and (directions(flow.steps[flow.pool.after :], channels) < 0).any():
            raise CompileError(
                f"Node {flow.pool.node!r} takes a maximum that a later node turns around; "
                "put the factor below 0 before the pooling"
            )
        self.weight = product.weight * self.signs.reshape(-1, *(1,) * (product.weight.ndim - 1))
        source = product.source
        lo, hi = source.lo - source.zero_point, source.hi - source.zero_point
        if any(product.settings.get("padding", ())):
            lo, hi = min(lo, 0), max(hi, 0)
        rows = self.weight.reshape(channels, -1)
        self.low = np.minimum(rows * lo, rows * hi).sum(axis=1)
        self.high = np.maximum(rows * lo, rows * hi).sum(axis=1)
        largest = max(int(np.abs(self.low).max()), int(np.abs(self.high).max()))
        if largest >= _INT32.max // 2:
            raise CompileError(f"Node {product.node!r} has accumulators up to {largest}, which do not fit 31 bits")
        # Accumulators of the layer hold the zero point's products as well.
        self.offset = source.zero_point * rows.sum(axis=1)

    def codes(self, acc: IntArray) -> IntArray:
        """Return the codes of accumulators ``(C, n)``."""
        return self.quantizer.codes(run_steps(self.steps, self.values(acc)))

    def values(self, acc: IntArray) -> NDArray[np.float32]:
        """Return the float32 values of accumulators ``(C, n)``: exact, rounded once."""
        sums = self.signs[:, None] * acc + self.product.bias[:, None]
        # beyond float32's range a framework has infinities, too
        with np.errstate(over="ignore"):
            return (sums * self.product.scale[:, None]).astype(np.float32)

    def settled(self) -> Quantizer:
        """Return the quantizer, with the bits that its codes need where it declares none."""
        if self.quantizer.bits:
            return self.quantizer
        self.quantizer = replace(self.quantizer, lo=-_OPEN, hi=_OPEN)
        lo = int(self.codes(self.low[:, None]).min())
        hi = int(self.codes(self.high[:, None]).max())
        zero_point = self.quantizer.zero_point
        bits, signed = code_bits(min(lo, zero_point), max(hi, zero_point))
        if bits > 8:
            raise CompileError(
                f"Node {self.quantizer.node!r} gives codes from {lo} to {hi}, {bits} bits; activations have at most 8"
            )
        self.quantizer = replace(self.quantizer, lo=lo, hi=hi, bits=bits, signed=signed)
        return self.quantizer

    def layer(self, name: str, target: Tensor, source: Tensor) -> Layer:
        """Return the layer that computes these codes."""
        product, quantizer = self.product, self.quantizer
        levels = np.arange(quantizer.lo + 1, quantizer.hi + 1)
        boundaries = find_boundaries(self.codes, self.low, self.high, levels)
        inputs = (source.name,)
        settings: dict[str, Any] = {"name": name, "inputs": inputs, "output": target.name, **product.settings}
        if self._is_average(boundaries, levels, source, target):
            settings.pop("groups")
            return Layer(kind=Kind.AVG_POOL2D, clamp=(quantizer.lo, quantizer.hi), **settings)
        settings |= {"kind": product.kind, **self._weights()}
        bounds = Bounds.of(boundaries, self.low, self.high, levels, quantizer.zero_point)
        biases = (product.bias * self.signs, *suggested_biases(bounds)) if len(levels) else ()
        scaling = find_scaling(bounds, biases)
        if scaling is not None:
            bias = scaling.bias - self.offset
            if np.abs(bias).max() <= _INT32.max:
                pairs = np.unique(np.stack([scaling.multiplier, scaling.shift]), axis=1)
                rows = slice(0, 1) if pairs.shape[1] == 1 else slice(None)
                return Layer(
                    bias=bias.astype(np.int32),
                    multiplier=scaling.multiplier[rows].astype(np.int32),
                    shift=scaling.shift[rows].astype(np.int8),
                    rounding=scaling.rounding,
                    clamp=(quantizer.lo, quantizer.hi),
                    **settings,
                )
        thresholds = self._thresholds(boundaries, target.lo)
        return Layer(
            bias=np.zeros(len(thresholds), np.int32),
            thresholds=thresholds,
            rounding=Rounding.THRESHOLDS,
            clamp=(target.lo, target.lo + thresholds.shape[1]),
            **settings,
        )

    def _weights(self) -> dict[str, Any]:
        product = self.product
        found = grid_of(self.weight, product.bits, product.narrow, product.binary)
        if found is None:
            raise CompileError(
                f"Node {product.node!r} has weights of {self.weight.min()} to {self.weight.max()} steps; "
                "supported are 8 bits, and up to 256 different ones within signed 9 bits"
            )
        grid, bits = found
        settings: dict[str, Any] = {"weight": self.weight.astype(np.int16), "grid": grid, "weight_bits": bits}
        if grid is Grid.CODEBOOK:
            levels = np.unique(self.weight)
            codebook = np.concatenate([[0], levels[levels != 0]]).astype(np.int16)
            settings |= {"codebook": codebook, "weight_bits": (len(codebook) - 1).bit_length()}
        kept = int(np.count_nonzero(self.weight))
        sparse = 0 < kept < self.weight.size
        settings["structure"] = {"kind": "nonstructured", "keep": kept} if sparse else {"kind": "dense"}
        return settings

    def _thresholds(self, boundaries: IntArray, lowest: int) -> NDArray[np.int32]:
        """Return the thresholds of the layer's accumulators; codes below the quantizer's are always passed."""
        passed = np.broadcast_to(self.low[:, None], (len(self.low), self.quantizer.lo - lowest))
        rows = np.concatenate([passed, boundaries], axis=1)
        if not rows.shape[1]:
            rows = self.high[:, None] + 1
        rows = rows + self.offset[:, None]
        if np.abs(rows).max() > _INT32.max:
            raise CompileError(f"Node {self.product.node!r} needs thresholds of more than 32 bits")
        thresholds: NDArray[np.int32] = rows.astype(np.int32)
        return thresholds

    def _is_average(self, boundaries: IntArray, levels: IntArray, source: Tensor, target: Tensor) -> bool:
        """Whether an average pooling, halves away from zero, gives these codes."""
        product, count = self.product, self.product.average
        same = replace(source, name=target.name, shape=target.shape, boundaries=()) == target
        if not count or not same or any(product.settings["padding"]):
            return False

        def average(acc: IntArray) -> IntArray:
            total = acc + source.zero_point * count
            quotient: IntArray = np.sign(total) * ((2 * np.abs(total) + count) // (2 * count))
            return quotient

        return np.array_equal(find_boundaries(average, self.low, self.high, levels), boundaries)
