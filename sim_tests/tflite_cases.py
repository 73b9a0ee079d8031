"""Networks of few operators with what TensorFlow Lite computes for them, stated a second time in plain numpy.

The statement follows the text of the reference kernels (gemmlowp's ``SaturatingRoundingDoublingHighMul`` and
``RoundingDivideByPOT``, window by window), not our interpreter's: nothing here is imported from the compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflite_models import NONE, RELU, RELU6, SAME, VALID, Act, Op, flatbuffer

__all__ = ["CASES", "Case", "inputs_of"]

Array = NDArray[Any]
F32 = np.float32


@dataclass(frozen=True)
class Case:
    """A file, the shape of its input, and the function from an input batch to the output, both as the file has them."""

    content: bytes
    shape: tuple[int, ...]
    expect: Callable[[Array], Array]


def inputs_of(case: Case, samples: int = 24) -> Array:
    """Return random input codes with both extremes among them."""
    codes = np.random.default_rng(3).integers(-128, 128, (samples, *case.shape[1:]))
    codes[0], codes[1] = -128, 127
    return codes.astype(np.int8)


def high_mul(a: Array, b: Array | int) -> Array:
    product = a.astype(object) * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.vectorize(lambda v: abs(v) // (1 << 31) * (1 if v >= 0 else -1), otypes=[np.int64])(nudged)


def divide_by_pot(x: Array, exponent: int) -> Array:
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def parts(real: float) -> tuple[int, int]:
    """Return the 31-bit fraction and the exponent of a real multiplier."""
    fraction, exponent = np.frexp(np.float64(real))
    quantized = int(np.floor(fraction * 2.0**31 + 0.5))
    return (quantized // 2, int(exponent) + 1) if quantized == 1 << 31 else (quantized, int(exponent))


def multiply(x: Array, multiplier: int, exponent: int) -> Array:
    return divide_by_pot(high_mul(x << max(exponent, 0), multiplier), max(-exponent, 0))


def rounded(x: Array) -> Array:
    """Return the nearest integers of doubles, halves away from zero: C++'s ``std::round``."""
    return np.trunc(x + np.copysign(0.5, x)).astype(np.int64)


def to_codes(x: Array, zero_point: int, activation: int, scale: float) -> Array:
    low, high = -128, 127
    if activation != NONE:
        low = max(low, zero_point)
    if activation == RELU6:
        high = min(high, zero_point + int(np.floor(F32(6) / F32(scale) + F32(0.5))))
    return np.clip(x + zero_point, low, high).astype(np.int8)


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return total // 2, total - total // 2


