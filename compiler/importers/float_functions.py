"""Float32 functions as a framework computes them, one rounding an operation, and the quantizers behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import CompileError

__all__ = ["ROUNDINGS", "SCALES", "FloatArray", "Quantizer", "Step", "directions", "run_steps", "usable"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def _away(rounded: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a rounding of magnitudes that keeps the sign."""
    return lambda x: np.sign(x) * rounded(np.abs(x))


ROUNDINGS: dict[str, Callable[[Any], Any]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": _away(np.ceil),
    "DOWN": np.trunc,
    "HALF_UP": _away(lambda x: np.floor(x + np.float32(0.5))),
    "HALF_DOWN": _away(lambda x: np.ceil(x - np.float32(0.5))),
}
"""The roundings of QONNX by name (QONNX operator definitions, IntQuant); all of them are monotone."""


SCALES = (np.float32(1e-30), np.float32(1e30))
"""Smallest and largest scale: beyond, products of float32 values overflow or lose bits that integers keep."""


def usable(scale: Any) -> bool:
    """Whether all of one or more scales lie within :data:`SCALES`."""
    array = np.asarray(scale)
    return bool(((array >= SCALES[0]) & (array <= SCALES[1])).all())


@dataclass(frozen=True, eq=False)
class Step:
    """A float32 function of one element, monotone in every channel.

    Attributes
    ----------
    node : name of the ONNX node it comes from
    apply : float32 ``(C, n)`` to float32 ``(C, n)``
    direction : int ``()`` or ``(C,)``: 1 where it never falls, -1 where it never rises, 0 where it is constant
    factor : the positive number that it multiplies with, None where it does anything else
    """

    node: str
    apply: Callable[[FloatArray], FloatArray]
    direction: IntArray
    factor: float | None = None


def directions(steps: Sequence[Step], channels: int) -> IntArray:
    """Return the direction of the steps one after another, int64 ``(channels,)``."""
    total: IntArray = np.ones(channels, np.int64)
    for step in steps:
        total = total * step.direction
    return total


def run_steps(steps: Sequence[Step], values: FloatArray) -> FloatArray:
    """Return ``values``, float32 ``(C, n)``, after all steps.

    Raises
    ------
    CompileError
        If a step has no value there.
    """
    with np.errstate(all="ignore"):
        for step in steps:
            values = step.apply(values)
            if np.isnan(values).any():
                raise CompileError(f"Node {step.node!r} computes values that are no numbers; correct its parameters")
    return values


@dataclass(frozen=True, eq=False)
class Quantizer:
    """What turns float32 values into codes: ``clamp(function(x), lo, hi)``; a code's value is ``(code - zp) * scale``.

    Attributes
    ----------
    node : name of the ONNX node it comes from
    function : float32 ``(C, n)`` to whole numbers, never falling
    scale, zero_point : the value of a code, computed in float32
    lo, hi : smallest and largest code
    bits, signed : of the tensor that holds the codes; 0 bits: as many as the codes that can occur need
    """

    node: str
    function: Callable[[FloatArray], NDArray[Any]]
    scale: np.float32
    zero_point: int
    lo: int
    hi: int
    bits: int
    signed: bool

    def codes(self, values: FloatArray) -> IntArray:
        """Return the codes of float32 values, int64, same shape."""
        with np.errstate(all="ignore"):
            whole = self.function(values)
        if np.isnan(whole).any():
            raise CompileError(f"Node {self.node!r} computes values that are no numbers; correct its parameters")
        codes: IntArray = np.clip(whole, self.lo, self.hi).astype(np.int64)
        return codes

    def values(self, codes: IntArray) -> FloatArray:
        """Return the float32 values of codes."""
        result: FloatArray = (codes - self.zero_point).astype(np.float32) * self.scale
        return result

    def step(self) -> Step:
        """Return quantizing and dequantizing as one step."""
        return Step(self.node, lambda values: self.values(self.codes(values)), np.array(1))
