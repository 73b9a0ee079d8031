"""The float values of an ONNX network, tensor by tensor: ONNX's reference evaluator, not the importer, computes them.

What the evaluator lacks is added here: the quantizers of QONNX (Pappalardo et al. 2022), its channels-last operators,
QuantizeLinear and DequantizeLinear of operator sets before 19, and BatchNormalization as ONNX Runtime computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from zeroskip.compiler.argmax import index_words
from zeroskip.compiler.importers.float_functions import ROUNDINGS
from zeroskip.compiler.importers.onnx_graph import CHANNELS_LAST, QUANTIZERS, read_graph
from zeroskip.compiler.importers.onnx_layout import Layout, axis_sizes, layout_shape
from zeroskip.compiler.ir import Model

__all__ = ["onnx_values"]

Array = NDArray[Any]
_F32 = np.float32


def onnx_values(path: Path, model: Model, inputs: Array) -> dict[str, NDArray[np.float32]]:
    """Return the float32 values of every tensor of ``model`` that the file has as well.

    Parameters
    ----------
    path : the ``.onnx`` file
    model : what :func:`zeroskip.compiler.importers.onnx_model.load_onnx` made of it
    inputs : ndarray, shape (vectors, *input shape): float32, or codes where the file's input is integer

    Returns
    -------
    dict by the tensor's name in ``model``, each of shape (vectors, *tensor shape)
    """
    graph = read_graph(path)
    layouts: dict[str, Layout] = model.metadata["source_layouts"]
    sources: dict[str, str] = model.metadata["source_tensors"]
    proto = _served(path, {node.name for node in graph.nodes}, layouts)
    evaluator = ReferenceEvaluator(proto, new_ops=_OPERATORS)
    found: dict[str, list[Array]] = {name: [] for name in sources}
    shape = model.tensors[model.input].shape
    for vector in np.asarray(inputs, graph.dtype):
        feed = {graph.input: _to_file(vector, layouts[graph.input], shape)}
        with np.errstate(all="ignore"):
            results: Any = evaluator.run(None, feed, intermediate=True)
        for name, source in sources.items():
            tensor = model.tensors[name]
            if name == model.output != model.results:
                found[name].append(index_words(np.ravel(results[source]), tensor.size)[0].astype(_F32))
                continue
            values = _from_file(np.asarray(results[source]), layouts[source], tensor.shape)
            if np.issubdtype(values.dtype, np.integer):
                values = (values.astype(np.int64) - tensor.zero_point).astype(_F32) * _F32(tensor.scale)
            found[name].append(values.astype(_F32))
    return {name: np.stack(rows) for name, rows in found.items()}


def _letters(layout: Layout, shape: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return the axes of a map, ``C``, ``H`` and ``W``, in the order of the file, and those in ours; none of size 1."""
    sizes = axis_sizes(shape)
    there = [letter for letters in layout for letter in letters]
    ours = [there.index(letter) for letter in "CHW" if letter in there]
    if any(sizes[letter] > 1 and letter not in there for letter in sizes):
        raise ValueError(f"Layout {layout} must hold every axis of shape {tuple(shape)}")
    return there, ours


def _from_file(array: Array, layout: Layout, shape: tuple[int, ...]) -> Array:
    there, ours = _letters(layout, shape)
    sizes = axis_sizes(shape)
    return array.reshape([sizes[letter] for letter in there]).transpose(ours).reshape(shape)


def _to_file(array: Array, layout: Layout, shape: tuple[int, ...]) -> Array:
    there, ours = _letters(layout, shape)
    sizes = axis_sizes(shape)
    squeezed = array.reshape([sizes[there[axis]] for axis in ours])
    return squeezed.transpose(np.argsort(ours)).reshape(layout_shape(layout, shape))


def _served(path: Path, nodes: set[str], layouts: Mapping[str, Layout]) -> onnx.ModelProto:
    """Return the file with only the ``nodes`` that were read, and standard operators for those with channels last."""
    proto = onnx.ModelProto()
    proto.ParseFromString(path.read_bytes())
    kept: list[onnx.NodeProto] = []
    for index, node in enumerate(proto.graph.node):
        # the name that the reader gives it
        name = node.name or (node.output[0] if node.output else "") or f"{node.op_type}_{index}"
        if name in nodes:
            last = node.domain == CHANNELS_LAST
            kept.extend(_channels_first(node, name, len(layouts[node.input[0]])) if last else [node])
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    del proto.graph.value_info[:]
    known = {entry.domain for entry in proto.opset_import}
    proto.opset_import.extend(helper.make_opsetid(name, 1) for name in QUANTIZERS if name not in known)
    return proto


def _channels_first(node: onnx.NodeProto, name: str, rank: int) -> Iterator[onnx.NodeProto]:
    """Yield the standard operator between transpositions; the weights of a convolution are channels last, too."""
    first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    moved = list(node.input[: 2 if node.op_type == "Conv" else 1])
    for number, source in enumerate(moved):
        yield helper.make_node("Transpose", [source], [f"{name}/in{number}"], perm=first)
    renamed = [f"{name}/in{number}" for number in range(len(moved))]
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.domain = ""
    plain.input[:] = [*renamed, *node.input[len(moved) :]]
    plain.output[:] = [f"{name}/out"]
    yield plain
    yield helper.make_node("Transpose", [f"{name}/out"], list(node.output[:1]), perm=last)


