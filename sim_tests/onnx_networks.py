"""Small ONNX graphs, and a float32 evaluator of them that shares no code with the importer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zeroskip.compiler import reference
from zeroskip.compiler.importers.onnx_model import load_onnx
from zeroskip.compiler.ir import Model
from zeroskip.vectors import to_codes

__all__ = ["Net", "check", "check_table", "evaluate", "evaluate_tfc"]

Array = NDArray[Any]
F32 = np.float32
QONNX = "qonnx.custom_op.general"
CHANNELS_LAST = "qonnx.custom_op.channels_last"


class Net:
    """A graph that grows node by node; methods return the name of what they made."""

    def __init__(self, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT, opset: int = 13) -> None:
        self.shape, self.dtype, self.opset = list(shape), dtype, opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.last = "x"

    def const(self, value: Any, dtype: Any = F32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def op(self, op: str, *inputs: Any, domain: str = "", **attributes: Any) -> str:
        """Add a node; without inputs it reads the last one, constants may be given as arrays."""
        names = [item if isinstance(item, str) else self.const(item) for item in (inputs or (self.last,))]
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], f"{op}_{len(self.nodes)}", domain=domain, **attributes))
        self.last = output
        return output

    def quant(
        self, x: str = "", scale: Any = 1.0, zero: float = 0.0, bits: float = 4, *, op: str = "Quant", **attributes: Any
    ) -> str:
        settings = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
        return self.op(op, x or self.last, scale, zero, bits, domain=QONNX, **settings)

    def weight(self, values: Array, scale: Any = 1.0, bits: float = 4, **attributes: Any) -> str:
        last, name = self.last, self.quant(self.const(values), scale, 0.0, bits, **attributes)
        self.last = last
        return name

    def norm(self, rng: np.random.Generator, channels: int, spread: float = 4.0, domain: str = "") -> str:
        """Add a batch normalization with gammas of both signs, one of them 0."""
        gamma = rng.normal(0, 1, channels)
        gamma[channels // 2] = 0
        parameters = (gamma, rng.normal(0, 1, channels), rng.normal(0, spread, channels))
        return self.op(
            "BatchNormalization", self.last, *parameters, rng.uniform(0.5, spread**2, channels), domain=domain
        )

    def proto(self, output: str = "") -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", self.dtype, self.shape)],
            [helper.make_tensor_value_info(output or self.last, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [
            helper.make_opsetid("", self.opset),
            helper.make_opsetid(QONNX, 1),
            helper.make_opsetid(CHANNELS_LAST, 1),
        ]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def load(self, folder: Path, output: str = "") -> Model:
        path = folder / "net.onnx"
        path.write_bytes(self.proto(output).SerializeToString())
        return load_onnx(path)


def check(net: Net, folder: Path, inputs: Array, *, minimum: int = 1) -> Model:
    """Compare the reference with the evaluator on float ``inputs``, every tensor that both have; return the model."""
    model = net.load(folder)
    check_table(net, model)
    values = evaluate(net.proto(), inputs)
    shaped = (
        inputs
        if inputs.ndim < 4 or inputs.shape[1:] == model.tensors[model.input].shape
        else inputs.transpose(0, 3, 1, 2)
    )
    codes = to_codes(shaped, model.tensors[model.input], "inputs")
    computed = reference.run(model, codes)
    compared = 0
    for name, got in computed.items():
        tensor = model.tensors[name]
        if name == model.input or name not in values:
            continue
        expected = values[name]
        if expected.dtype != np.float32:
            expected = (expected.astype(np.int64) - tensor.zero_point).astype(F32) * F32(tensor.scale)
        if expected.ndim == 4 and expected.shape[1:] != got.shape[1:] and got.ndim == 4:
            expected = expected.transpose(0, 3, 1, 2)
        value = (got.astype(np.int64) - tensor.zero_point).astype(F32) * F32(tensor.scale)
        np.testing.assert_array_equal(value.reshape(expected.shape), expected, err_msg=name)
        compared += 1
    assert model.output in values
    assert compared >= minimum
    return model


def check_table(net: Net, model: Model) -> None:
    """Check that the model says of every node what became of it, and of constants alone that they are folded."""
    rows = model.metadata["nodes"]
    assert sorted(row["node"] for row in rows) == sorted(node.name for node in net.nodes)
    computed = {"x"}
    for node in net.nodes:
        if computed & set(node.input):
            computed.update(node.output)
    constants = {node.name for node in net.nodes if not computed & set(node.input)}
    for row in rows:
        assert row["became"]
        if "unused" not in row["became"]:
            assert (row["became"] == "constant, folded") == (row["node"] in constants), row


def evaluate(proto: onnx.ModelProto, inputs: Array) -> dict[str, Array]:
    """Return every tensor of a graph for a batch of inputs, node by node in float32; sums of products are exact."""
    values: dict[str, Array] = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    feed = next(item.name for item in proto.graph.input if item.name not in values)
    values[feed] = inputs
    for node in proto.graph.node:
        settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        arguments: list[Any] = [values[name] if name else None for name in node.input]
        last = node.domain == CHANNELS_LAST
        if last:
            arguments[0] = np.moveaxis(arguments[0], -1, 1)
            if node.op_type == "Conv":
                arguments[1] = np.moveaxis(arguments[1], -1, 1)
        with np.errstate(all="ignore"):
            result = _RULES[node.op_type](*arguments, **settings)
        values[node.output[0]] = np.moveaxis(result, 1, -1) if last else result
    return values


def evaluate_tfc(proto: onnx.ModelProto, inputs: Array) -> dict[str, Array]:
    """Return the values of the QONNX sample TFC_2W2A, by the names of the integer model's tensors.

    Two of its parts are beyond :func:`evaluate`: four nodes that compute the shape ``(N, 784)``, and a square root. The
    last layer's scale, which is the host's, is left out.
    """
    proto = copy.deepcopy(proto)
    del proto.graph.node[:4]
    proto.graph.node[0].input[1] = "flat"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([len(inputs), 784]), "flat"))
    power = next(node for node in proto.graph.node if node.op_type == "Pow")
    constants = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    proto.graph.initializer.append(numpy_helper.from_array(np.sqrt(constants[power.input[0]]), power.output[0]))
    proto.graph.node.remove(power)
    values = evaluate(proto, inputs)
    return {"51": values["51"], "63": values["63"], "75": values["75"], "90": values["82"]}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _round(values: Array, mode: Any) -> Array:
    size = np.abs(values)
    return {
        "ROUND": np.round(values),
        "FLOOR": np.floor(values),
        "CEIL": np.ceil(values),
        "UP": np.sign(values) * np.ceil(size),
        "DOWN": np.fix(values),
        "HALF_UP": np.sign(values) * np.floor(size + F32(0.5)),
        "HALF_DOWN": np.sign(values) * np.ceil(size - F32(0.5)),
    }[_text(mode)]


def _quant(
    x: Array, scale: Array, zero: Array, bits: Array, signed: int, narrow: int, rounding_mode: Any = "ROUND"
) -> Array:
    b = int(bits)
    y = x / scale + zero
    if signed and b == 1:
        y = np.where(y >= 0, F32(1), F32(-1))
    else:
        low = -(2 ** (b - 1)) + narrow if signed else 0
        high = 2 ** (b - 1) - 1 if signed else 2**b - 1 - narrow
        y = _round(np.minimum(np.maximum(y, F32(low)), F32(high)), rounding_mode)
    return ((y - zero) * scale).astype(F32)


def _bipolar(x: Array, scale: Array) -> Array:
    return (np.where(x >= 0, F32(1), F32(-1)) * scale).astype(F32)


def _trunc(
    x: Array, scale: Array, zero: Array, *rest: Array, rounding_mode: Any, signed: int = 1, narrow: int = 0
) -> Array:
    y = np.round(x / scale + zero)
    if len(rest) == 2:
        y = _round(y / F32(2.0 ** float(rest[0] - rest[1])), rounding_mode)
        return ((y - zero) * scale).astype(F32)
    _, target, bits = rest
    power = F32(2.0 ** np.round(np.log2(target / scale)))
    b = int(bits)
    low, high = (-(2 ** (b - 1)) + narrow, 2 ** (b - 1) - 1) if signed else (0, 2**b - 1 - narrow)
    y = _round(np.clip(y / power, F32(low), F32(high)), rounding_mode)
    return ((y - zero / power) * target).astype(F32)


def _multi_threshold(
    x: Array,
    thresholds: Array,
    out_dtype: Any = "",
    out_scale: float = 1.0,
    out_bias: float = 0.0,
    data_layout: Any = "",
) -> Array:
    layout = _text(data_layout) or {2: "NC", 3: "NWC", 4: "NCHW"}[x.ndim]
    axis = layout.index("C")
    moved = np.moveaxis(x, axis, -1)[..., None]
    count = (moved >= thresholds).sum(axis=-1).astype(F32)
    return (F32(out_scale) * np.moveaxis(count, -1, axis) + F32(out_bias)).astype(F32)


def _norm(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float = 1e-5, momentum: float = 0.9
) -> Array:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale = (F32(1) / np.sqrt(variance + F32(epsilon))) * gamma
    return x * scale.reshape(shape) + (beta - mean * scale).reshape(shape)


def _windows(
    x: Array, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int], fill: float
):
    """Yield each offset of the window and what lies under it at all positions."""
    axes = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(pads[i], pads[i + axes]) for i in range(axes)], constant_values=fill)
    sizes = [(x.shape[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(axes)]
    for offset in np.ndindex(*kernel):
        index = tuple(
            slice(o * d, o * d + s * (n - 1) + 1, s)
            for o, d, s, n in zip(offset, dilations, strides, sizes, strict=True)
        )
        yield offset, x[(slice(None), slice(None), *index)]


def _same_pads(x: Array, kernel: Sequence[int], strides: Sequence[int], mode: str) -> list[int]:
    begin, end = [], []
    for size, k, s in zip(x.shape[2:], kernel, strides, strict=True):
        total = max((math.ceil(size / s) - 1) * s + k - size, 0)
        first = total // 2 if mode == "SAME_UPPER" else total - total // 2
        begin.append(first)
        end.append(total - first)
    return begin + end


def _conv(x: Array, w: Array, b: Array | None = None, **settings: Any) -> Array:
    axes = x.ndim - 2
    group = settings.get("group", 1)
    strides, dilations = settings.get("strides", [1] * axes), settings.get("dilations", [1] * axes)
    pads = settings.get("pads", [0] * 2 * axes)
    if _text(settings.get("auto_pad", "NOTSET")).startswith("SAME"):
        pads = _same_pads(x, w.shape[2:], strides, _text(settings["auto_pad"]))
    total: Any = 0
    per_out, per_in = w.shape[0] // group, w.shape[1]
    for offset, part in _windows(x.astype(np.float64), w.shape[2:], strides, pads, dilations, 0):
        taps = w[(slice(None), slice(None), *offset)].astype(np.float64)
        pieces = [
            np.einsum("nc...,oc->no...", part[:, g * per_in : (g + 1) * per_in], taps[g * per_out : (g + 1) * per_out])
            for g in range(group)
        ]
        total = total + np.concatenate(pieces, axis=1)
    result = total.astype(F32)
    return result if b is None else result + b.reshape((1, -1) + (1,) * axes)


def _pool(x: Array, reduce: Any, **settings: Any) -> Array:
    axes = x.ndim - 2
    kernel, strides = settings["kernel_shape"], settings.get("strides", [1] * axes)
    pads = list(settings.get("pads", [0] * 2 * axes))
    if settings.get("ceil_mode"):
        for i in range(axes):
            positions = math.ceil((x.shape[2 + i] + pads[i] + pads[i + axes] - kernel[i]) / strides[i]) + 1
            positions -= (positions - 1) * strides[i] >= x.shape[2 + i] + pads[i]
            pads[i + axes] = max(pads[i + axes], (positions - 1) * strides[i] + kernel[i] - x.shape[2 + i] - pads[i])
    lowest = np.iinfo(x.dtype).min if np.issubdtype(x.dtype, np.integer) else -np.inf
    fill = lowest if reduce is np.maximum else 0
    wide = x if reduce is np.maximum else x.astype(np.float64)
    parts = [part for _, part in _windows(wide, kernel, strides, pads, [1] * axes, fill)]
    if reduce is np.maximum:
        return np.maximum.reduce(parts)
    return np.sum(parts, axis=0).astype(F32) / F32(len(parts))


def _matmul(a: Array, b: Array) -> Array:
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(F32)


def _gemm(a: Array, b: Array, c: Array | None = None, alpha: float = 1.0, beta: float = 1.0, transB: int = 0) -> Array:
    result = _matmul(a, b.T if transB else b)
    return result if c is None else result + c


def _reshape(x: Array, shape: Array) -> Array:
    target = [len(x) if i == 0 and size == 1 else int(size) for i, size in enumerate(shape)]
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(target)])


def _linear_quant(x: Array, scale: Array, zero: Array, axis: int = 1) -> Array:
    info = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + zero.astype(F32), info.min, info.max).astype(zero.dtype)


def _linear_dequant(x: Array, scale: Array, zero: Array | None = None, axis: int = 1) -> Array:
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[axis] = -1
    zero = np.zeros((), np.int64) if zero is None else zero.astype(np.int64)
    zero = zero.reshape(shape) if zero.size > 1 else zero.reshape(())
    scale = scale.reshape(shape) if scale.size > 1 else scale.reshape(())
    return (x.astype(np.int64) - zero).astype(F32) * scale


def _pad(x: Array, pads: Array, value: Array | None = None, mode: Any = "constant") -> Array:
    return np.pad(x, list(zip(pads[: x.ndim], pads[x.ndim :], strict=True)))


_RULES: dict[str, Callable[..., Array]] = {
    "Add": lambda a, b: a + b,
    "AveragePool": lambda x, count_include_pad=0, **s: _pool(x, np.add, **s),
    "BatchNormalization": _norm,
    "BipolarQuant": _bipolar,
    "Clip": lambda x, low=None, high=None: np.clip(x, low, high),
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Conv": _conv,
    "DequantizeLinear": _linear_dequant,
    "Div": lambda a, b: a / b,
    "Flatten": lambda x, axis=1: x.reshape(int(np.prod(x.shape[:axis])), -1),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: _pool(x, np.add, kernel_shape=x.shape[2:]),
    "Identity": lambda x: x,
    "IntQuant": _quant,
    "MatMul": _matmul,
    "MaxPool": lambda x, **s: _pool(x, np.maximum, **s),
    "Mul": lambda a, b: a * b,
    "MultiThreshold": _multi_threshold,
    "Neg": lambda x: -x,
    "Pad": _pad,
    "Quant": _quant,
    "QuantizeLinear": _linear_quant,
    "Relu": lambda x: np.maximum(x, F32(0)),
    "Reshape": _reshape,
    "Softmax": lambda x, axis=-1: np.exp(x - x.max(axis, keepdims=True)),
    "Squeeze": lambda x, axes: np.squeeze(x, tuple(int(a) for a in axes)),
    "Sub": lambda a, b: a - b,
    "Transpose": lambda x, perm: np.transpose(x, perm),
    "Trunc": _trunc,
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(int(a) for a in axes)),
}
