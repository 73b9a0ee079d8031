"""Read an ONNX file without trusting it: sizes checked before any array is made, nothing outside the file opened."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, numpy_helper

from zeroskip.compiler.errors import CompileError, InputError
from zeroskip.compiler.importers.container import ELEMENT_LIMIT

__all__ = ["FILE_LIMIT", "OPSETS", "Graph", "Node", "read_graph", "tensor_array"]

Array = NDArray[Any]

FILE_LIMIT = 1 << 29
"""Bytes of the largest file that is read."""
OPSETS = (9, 25)
"""The first and the last version of ONNX's operator set whose rules this reader knows."""
QUANTIZERS = ("onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general")
CHANNELS_LAST = "qonnx.custom_op.channels_last"
_DOMAINS = ("", "ai.onnx", *QUANTIZERS, CHANNELS_LAST)
_RANKS = (2, 3, 4)
_DTYPES: dict[int, tuple[str, Any]] = {
    TensorProto.FLOAT: ("float_data", np.float32),
    TensorProto.DOUBLE: ("double_data", np.float64),
    TensorProto.INT8: ("int32_data", np.int8),
    TensorProto.UINT8: ("int32_data", np.uint8),
    TensorProto.INT16: ("int32_data", np.int16),
    TensorProto.UINT16: ("int32_data", np.uint16),
    TensorProto.INT32: ("int32_data", np.int32),
    TensorProto.INT64: ("int64_data", np.int64),
    TensorProto.BOOL: ("int32_data", np.bool_),
}
_INPUTS = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8", TensorProto.INT8: "int8"}


