"""ONNX's QuantizeLinear and DequantizeLinear around float operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.float_functions import SCALES, FloatArray, Quantizer, usable
from zeroskip.compiler.importers.flows import Constant, Flow, IntegerInput, Joined, Levels, Stored
from zeroskip.compiler.importers.onnx_context import Context, Value
from zeroskip.compiler.importers.onnx_graph import Node
from zeroskip.compiler.importers.qonnx import quantized
from zeroskip.compiler.ir import Tensor

__all__ = ["LINEAR_QUANTIZERS"]

_CODES = {np.dtype(np.uint8): (0, 255), np.dtype(np.int8): (-128, 127)}
_CONSTANTS = (*_CODES, np.dtype(np.int16), np.dtype(np.uint16), np.dtype(np.int32))


def _quantize(context: Context, node: Node) -> Value:
    values = context.attributes(node, axis=1, saturate=1, block_size=0, output_dtype=0, precision=0)
    if values["block_size"] or values["output_dtype"] or values["precision"]:
        raise node.refused(
            "has a block size, an output type or a precision; supported is a zero point of int8 or uint8"
        )
    scale, zero = context.scalar(node, 1), context.constant(node, 2, np.uint8(0))
    dtype = zero.dtype
    if dtype not in _CODES or zero.size != 1 or not usable(scale):
        raise node.refused(
            f"must have one scale above 0 and one zero point of int8 or uint8, not {scale:g} and {dtype}"
        )
    (lo, hi), zero_point = _CODES[dtype], int(zero.ravel()[0])
    operand = context.operand(node, 0)
    if isinstance(operand, Constant):
        with np.errstate(over="ignore"):
            codes = np.clip(np.rint(operand.array.astype(np.float32) / scale) + zero_point, lo, hi)
        if np.isnan(codes).any():
            raise node.refused("quantizes values that are no numbers")
        return Constant(codes.astype(dtype))

    def function(x: FloatArray) -> NDArray[Any]:
        # rounded before the zero point is added: its parity does not turn a tie
        return np.asarray(np.clip(np.rint(x / scale), np.float32(-(1 << 20)), np.float32(1 << 20)) + zero_point)

    quantizer = Quantizer(node.name, function, scale, zero_point, lo, hi, 8, lo < 0)
    return replace(quantized(context, node, context.computed(node), quantizer), integer=True)


def _dequantize(context: Context, node: Node) -> Value:
    values = context.attributes(node, axis=1, block_size=0, output_dtype=0)
    if values["block_size"] or values["output_dtype"]:
        raise node.refused("has a block size or an output type; supported is one scale a tensor or a channel")
    operand = context.operand(node, 0)
    if isinstance(operand, Constant):
        return _levels(context, node, operand, values["axis"])
    scale, zero_point = context.scalar(node, 1), int(context.scalar(node, 2, 0))
    value = context.computed(node, integer=True)
    if not value.integer:
        raise node.refused("reads floats; it must read what a QuantizeLinear gives")
    if isinstance(value, Flow) and isinstance(value.source, IntegerInput):
        return _integer_input(context, node, value, scale, zero_point)
    for part in value.parts if isinstance(value, Joined) else (value,):
        _check_same(node, part, scale, zero_point)
    context.served(node, "the values of codes")
    if isinstance(value, Flow) and value.quantizer is not None and context.readers[value.name] > 1:
        value = context.builder.store(value, node.name)
    return replace(value, name=node.outputs[0], integer=False)


def _check_same(node: Node, part: Flow, scale: np.float32, zero_point: int) -> None:
    known = (scale, zero_point)
    if part.quantizer is not None:
        known = (part.quantizer.scale, part.quantizer.zero_point)
    elif isinstance(part.source, Stored):
        known = (np.float32(part.source.scale), part.source.zero_point)
    if known != (scale, zero_point):
        raise node.refused(
            f"has scale {scale:g} and zero point {zero_point}, but its input was quantized with {known[0]:g} and "
            f"{known[1]}; they must be the same"
        )


def _integer_input(context: Context, node: Node, value: Flow, scale: np.float32, zero_point: int) -> Value:
    lo, hi = _CODES[np.dtype(context.graph.dtype)]
    if not (usable(scale) and lo <= zero_point <= hi):
        raise node.refused(f"must have a scale above 0 and a zero point from {lo} to {hi}, not {scale:g}, {zero_point}")
    builder = context.builder
    name = builder.input or builder.name(context.graph.input)
    shape = builder.input_shape
    builder.set_input(Tensor(name, shape, 8, lo < 0, float(scale), zero_point), node.name)
    context.served(node, f"codes of the input {name!r}")
    source = Stored(name, float(scale), zero_point, lo, hi)
    return replace(value, name=node.outputs[0], source=source, integer=False)


def _levels(context: Context, node: Node, operand: Constant, axis: int) -> Constant:
    """Return a constant and the integers behind it."""
    codes = operand.array
    scale, zero = context.constant(node, 1).astype(np.float32), context.constant(node, 2, 0)
    if codes.dtype not in _CONSTANTS:
        raise node.refused(f"dequantizes {codes.dtype}; supported are {', '.join(map(str, _CONSTANTS))}")
    if not usable(scale):
        raise node.refused(f"must have scales from {SCALES[0]:g} to {SCALES[1]:g}")
    if zero.shape not in ((), (1,), scale.shape):
        raise node.refused(f"has scales of shape {scale.shape} and zero points of shape {zero.shape}")
    if scale.size > 1:
        rank = codes.ndim
        axis = axis + rank if axis < 0 else axis
        if scale.ndim != 1 or not 0 <= axis < rank or codes.shape[axis] != scale.size:
            raise node.refused(f"has {scale.shape} scales on axis {axis} of an array of shape {codes.shape}")
        shape = tuple(scale.size if index == axis else 1 for index in range(rank))
        scale = scale.reshape(shape)
        zero = zero.reshape(shape) if zero.size > 1 else zero.reshape(())
    else:
        scale, zero = scale.reshape((1,) * codes.ndim), zero.reshape(())
    levels = codes.astype(np.int64) - zero.astype(np.int64)
    # a symmetric tensor of int8 has no -128
    narrow = bool(levels.size) and int(levels.min()) > -128
    quantized = Levels(levels, scale, 8 * codes.dtype.itemsize, narrow and codes.dtype == np.int8)
    return Constant(levels.astype(np.float32) * scale, quantized)


LINEAR_QUANTIZERS: Mapping[str, Callable[[Context, Node], Value]] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
}
