"""The quantizers of QONNX (Pappalardo et al. 2022): Quant, IntQuant, BipolarQuant, Trunc and MultiThreshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.float_functions import ROUNDINGS, SCALES, FloatArray, Quantizer, usable
from zeroskip.compiler.importers.flows import Constant, Flow, Joined, Levels
from zeroskip.compiler.importers.onnx_context import Context, Value
from zeroskip.compiler.importers.onnx_graph import Node
from zeroskip.compiler.importers.products import code_bits

__all__ = ["QUANTIZERS", "quantized"]

_WIDEST = 32


def quantized(context: Context, node: Node, value: Flow | Joined, quantizer: Quantizer) -> Flow | Joined:
    """Return ``value`` with its codes made by ``quantizer``."""
    name = node.outputs[0]
    if isinstance(value, Joined):
        parts = tuple(
            replace(_open(context, part), name=f"{name}.{number}", label=f"{name}.{number}", quantizer=quantizer)
            for number, part in enumerate(value.parts)
        )
        return replace(value, name=name, parts=parts)
    return replace(_open(context, value), name=name, label=name, quantizer=quantizer)


def _open(context: Context, flow: Flow) -> Flow:
    if flow.quantizer is not None and context.readers[flow.name] > 1:
        return context.builder.store(flow, flow.name)
    return flow.unquantized()


def _integer_limits(node: Node, bits: float, signed: bool, narrow: bool) -> tuple[int, int, int]:
    """Return smallest and largest code and the bits, checked."""
    if bits != int(bits) or not 1 <= bits <= _WIDEST:
        raise node.refused(f"must have a whole number of bits from 1 to {_WIDEST}, not {bits:g}")
    width = int(bits)
    if signed:
        return -(1 << (width - 1)) + int(narrow), (1 << (width - 1)) - 1, width
    return 0, (1 << width) - 1 - int(narrow), width


def _rounding(node: Node, name: str) -> Callable[[Any], Any]:
    if name.upper() not in ROUNDINGS:
        raise node.refused(f"has rounding mode {name!r}; supported are {', '.join(ROUNDINGS)}")
    return ROUNDINGS[name.upper()]


def _quant(context: Context, node: Node) -> Value:
    values = context.attributes(node, signed=1, narrow=0, rounding_mode="ROUND")
    signed, narrow = bool(values["signed"]), bool(values["narrow"])
    lo, hi, bits = _integer_limits(node, float(context.scalar(node, 3)), signed, narrow)
    rounding = _rounding(node, values["rounding_mode"])
    sign = signed and bits == 1
    operand = context.operand(node, 0)
    if isinstance(operand, Constant):
        scales, zeros = (context.constant(node, index).astype(np.float32) for index in (1, 2))
        return _levels(node, operand.array, scales, zeros, (lo, hi, bits), narrow, rounding, sign)
    scale, zero = _scale(context, node), context.scalar(node, 2)
    zero_point = _whole(node, zero)
    if sign:
        bits, lo, hi, zero_point = 2, -1, 1, 0
        if zero:
            raise node.refused("has one bit with a sign and a zero point; supported is a zero point of 0")

    def function(x: FloatArray) -> NDArray[Any]:
        y = x / scale + zero
        if sign:
            return np.where(y >= 0, 1, -1)
        # clamped first, as QONNX does: the limits are whole numbers
        return np.asarray(rounding(np.clip(y, np.float32(lo), np.float32(hi))))

    if bits <= 8 and not lo <= zero_point <= hi:
        raise node.refused(f"has zero point {zero_point}, but codes {lo} to {hi}; it must be one of them")
    wide = bits > 8
    quantizer = Quantizer(node.name, function, scale, zero_point, lo, hi, 0 if wide else bits, signed)
    return quantized(context, node, context.computed(node), quantizer)


def _levels(
    node: Node,
    array: NDArray[Any],
    scale: NDArray[np.float32],
    zero: NDArray[np.float32],
    limits: tuple[int, int, int],
    narrow: bool,
    rounding: Callable[[Any], Any],
    sign: bool,
) -> Constant:
    """Return a quantized constant."""
    lo, hi, bits = limits
    values = np.asarray(array, np.float32)
    if not (np.isfinite(values).all() and usable(scale)):
        raise node.refused(f"must have finite values and scales from {SCALES[0]:g} to {SCALES[1]:g}")
    if (zero != np.rint(zero)).any() or np.abs(zero).max(initial=0) > 1 << 16:
        raise node.refused("must have a whole zero point")
    _broadcasts(node, values, scale, zero)
    with np.errstate(over="ignore"):
        y = values / scale + zero
    whole = np.where(y >= 0, 1, -1) if sign else rounding(np.clip(y, np.float32(lo), np.float32(hi)))
    levels = np.asarray(whole - zero, np.float32)
    full = scale.reshape((1,) * (levels.ndim - scale.ndim) + scale.shape)
    quantized = Levels(levels.astype(np.int64), full, bits, narrow, sign)
    return Constant(levels * scale, quantized)


def _broadcasts(node: Node, values: NDArray[Any], *others: NDArray[Any]) -> None:
    for other in others:
        try:
            fits = np.broadcast_shapes(values.shape, other.shape) == values.shape
        except ValueError:
            fits = False
        if not fits:
            raise node.refused(f"has parameters of shape {other.shape} for an array of shape {values.shape}")


def _scale(context: Context, node: Node, index: int = 1) -> np.float32:
    scale = context.scalar(node, index)
    if not usable(scale):
        raise node.refused(f"must have a scale above 0, from {SCALES[0]:g} to {SCALES[1]:g}, not {scale:g}")
    return scale


def _whole(node: Node, zero: np.float32) -> int:
    if zero != np.rint(zero) or abs(zero) > 1 << 24:
        raise node.refused(f"must have a whole zero point, not {zero:g}")
    return int(zero)


def _bipolar(context: Context, node: Node) -> Value:
    context.attributes(node)
    operand = context.operand(node, 0)
    if isinstance(operand, Constant):
        scale = context.constant(node, 1).astype(np.float32)
        zero = np.zeros((), np.float32)
        return _levels(node, operand.array, scale, zero, (-1, 1, 1), False, np.rint, True)

    def function(x: FloatArray) -> NDArray[Any]:
        return np.where(x >= 0, 1, -1)

    quantizer = Quantizer(node.name, function, _scale(context, node), 0, -1, 1, 2, True)
    return quantized(context, node, context.computed(node), quantizer)


def _trunc(context: Context, node: Node) -> Value:
    """Trunc: of version 1 with 5 inputs, of version 2 with 6, which clamps and has an output scale."""
    second = len(node.inputs) == 6
    known: dict[str, Any] = {"rounding_mode": "FLOOR", **({"signed": 1, "narrow": 0} if second else {})}
    values = context.attributes(node, **known)
    rounding = _rounding(node, values["rounding_mode"])
    scale, zero = _scale(context, node), context.scalar(node, 2)
    bits = float(context.scalar(node, 5 if second else 4))
    if second:
        target = _scale(context, node, 4)
        power = np.float32(2) ** np.round(np.log2(target / scale))
        lo, hi, width = _integer_limits(node, bits, bool(values["signed"]), bool(values["narrow"]))
        zero_point = _whole(node, zero / power)
    else:
        target = scale
        power = np.float32(2.0 ** (float(context.scalar(node, 3)) - bits))
        lo, hi, width = -(1 << 30), 1 << 30, 0
        zero_point = _whole(node, zero)
    if not (np.isfinite(power) and power > 0):
        raise node.refused(f"must divide by a power of two, not {power:g}")

    def function(x: FloatArray) -> NDArray[Any]:
        y = np.round(x / scale + zero) / power
        return np.asarray(rounding(np.clip(y, np.float32(lo), np.float32(hi))))

    signed = bool(values.get("signed", 1))
    quantizer = Quantizer(node.name, function, target, zero_point, lo, hi, width if width <= 8 else 0, signed)
    return quantized(context, node, context.computed(node), quantizer)


def _multi_threshold(context: Context, node: Node) -> Value:
    values = context.attributes(node, out_dtype="", out_scale=1.0, out_bias=0.0, data_layout="")
    value = context.computed(node)
    thresholds = np.asarray(context.constant(node, 1), np.float32)
    if thresholds.ndim != 2 or not 1 <= thresholds.shape[1] <= 255 or np.isnan(thresholds).any():
        raise node.refused(f"must have thresholds of shape (channels, 1 to 255), not {thresholds.shape}")
    count = thresholds.shape[1]
    channels = value.shape[0]
    rows = np.sort(thresholds, axis=1)
    if len(rows) > 1:
        axis = _channel_axis(node, values["data_layout"], len(value.layout))
        if value.layout[axis] != "C" or len(rows) != channels:
            raise node.refused(
                f"has thresholds for {len(rows)} channels on axis {axis}, but its input has {channels} and layout "
                f"{value.layout}"
            )
    scale, bias = np.float32(values["out_scale"]), np.float32(values["out_bias"])
    if not usable(scale):
        raise node.refused(f"must have an out_scale from {SCALES[0]:g} to {SCALES[1]:g}, not {scale:g}")
    unit, factor, offset = _threshold_codes(node, scale, bias, count)

    def counted(x: FloatArray, rows: FloatArray) -> NDArray[Any]:
        table = np.broadcast_to(rows, (len(x), count))
        return np.stack([np.searchsorted(row, line, side="right") for row, line in zip(table, x, strict=True)])

    def make(part: FloatArray) -> Quantizer:
        lo, hi = offset, offset + factor * count
        bits, signed = code_bits(lo, hi)
        if bits > 8:
            raise node.refused(f"gives codes from {lo} to {hi}, {bits} bits; activations have at most 8")
        function: Callable[[FloatArray], NDArray[Any]] = lambda x: counted(x, part) * factor + offset  # noqa: E731
        return Quantizer(node.name, function, unit, 0, lo, hi, bits, signed)

    if isinstance(value, Joined) and len(rows) > 1:
        parts, first = [], 0
        for number, part in enumerate(value.parts):
            quantizer = make(rows[first : first + part.shape[0]])
            name = f"{node.outputs[0]}.{number}"
            parts.append(replace(_open(context, part), name=name, label=name, quantizer=quantizer))
            first += part.shape[0]
        return replace(value, name=node.outputs[0], parts=tuple(parts))
    return quantized(context, node, value, make(rows))


def _channel_axis(node: Node, layout: str, rank: int) -> int:
    """Return the channel axis as QONNX finds it."""
    layout = layout or {2: "NC", 3: "NWC", 4: "NCHW"}.get(rank, "")
    if len(layout) != rank or "C" not in layout:
        raise node.refused(f"has data layout {layout!r} for an input of {rank} axes")
    return layout.index("C")


def _threshold_codes(node: Node, scale: np.float32, bias: np.float32, count: int) -> tuple[np.float32, int, int]:
    """Return unit, factor and offset: the value of n thresholds is ``unit * (factor * n + offset)``, in float32."""
    if not np.isfinite(bias):
        raise node.refused(f"must have a finite out_bias, not {bias:g}")
    numbers = np.arange(count + 1)
    wanted = scale * numbers.astype(np.float32) + bias
    for factor in (1, 2):
        unit = np.float32(scale / factor)
        offset = float(np.rint(bias / unit))
        if abs(offset) > 1 << 16:
            continue
        codes = numbers * factor + int(offset)
        if np.array_equal(codes.astype(np.float32) * unit, wanted):
            return unit, factor, int(offset)
    raise node.refused(
        f"has out_bias {bias:g} and out_scale {scale:g}; the bias must be a whole number of half steps, so that the "
        "values are those of integer codes"
    )


QUANTIZERS: Mapping[str, Callable[[Context, Node], Value]] = {
    "BipolarQuant": _bipolar,
    "IntQuant": _quant,
    "MultiThreshold": _multi_threshold,
    "Quant": _quant,
    "Trunc": _trunc,
}