@dataclass(frozen=True)
class Node:
    """One operation; names of absent optional inputs are empty, strings among the attributes are text."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def refused(self, text: str) -> CompileError:
        """Return the error that this node is not served, for the reason ``text``."""
        return CompileError(f"Node {self.name!r} ({self.op}) {text}")


@dataclass(frozen=True)
class Graph:
    """The checked graph of a file: nodes in execution order, only those that the output needs.

    ``name`` is the graph's own, ``shape`` the input's with a batch of 1, ``dtype`` its element type and ``input_type``
    the integer type that FINN's annotation gives it, empty without one. ``unused`` are name and operator of the nodes
    that the output does not need.
    """

    name: str
    input: str
    shape: tuple[int, ...]
    dtype: str
    input_type: str
    output: str
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]
    unused: tuple[tuple[str, str], ...]
    opset: int
    producer: str


def read_graph(path: Path) -> Graph:
    """Read and check the graph of an ``.onnx`` file.

    Raises
    ------
    InputError
        If the file is missing, damaged, absurdly large, refers to other files or is no single graph of one input.
    """
    what = f"Model {str(path)!r}"
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT:
            raise InputError(f"{what} has {size} bytes, more than {FILE_LIMIT}; no supported device holds it")
        proto = onnx.ModelProto()
        proto.ParseFromString(path.read_bytes())
        return _Reader(proto).graph()
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist") from error
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}") from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{what} is not an ONNX file, or damaged ({error}); copy or export it again") from error
    except CompileError as error:
        raise InputError(f"{what} is refused: {error}") from error


def tensor_array(tensor: TensorProto, label: str) -> Array:
    """Return the elements of a stored tensor after checking that they are there and how many.

    Raises
    ------
    CompileError
        Naming the tensor as ``label``.
    """
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        places = {entry.key: entry.value for entry in tensor.external_data}
        raise CompileError(
            f"{label} lies in another file, {places.get('location', '')!r}; save the model with its data inside"
        )
    if tensor.data_type not in _DTYPES:
        kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in range(1, 24) else tensor.data_type
        names = ", ".join(TensorProto.DataType.Name(known) for known in _DTYPES)
        raise CompileError(f"{label} has data type {kind}; supported are {names}")
    field, dtype = _DTYPES[tensor.data_type]
    dims = tuple(tensor.dims)
    if min(dims, default=0) < 0 or math.prod(dims) > ELEMENT_LIMIT or len(dims) > 8:
        raise CompileError(f"{label} has shape {dims}; sizes must be natural numbers, {ELEMENT_LIMIT} elements in all")
    expected = math.prod(dims)
    raw = tensor.HasField("raw_data")
    stored = len(tensor.raw_data) if raw else len(getattr(tensor, field))
    needed = expected * np.dtype(dtype).itemsize if raw else expected
    if stored != needed:
        unit = "bytes" if raw else "values"
        raise CompileError(f"{label} of shape {dims} needs {needed} {unit}, but {stored} are there; export it again")
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise CompileError(f"{label} cannot be read ({error}); export it again") from error
    return array


class _Reader:
    """The parsing of one file."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.source = proto.graph

    def graph(self) -> Graph:
        """Return the checked graph."""
        self._check_texts()
        opset = self._opset()
        if self.proto.functions:
            raise CompileError("The model has functions of its own; inline them before exporting")
        if self.source.sparse_initializer:
            raise CompileError("The model has sparse initializers; store the zeros, the compiler finds them")
        constants = self._constants()
        name, shape, dtype = self._input(constants)
        if len(self.source.output) != 1:
            names = ", ".join(repr(item.name) for item in self.source.output) or "none"
            raise CompileError(f"The graph must have one output, not {names}")
        output = self.source.output[0].name
        nodes = self._nodes({name, *constants})
        used, unused = _needed(nodes, output)
        return Graph(
            name=self.source.name,
            input=name,
            shape=shape,
            dtype=dtype,
            input_type=self._annotation(name),
            output=output,
            constants=constants,
            nodes=used,
            unused=unused,
            opset=opset,
            producer=self._producer(),
        )

    def _check_texts(self) -> None:
        """Refuse names that are no text: protobuf hands them over as bytes."""
        graph = self.source
        texts = [graph.name, *(entry.domain for entry in self.proto.opset_import)]
        texts += [self.proto.producer_name, self.proto.producer_version]
        texts += [item.name for item in (*graph.initializer, *graph.input, *graph.output)]
        texts += [dim.dim_param for item in graph.input for dim in item.type.tensor_type.shape.dim]
        for entry in graph.quantization_annotation:
            texts += [entry.tensor_name, *(pair.key for pair in entry.quant_parameter_tensor_names)]
            texts += [pair.value for pair in entry.quant_parameter_tensor_names]
        for node in graph.node:
            texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
            texts += [attribute.name for attribute in node.attribute]
        for text in texts:
            if not isinstance(text, str):
                raise CompileError(f"The model has a name that is no UTF-8 text: {text!r}")

    def _producer(self) -> str:
        return f"{self.proto.producer_name} {self.proto.producer_version}".strip()

    def _opset(self) -> int:
        versions: dict[str, int] = {}
        for entry in self.proto.opset_import:
            if entry.domain in versions:
                raise CompileError(f"The model imports the operator set {entry.domain!r} twice")
            versions[entry.domain] = entry.version
        version = versions.get("", versions.get("ai.onnx", 0))
        if not OPSETS[0] <= version <= OPSETS[1]:
            raise CompileError(
                f"The model has operator set {version}; supported are {OPSETS[0]} to {OPSETS[1]}: export it with one"
            )
        return version

    def _constants(self) -> dict[str, Array]:
        constants: dict[str, Array] = {}
        for tensor in self.source.initializer:
            if not tensor.name or tensor.name in constants:
                raise CompileError(f"Initializer name {tensor.name!r} must be unique and not empty")
            constants[tensor.name] = tensor_array(tensor, f"Initializer {tensor.name!r}")
        return constants

    def _input(self, constants: Mapping[str, Array]) -> tuple[str, tuple[int, ...], str]:
        """Return name, shape and type of the only input; initializers may be listed among the inputs."""
        names = [value.name for value in self.source.input]
        if len(set(names)) != len(names):
            raise CompileError("Graph inputs must have unique names")
        inputs = [value for value in self.source.input if value.name not in constants]
        if len(inputs) != 1:
            raise CompileError(
                f"The graph must have one input, not {', '.join(repr(v.name) for v in inputs) or 'none'}"
            )
        value = inputs[0]
        label = f"Input {value.name!r}"
        kind = value.type.tensor_type.elem_type
        if kind not in _INPUTS:
            raise CompileError(f"{label} must be a tensor of {', '.join(_INPUTS.values())}, not element type {kind}")
        dims = value.type.tensor_type.shape.dim
        if len(dims) not in _RANKS:
            raise CompileError(f"{label} must have 2 to 4 axes, the first one the batch, not {len(dims)}")
        sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
        if sizes[0] not in (0, 1):
            raise CompileError(f"{label} has a batch of {sizes[0]}; export it with a batch of 1 or a dynamic one")
        for axis, size in enumerate(sizes[1:], 1):
            if size < 1:
                text = dims[axis].dim_param or size
                raise CompileError(f"{label} has axis {axis} of size {text!r}; export it with a fixed size")
        if math.prod(sizes[1:]) > ELEMENT_LIMIT:
            raise CompileError(f"{label} has shape {tuple(sizes)}, more than {ELEMENT_LIMIT} elements")
        return value.name, (1, *sizes[1:]), _INPUTS[kind]

    def _annotation(self, name: str) -> str:
        """Return the type that FINN's annotation gives to the tensor ``name``."""
        for entry in self.source.quantization_annotation:
            if entry.tensor_name == name:
                for pair in entry.quant_parameter_tensor_names:
                    if pair.key == "finn_datatype":
                        return str(pair.value)
        return ""

    def _nodes(self, known: set[str]) -> list[Node]:
        """Return all nodes; everything a node reads stands before it, and every name is written once."""
        nodes: list[Node] = []
        later = {name for proto in self.source.node for name in proto.output}
        names: set[str] = set()
        for index, proto in enumerate(self.source.node):
            name = proto.name or (proto.output[0] if proto.output else "") or f"{proto.op_type}_{index}"
            if name in names:
                raise CompileError(f"Node name {name!r} must be unique, but two nodes have it")
            names.add(name)
            if proto.domain not in _DOMAINS:
                domains = ", ".join(repr(domain) for domain in _DOMAINS)
                raise CompileError(f"Node {name!r} ({proto.op_type}) has domain {proto.domain!r}; known are {domains}")
            for source in proto.input:
                if source and source not in known:
                    reason = "is written only afterwards: a cycle, or nodes out of order"
                    if source not in later:
                        reason = "nothing writes"
                    raise CompileError(f"Node {name!r} ({proto.op_type}) reads {source!r}, which {reason}")
            for target in proto.output:
                if target in known:
                    raise CompileError(f"Node {name!r} ({proto.op_type}) writes {target!r}, which exists already")
                if target:
                    known.add(target)
            attributes = _attributes(name, proto)
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            nodes.append(Node(name, proto.op_type, domain, tuple(proto.input), tuple(proto.output), attributes))
        return nodes