def _limits(bits: Array, signed: int, narrow: int) -> tuple[np.float32, np.float32]:
    width = int(bits)
    low = -(1 << (width - 1)) + narrow if signed else 0
    high = (1 << (width - 1)) - 1 if signed else (1 << width) - 1 - narrow
    return _F32(low), _F32(high)


def _quant(
    x: Array,
    scale: Array,
    zero: Array,
    bits: Array,
    *,
    signed: int = 1,
    narrow: int = 0,
    rounding_mode: str = "ROUND",
) -> Array:
    y = x / scale + zero
    if signed and int(bits) == 1:
        return np.asarray((np.where(y >= 0, _F32(1), _F32(-1)) - zero) * scale)
    whole = ROUNDINGS[rounding_mode.upper()](np.clip(y, *_limits(bits, signed, narrow)))
    return np.asarray((whole - zero) * scale)


def _bipolar_quant(x: Array, scale: Array) -> Array:
    return np.asarray(np.where(x >= 0, _F32(1), _F32(-1)) * scale)


def _trunc(
    x: Array,
    scale: Array,
    zero: Array,
    *rest: Array,
    signed: int = 1,
    narrow: int = 0,
    rounding_mode: str = "FLOOR",
) -> Array:
    y, rounding = np.round(x / scale + zero), ROUNDINGS[rounding_mode.upper()]
    if len(rest) == 2:
        return np.asarray((rounding(y / _F32(2.0 ** float(rest[0] - rest[1]))) - zero) * scale)
    _, target, bits = rest
    power = _F32(2) ** np.round(np.log2(target / scale))
    return np.asarray((rounding(np.clip(y / power, *_limits(bits, signed, narrow))) - zero / power) * target)


def _multi_threshold(
    x: Array,
    thresholds: Array,
    *,
    out_scale: float = 1.0,
    out_bias: float = 0.0,
    data_layout: str = "",
    out_dtype: str = "",
) -> Array:
    axis = (data_layout or {2: "NC", 3: "NWC", 4: "NCHW"}[x.ndim]).index("C")
    counts = (np.moveaxis(x, axis, -1)[..., None] >= thresholds).sum(axis=-1).astype(_F32)
    return np.asarray(_F32(out_scale) * np.moveaxis(counts, -1, axis) + _F32(out_bias))


def _batch_normalization(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, *, epsilon: float = 1e-5, **_: Any
) -> Array:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    factor = (_F32(1) / np.sqrt(variance + _F32(epsilon))) * gamma
    return np.asarray(x * factor.reshape(shape) + (beta - mean * factor).reshape(shape))


def _by_axis(numbers: Array, x: Array, axis: int) -> Array:
    shape = [1] * x.ndim
    if numbers.size > 1:
        shape[axis] = -1
    return numbers.reshape(shape)


def _quantize_linear(x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1, **_: Any) -> Array:
    point = np.zeros((), np.uint8) if zero is None else zero
    limits = np.iinfo(point.dtype)
    whole = np.rint(x / _by_axis(scale, x, axis)) + _by_axis(point, x, axis).astype(_F32)
    return np.asarray(np.clip(whole, limits.min, limits.max).astype(point.dtype))


def _dequantize_linear(x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1) -> Array:
    point = np.zeros((), np.int64) if zero is None else _by_axis(zero.astype(np.int64), x, axis)
    return np.asarray((x.astype(np.int64) - point).astype(_F32) * _by_axis(scale, x, axis))


class _Operator(OpRun):
    """An operator that the evaluator does not know: ``function`` of the arrays and the attributes that a node has."""

    function: Callable[..., Array]

    def _run(self, *arrays: Array, **_: Any) -> tuple[Array]:
        given = {item.name: helper.get_attribute_value(item) for item in self.onnx_node.attribute}
        texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in given.items()}
        result = type(self).function(*arrays, **texts)
        return (result if np.issubdtype(result.dtype, np.integer) else result.astype(_F32),)


def _operator(domain: str, name: str, function: Callable[..., Array]) -> type[_Operator]:
    return type(name, (_Operator,), {"op_domain": domain, "function": staticmethod(function)})


_QUANTIZERS: Mapping[str, Callable[..., Array]] = {
    "BipolarQuant": _bipolar_quant,
    "IntQuant": _quant,
    "MultiThreshold": _multi_threshold,
    "Quant": _quant,
    "Trunc": _trunc,
}
_STANDARD: Mapping[str, Callable[..., Array]] = {
    "BatchNormalization": _batch_normalization,
    "DequantizeLinear": _dequantize_linear,
    "QuantizeLinear": _quantize_linear,
}
_OPERATORS: list[type[OpRun]] = [
    *(_operator(domain, name, function) for name, function in _QUANTIZERS.items() for domain in QUANTIZERS),
    *(_operator("", name, function) for name, function in _STANDARD.items()),
]
