"""The rule by which a network's float inputs become codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.importers.boundaries import find_float_boundaries
from zeroskip.compiler.importers.float_functions import Quantizer, directions, run_steps
from zeroskip.compiler.importers.flows import Flow
from zeroskip.compiler.ir import Tensor

__all__ = ["input_tensor"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


def input_tensor(name: str, flow: Flow, quantizer: Quantizer) -> Tensor:
    """Return the input tensor whose codes ``quantizer`` makes of ``flow``.

    Its ``boundaries`` are given only where ``clamp(half_even(x / scale) + zero_point)`` differs for some float32.

    Raises
    ------
    CompileError
        If the rule falls, differs by channel, or has no bits.
    """
    what = f"Node {quantizer.node!r} quantizes the network's input"
    if not quantizer.bits:
        raise CompileError(f"{what} without a number of bits of at most 8")
    channels = flow.shape[0]
    if (directions(flow.steps, channels) < 0).any():
        raise CompileError(f"{what} turned around; give it a factor above 0")
    levels = np.arange(quantizer.lo + 1, quantizer.hi + 1)
    by_channel = any(np.ndim(step.direction) for step in flow.steps)
    rules = [_boundaries(flow, quantizer, levels, channel) for channel in range(channels if by_channel else 1)]
    if any(not np.array_equal(rule, rules[0]) for rule in rules):
        raise CompileError(
            f"{what} with factors that differ by channel; scale the channels alike, or before the network"
        )
    scale = float(quantizer.scale)
    tensor = Tensor(name, flow.shape, quantizer.bits, quantizer.signed, scale, quantizer.zero_point)
    if _is_linear(tensor, levels, rules[0]):
        return tensor
    # codes that the quantizer never gives are passed below and not met above
    below, above = quantizer.lo - tensor.lo, tensor.hi - quantizer.hi
    found = (float(value) for value in rules[0])
    return replace(tensor, boundaries=(*(-np.inf,) * below, *found, *(np.inf,) * above))


def _boundaries(flow: Flow, quantizer: Quantizer, levels: IntArray, channel: int) -> FloatArray:
    def codes(x: FloatArray) -> IntArray:
        wide = np.broadcast_to(x, (flow.shape[0], x.shape[-1]))
        return quantizer.codes(run_steps(flow.steps, wide))[channel : channel + 1]

    return find_float_boundaries(codes, levels)


def _is_linear(tensor: Tensor, levels: IntArray, boundaries: FloatArray) -> bool:
    """Whether ``clamp(half_even(x / scale) + zero_point)`` begins every code where the framework does."""
    if not len(levels) or tensor.lo != levels[0] - 1 or tensor.hi != levels[-1] or not np.isfinite(boundaries).all():
        return False

    def codes(x: FloatArray) -> NDArray[np.float64]:
        return np.rint(x.astype(np.float64) / tensor.scale) + tensor.zero_point

    before = np.nextafter(boundaries, np.float32(-np.inf))
    return bool(((codes(boundaries) >= levels) & (codes(before) < levels)).all())