def _attributes(node: str, proto: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node as plain values and arrays."""
    attributes: dict[str, Any] = {}
    for entry in proto.attribute:
        label = f"Node {node!r} ({proto.op_type})"
        if entry.name in attributes:
            raise CompileError(f"{label} has two attributes {entry.name!r}")
        if entry.type == AttributeProto.FLOAT:
            value: Any = float(entry.f)
        elif entry.type == AttributeProto.INT:
            value = int(entry.i)
        elif entry.type == AttributeProto.STRING:
            value = entry.s.decode("utf-8")
        elif entry.type == AttributeProto.TENSOR:
            value = tensor_array(entry.t, f"{label} with attribute {entry.name!r}")
        elif entry.type == AttributeProto.INTS:
            value = tuple(int(item) for item in entry.ints)
        elif entry.type == AttributeProto.FLOATS:
            value = tuple(float(item) for item in entry.floats)
        else:
            raise CompileError(f"{label} has attribute {entry.name!r} of a kind that is not supported: no subgraphs")
        attributes[entry.name] = value
    return attributes


def _needed(nodes: Sequence[Node], output: str) -> tuple[tuple[Node, ...], tuple[tuple[str, str], ...]]:
    """Return the nodes that the output depends on, and what the others are called."""
    wanted = {output}
    used = []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            used.append(node)
            wanted.update(name for name in node.inputs if name)
    chosen = {node.name for node in used}
    return tuple(reversed(used)), tuple((node.name, node.op) for node in nodes if node.name not in chosen)