def windows(x: Array, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Array:
    """Return ``(B, H, W, C)`` as ``(B, rows, columns, kernel y, kernel x, C)``."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    rows = range(0, x.shape[1] - reach[0] + 1, stride[0])
    columns = range(0, x.shape[2] - reach[1] + 1, stride[1])
    cut = [[x[:, r : r + reach[0] : dilation[0], c : c + reach[1] : dilation[1]] for c in columns] for r in rows]
    return np.moveaxis(np.array(cut), 2, 0)


def padded(x: Array, mode: int, kernel: Any, stride: Any, dilation: Any, value: float) -> Array:
    if mode == VALID:
        return x
    pads = [same_pads(x.shape[a + 1], kernel[a], stride[a], dilation[a]) for a in (0, 1)]
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def convolved(
    kind: str,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    out: tuple[int, ...],
    *,
    mode: int = SAME,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    activation: int = NONE,
    scales: tuple[float, float] = (0.05, 0.11),
    zero_points: tuple[int, int] = (-7, 12),
    per_channel: bool = True,
    bias: bool = True,
) -> Case:
    """Return a convolution (weights OHWI), depthwise (1HWO) or linear layer (OI)."""
    rng = np.random.default_rng(sum(shape) + sum(weight))
    data = rng.integers(-127, 128, weight).astype(np.int8)
    axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
    rows = weight[axis]
    numbers = rng.integers(-4000, 4000, rows).astype(np.int32)
    scale = rng.uniform(0.0005, 0.01, rows if per_channel else 1).astype(F32)
    multiplier = weight[3] // shape[3] if axis else 1
    window = {"Padding": mode, "StrideH": stride[0], "StrideW": stride[1], "FusedActivationFunction": activation}
    window |= {"DilationHFactor": dilation[0], "DilationWFactor": dilation[1]}
    options = {
        "CONV_2D": window,
        "DEPTHWISE_CONV_2D": window | {"DepthMultiplier": multiplier},
        "FULLY_CONNECTED": {"FusedActivationFunction": activation, "KeepNumDims": len(out) > 2},
    }[kind]
    tensors = [
        Act("input", shape, scales[0], zero_points[0]),
        Act("weight", data=data, scale=scale, axis=axis),
        Act("output", out, scales[1], zero_points[1]),
    ]
    if bias:
        tensors.append(Act("bias", data=numbers, scale=(F32(scales[0]) * scale).tolist()))
    op = Op(kind, ["input", "weight", *(["bias"] if bias else [])], ["output"], options)

    def expect(x: Array) -> Array:
        wide = x.astype(np.int64) - zero_points[0]
        if kind == "FULLY_CONNECTED":
            acc = wide.reshape(len(x), -1) @ data.astype(np.int64).T
        else:
            cut = windows(padded(wide, mode, data.shape[1:3], stride, dilation, 0), data.shape[1:3], stride, dilation)
            taps = data.astype(np.int64)
            if axis:
                spread = np.repeat(cut, multiplier, axis=5)
                acc = (spread * taps[0]).sum(axis=(3, 4))
            else:
                inner = weight[3]
                groups, per_group = shape[3] // inner, rows // (shape[3] // inner)
                acc = np.stack(
                    [
                        (cut[..., row // per_group * inner :][..., :inner] * taps[row]).sum(axis=(3, 4, 5))
                        for row in range(rows)
                    ],
                    axis=-1,
                )
                assert groups * inner == shape[3]
        if bias:
            acc = acc + numbers
        result = np.empty_like(acc)
        for row in range(rows):
            real = float(F32(scales[0])) * float(scale[row if per_channel else 0]) / float(F32(scales[1]))
            sums = acc[..., row]
            result[..., row] = rounded(sums * real) if kind == "FULLY_CONNECTED" else multiply(sums, *parts(real))
        return to_codes(result, zero_points[1], activation, scales[1]).reshape(len(x), *out[1:])

    return Case(flatbuffer(tensors, [op]), shape, expect)


def tied() -> Case:
    """A linear layer without weights whose biases lie at and beside the boundaries between two codes."""
    scales, zero_point = (0.25, 0.5, 32.0), -3  # powers of two: half of the boundaries are ties
    real = scales[0] * scales[1] / scales[2]
    sums = np.unique([round((k + 0.5) / real) + d for k in range(-130, 131) for d in (-1, 0, 1)]).astype(np.int32)
    tensors = [
        Act("input", (1, 1), scales[0], 0),
        Act("weight", data=np.zeros((len(sums), 1), np.int8), scale=scales[1]),
        Act("bias", data=sums, scale=scales[0] * scales[1]),
        Act("output", (1, len(sums)), scales[2], zero_point),
    ]
    content = flatbuffer(tensors, [Op("FULLY_CONNECTED", ["input", "weight", "bias"], ["output"])])
    codes = to_codes(rounded(sums * real), zero_point, NONE, scales[2])
    return Case(content, (1, 1), lambda x: np.tile(codes, (len(x), 1)))


def pooled(
    average: bool,
    shape: tuple[int, ...],
    out: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    mode: int = VALID,
    activation: int = NONE,
) -> Case:
    options = {"Padding": mode, "StrideH": stride[0], "StrideW": stride[1], "FusedActivationFunction": activation}
    options |= {"FilterHeight": kernel[0], "FilterWidth": kernel[1]}
    op = Op("AVERAGE_POOL_2D" if average else "MAX_POOL_2D", ["input"], ["output"], options)
    tensors = [Act("input", shape, 0.1, -5), Act("output", out, 0.1, -5)]

    def expect(x: Array) -> Array:
        if not average:
            cut = windows(padded(x.astype(float), mode, kernel, stride, (1, 1), -np.inf), kernel, stride, (1, 1))
            return cut.max(axis=(3, 4)).astype(np.int8)
        total = windows(x.astype(np.int64), kernel, stride, (1, 1)).sum(axis=(3, 4))
        count = kernel[0] * kernel[1]
        mean = np.where(total > 0, (total + count // 2) // count, -((count // 2 - total) // count))
        return to_codes(mean + 5, -5, activation, 0.1)

    return Case(flatbuffer(tensors, [op]), shape, expect)


def meant(shape: tuple[int, ...], keep: bool, ends: tuple[float, int, float, int], axes: tuple[int, ...]) -> Case:
    out = (1, 1, 1, shape[3]) if keep else (1, shape[3])
    tensors = [Act("input", shape, ends[0], ends[1]), Act("output", out, ends[2], ends[3])]
    tensors.append(Act("axes", data=np.array(axes, np.int32)))

    def expect(x: Array) -> Array:
        count = shape[1] * shape[2]
        acc = (x.astype(np.int64) - ends[1]).sum(axis=(1, 2))
        multiplier, exponent = parts(float(F32(ends[0])) / float(F32(ends[2])))
        bits = count.bit_length() - 1
        result = multiply(acc, (multiplier << bits) // count, exponent - bits)
        return to_codes(result, ends[3], NONE, 1).reshape(len(x), *out[1:])

    return Case(flatbuffer(tensors, [Op("MEAN", ["input", "axes"], ["output"], {"KeepDims": keep})]), shape, expect)


def scaled(x: Array, source: tuple[float, int], target: tuple[float, int], activation: int, single: bool) -> Array:
    ratio = float(F32(source[0]) / F32(target[0])) if single else float(F32(source[0])) / float(F32(target[0]))
    return to_codes(multiply(x.astype(np.int64) - source[1], *parts(ratio)), target[1], activation, target[0])


def added(activation: int, first: tuple[float, int], out: tuple[float, int]) -> Case:
    """The input and its clamped, rescaled copy, added."""
    shape, other = (1, 3, 5, 4), (0.021, 9)
    tensors = [Act("input", shape, *first), Act("other", shape, *other), Act("output", shape, *out)]
    ops = [
        Op("QUANTIZE", ["input"], ["other"]),
        Op("ADD", ["input", "other"], ["output"], {"FusedActivationFunction": activation}),
    ]

    def expect(x: Array) -> Array:
        twice = 2 * max(F32(first[0]), F32(other[0]))
        total = 0
        for codes, (scale, zero_point) in ((x, first), (scaled(x, first, other, NONE, False), other)):
            shifted = (codes.astype(np.int64) - zero_point) << 20
            total = total + multiply(shifted, *parts(float(F32(scale)) / float(twice)))
        return to_codes(
            multiply(total, *parts(float(twice) / (float(1 << 20) * float(F32(out[0]))))), out[1], activation, out[0]
        )

    return Case(flatbuffer(tensors, ops), shape, expect)


def activated(operator: str, shape: tuple[int, ...], ends: tuple[tuple[float, int], tuple[float, int]]) -> Case:
    tensors = [Act("input", shape, *ends[0]), Act("output", shape, *ends[1])]
    activation = {"RELU": RELU, "RELU6": RELU6, "QUANTIZE": NONE}[operator]
    content = flatbuffer(tensors, [Op(operator, ["input"], ["output"])])
    return Case(content, shape, lambda x: scaled(x, *ends, activation, operator != "QUANTIZE"))


def arranged(operator: str, middle: tuple[int, ...], operand: list[int]) -> Case:
    """RESHAPE or TRANSPOSE of a pooled map, and a linear layer behind it."""
    shape, pool = (1, 4, 6, 3), (1, 2, 3, 3)
    weight = np.random.default_rng(8).integers(-127, 128, (5, 18)).astype(np.int8)
    tensors = [
        Act("input", shape, 0.1, -5),
        Act("pooled", pool, 0.1, -5),
        Act("operand", data=np.array(operand, np.int32)),
        Act("middle", middle, 0.1, -5),
        Act("weight", data=weight, scale=0.004),
        Act("output", (1, 5), 0.3, 1),
    ]
    window = {"Padding": VALID, "StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2}
    ops = [
        Op("MAX_POOL_2D", ["input"], ["pooled"], window),
        Op(operator, ["pooled", "operand"], ["middle"], version=1),
        Op("FULLY_CONNECTED", ["middle", "weight", None], ["output"]),
    ]

    def expect(x: Array) -> Array:
        most = windows(x, (2, 2), (2, 2), (1, 1)).max(axis=(3, 4))
        if operator == "TRANSPOSE":
            most = most.transpose(operand)
        acc = (most.reshape(len(x), -1).astype(np.int64) + 5) @ weight.astype(np.int64).T
        return to_codes(rounded(acc * (float(F32(0.1)) * float(F32(0.004)) / float(F32(0.3)))), 1, NONE, 0.3)

    return Case(flatbuffer(tensors, ops), shape, expect)


def joined() -> Case:
    """The input, concatenated with its own maximum over windows of 3 x 3."""
    shape = (1, 5, 4, 3)
    tensors = [Act(name, shape, 0.1, -5) for name in ("input", "most")] + [Act("output", (1, 5, 4, 6), 0.1, -5)]
    window = {"Padding": SAME, "StrideH": 1, "StrideW": 1, "FilterHeight": 3, "FilterWidth": 3}
    ops = [
        Op("MAX_POOL_2D", ["input"], ["most"], window),
        Op("CONCATENATION", ["most", "input"], ["output"], {"Axis": 3}),
    ]
    most = pooled(False, shape, shape, (3, 3), (1, 1), SAME).expect
    return Case(flatbuffer(tensors, ops), shape, lambda x: np.concatenate([most(x), x], axis=3))


def bordered(operator: str) -> Case:
    """PAD or PADV2 before a VALID convolution."""
    shape, pads = (1, 4, 5, 2), ((0, 0), (1, 0), (2, 1), (0, 0))
    weight = np.random.default_rng(9).integers(-127, 128, (3, 3, 3, 2)).astype(np.int8)
    tensors = [
        Act("input", shape, 0.05, -7),
        Act("pads", data=np.array(pads, np.int32)),
        Act("wide", (1, 5, 8, 2), 0.05, -7),
        Act("weight", data=weight, scale=0.003),
        Act("output", (1, 3, 6, 3), 0.2, 3),
        Act("bias", data=np.array([0, 900, -900], np.int32), scale=0.00015),
        Act("value", data=np.array([-7], np.int8), scale=0.05, zero_point=-7),
    ]
    window = {"Padding": VALID, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    ops = [
        Op(operator, ["input", "pads", *(["value"] if operator == "PADV2" else [])], ["wide"]),
        Op("CONV_2D", ["wide", "weight", "bias"], ["output"], window),
    ]

    def expect(x: Array) -> Array:
        wide = np.pad(x.astype(np.int64) + 7, pads)
        acc = np.einsum("bhwyxc,oyxc->bhwo", windows(wide, (3, 3), (1, 1), (1, 1)), weight.astype(np.int64))
        acc = acc + [0, 900, -900]
        real = float(F32(0.05)) * float(F32(0.003)) / float(F32(0.2))
        return to_codes(multiply(acc, *parts(real)), 3, NONE, 0.2)

    return Case(flatbuffer(tensors, ops), shape, expect)


CASES: dict[str, Case] = {
    "conv_same_stride": convolved("CONV_2D", (1, 7, 5, 3), (4, 3, 2, 3), (1, 4, 5, 4), stride=(2, 1), activation=RELU),
    "conv_valid_dilated": convolved(
        "CONV_2D",
        (1, 8, 7, 2),
        (3, 3, 2, 2),
        (1, 4, 3, 3),
        mode=VALID,
        dilation=(2, 1),
        stride=(1, 2),
        per_channel=False,
    ),
    "conv_grouped_relu6": convolved("CONV_2D", (1, 3, 4, 6), (4, 1, 1, 3), (1, 3, 4, 4), activation=RELU6),
    "conv_large_scale": convolved(
        "CONV_2D", (1, 2, 3, 2), (3, 1, 1, 2), (1, 2, 3, 3), scales=(8.0, 4.0), zero_points=(-128, 127)
    ),
    "depthwise_stride": convolved(
        "DEPTHWISE_CONV_2D", (1, 6, 5, 3), (1, 3, 3, 3), (1, 3, 3, 3), stride=(2, 2), activation=RELU6
    ),
    "depthwise_multiplier": convolved("DEPTHWISE_CONV_2D", (1, 4, 4, 2), (1, 2, 3, 6), (1, 3, 2, 6), mode=VALID),
    "linear": convolved("FULLY_CONNECTED", (1, 37), (9, 37), (1, 9), per_channel=False, activation=RELU),
    "linear_of_map": convolved("FULLY_CONNECTED", (1, 3, 4, 2), (5, 24), (1, 5), per_channel=False, bias=False),
    "linear_per_channel_rank_4": convolved("FULLY_CONNECTED", (1, 1, 1, 8), (5, 8), (1, 1, 1, 5)),
    "linear_of_ties": tied(),
    "average": pooled(True, (1, 7, 5, 3), (1, 3, 2, 3), (3, 2), (2, 2)),
    "average_relu": pooled(True, (1, 5, 5, 2), (1, 1, 1, 2), (5, 5), (5, 5), SAME, RELU),
    "max_same": pooled(False, (1, 7, 5, 3), (1, 4, 3, 3), (3, 3), (2, 2), SAME),
    "max_valid": pooled(False, (1, 6, 5, 2), (1, 3, 2, 2), (2, 2), (2, 2)),
    "mean": meant((1, 5, 3, 2), True, (0.4, -128, 0.9, -7), (1, 2)),
    "mean_same_scale": meant((1, 4, 5, 3), False, (0.05, -128, 0.05, -128), (-2, -3)),
    "mean_narrow": meant((1, 7, 7, 2), False, (0.1, -7, 0.33, -128), (2, 1)),
    "add": added(NONE, (0.07, -11), (0.09, 5)),
    "add_relu": added(RELU, (0.013, 100), (0.02, -128)),
    "relu": activated("RELU", (1, 3, 4, 2), ((0.1, -5), (0.07, -128))),
    "relu6": activated("RELU6", (1, 3, 4, 2), ((0.1, -5), (0.1, -5))),
    "requantize": activated("QUANTIZE", (1, 3, 4, 2), ((0.1, -5), (0.033, 20))),
    "reshape": arranged("RESHAPE", (1, 18), [1, 18]),
    "transpose": arranged("TRANSPOSE", (1, 3, 2, 3), [0, 3, 1, 2]),
    "concat": joined(),
    "pad": bordered("PAD"),
    "padv2": bordered("PADV2"),
}
