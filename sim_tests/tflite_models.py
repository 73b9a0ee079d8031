"""TensorFlow Lite files for the tests: a few tensors and operators as plain values, written as a flatbuffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

__all__ = ["NONE", "OPTIONS", "RELU", "RELU6", "SAME", "VALID", "Act", "Op", "flatbuffer", "mutated"]

SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID
NONE, RELU, RELU6 = (getattr(tflite.ActivationFunctionType, name) for name in ("NONE", "RELU", "RELU6"))
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "CONCATENATION": "ConcatenationOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "SOFTMAX": "SoftmaxOptions",
    "ARG_MAX": "ArgMaxOptions",
    "TRANSPOSE": "TransposeOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
}
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4}
_DTYPES = {"i": "INT32", "b": "INT8", "f": "FLOAT32", "B": "UINT8", "q": "INT64", "h": "INT16"}


@dataclass
class Act:
    """A tensor: an activation, or a constant where it has ``data``; scale and zero point are one, or one a channel."""

    name: str
    shape: tuple[int, ...] = ()
    scale: float | Sequence[float] | None = None
    zero_point: int | Sequence[int] = 0
    data: NDArray[Any] | None = None
    type: str = "INT8"
    axis: int = 0
    signature: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.data is not None:
            self.shape, self.type = self.data.shape, _DTYPES[self.data.dtype.char]


@dataclass
class Op:
    """An operator over tensors by name (None: left out) with the options of its table in the schema."""

    operator: str
    inputs: Sequence[str | None]
    outputs: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0


def flatbuffer(
    tensors: Sequence[Act],
    ops: Sequence[Op],
    inputs: Sequence[str] = ("input",),
    outputs: Sequence[str] = ("output",),
    graphs: int = 1,
) -> bytes:
    """Return the file of one graph; ``graphs`` lists it several times."""
    builder = flatbuffers.Builder(4096)
    number = {tensor.name: index for index, tensor in enumerate(tensors)}
    buffers = [_table(builder, "Buffer")]
    for tensor in tensors:
        data = {} if tensor.data is None else {"Data": _vector(builder, np.frombuffer(tensor.data.tobytes(), np.uint8))}
        buffers.append(_table(builder, "Buffer", **data))
    entries = [_tensor(builder, tensor, index + 1) for index, tensor in enumerate(tensors)]
    codes = [_code(builder, op) for op in ops]
    nodes = [_node(builder, op, index, number) for index, op in enumerate(ops)]
    graph = _table(
        builder,
        "SubGraph",
        Tensors=_offsets(builder, entries),
        Inputs=_vector(builder, np.array([number[name] for name in inputs], np.int32)),
        Outputs=_vector(builder, np.array([number[name] for name in outputs], np.int32)),
        Operators=_offsets(builder, nodes),
    )
    root = _table(
        builder,
        "Model",
        Version=3,
        OperatorCodes=_offsets(builder, codes),
        Subgraphs=_offsets(builder, [graph] * graphs),
        Description=builder.CreateString("test"),
        Buffers=_offsets(builder, buffers),
    )
    builder.Finish(root, b"TFL3")
    return bytes(builder.Output())


def _table(builder: Any, kind: str, **fields: Any) -> int:
    getattr(tflite, f"{kind}Start")(builder)
    for name, value in fields.items():
        getattr(tflite, f"{kind}Add{name}")(builder, value)
    return int(getattr(tflite, f"{kind}End")(builder))


def _vector(builder: Any, values: NDArray[Any]) -> int:
    return int(builder.CreateNumpyVector(np.ascontiguousarray(values)))


def _offsets(builder: Any, entries: Sequence[int]) -> int:
    builder.StartVector(4, len(entries), 4)
    for entry in reversed(entries):
        builder.PrependUOffsetTRelative(entry)
    return int(builder.EndVector())


def _tensor(builder: Any, tensor: Act, buffer: int) -> int:
    fields = {
        "Shape": _vector(builder, np.array(tensor.shape, np.int32)),
        "Name": builder.CreateString(tensor.name),
    }
    if tensor.scale is not None:
        scales = np.atleast_1d(np.array(tensor.scale, np.float32))
        zero_points = np.broadcast_to(np.array(tensor.zero_point, np.int64), scales.shape)
        scale, zero_point = _vector(builder, scales), _vector(builder, zero_points)
        fields["Quantization"] = _table(
            builder, "QuantizationParameters", Scale=scale, ZeroPoint=zero_point, QuantizedDimension=tensor.axis
        )
    if tensor.signature is not None:
        fields["ShapeSignature"] = _vector(builder, np.array(tensor.signature, np.int32))
    return _table(builder, "Tensor", **fields, Type=getattr(tflite.TensorType, tensor.type), Buffer=buffer)


def _code(builder: Any, op: Op) -> int:
    value = getattr(tflite.BuiltinOperator, op.operator)
    version = op.version or _VERSIONS.get(op.operator, 2)
    fields = {"DeprecatedBuiltinCode": min(value, 127), "BuiltinCode": value, "Version": version}
    return _table(builder, "OperatorCode", **fields)


def _node(builder: Any, op: Op, index: int, number: Mapping[str, int]) -> int:
    kind = OPTIONS.get(op.operator)
    fields = {}
    if kind:
        fields["BuiltinOptions"] = _table(builder, kind, **op.options)
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, kind)
    inputs = np.array([-1 if name is None else number[name] for name in op.inputs], np.int32)
    outputs = np.array([number[name] for name in op.outputs], np.int32)
    fields |= {"Inputs": _vector(builder, inputs), "Outputs": _vector(builder, outputs)}
    return _table(builder, "Operator", OpcodeIndex=index, **fields)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged copy of a file: bytes or words overwritten, cut off, moved, repeated or swapped."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        # Half of the damage goes to the ends of the file, where the tables lie; the middle is mostly weights.
        at = int(rng.integers(len(data)))
        if rng.random() < 0.5:
            at = int(min(rng.exponential(len(data) / 20), len(data) - 1))
            at = len(data) - 1 - at if rng.random() < 0.7 else at
        kind = int(rng.integers(7))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.choice([0, 1, 2, 127, 128, 255]))
        elif kind == 2:
            word = int(
                rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, len(data), int(rng.integers(2**32))])
            )
            data[at & ~3 : (at & ~3) + 4] = word.to_bytes(4, "little")
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 9))]
        elif kind == 5:
            data[at:at] = data[at : at + int(rng.integers(1, 65))]
        else:
            other, size = int(rng.integers(len(data))), 4 * int(rng.integers(1, 5))
            data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
        if not data:
            break
    return bytes(data)
