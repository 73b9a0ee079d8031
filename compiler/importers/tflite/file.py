"""Read a TensorFlow Lite file without trusting it: every count and offset checked, plain values returned."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from zeroskip.compiler.errors import InputError

__all__ = ["ELEMENT_LIMIT", "Graph", "Node", "TensorInfo", "read_graph"]

Array = NDArray[Any]

FILE_LIMIT = 1 << 28
"""Bytes of a file; no supported device holds a fraction of it."""
ELEMENT_LIMIT = 1 << 20
"""Elements of an activation tensor; no supported device holds as many."""
NODE_LIMIT = 1 << 12
_LABEL_LENGTH = 100
_IDENTIFIER = b"TFL3"
_VERSION = 3
_DTYPES = {"INT8": "i1", "UINT8": "u1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FLOAT32": "<f4"}
_KNOWN_TYPES = {value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
_OPTION_TYPES = {value: name for name, value in vars(tflite.BuiltinOptions).items() if isinstance(value, int)}
_WINDOW = ("Padding", "StrideW", "StrideH", "FusedActivationFunction")
_DILATION = ("DilationWFactor", "DilationHFactor")
# The options that say something about the result, by their table in the schema.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "Conv2DOptions": (*_WINDOW, *_DILATION),
    "DepthwiseConv2DOptions": (*_WINDOW, *_DILATION, "DepthMultiplier"),
    "Pool2DOptions": (*_WINDOW, "FilterWidth", "FilterHeight"),
    "FullyConnectedOptions": ("FusedActivationFunction", "WeightsFormat"),
    "AddOptions": ("FusedActivationFunction",),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "ReducerOptions": ("KeepDims",),
}
# What struct, numpy and the generated accessors raise on offsets and lengths that lead out of the file.
_DAMAGE = (struct.error, IndexError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True, eq=False)
class TensorInfo:
    """A tensor as the file declares it.

    ``shape`` has the batch axis where there is one; ``signature`` is -1 on dynamic axes. ``data`` is the constant of a
    tensor that has one, None for activations. ``scales`` (float32) and ``zero_points`` (int64) are empty without
    quantization and have an entry a slice of ``axis`` where it is per channel.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    type: str
    data: Array | None
    scales: Array
    zero_points: Array
    axis: int
    sparse: bool

    @property
    def label(self) -> str:
        """What error texts call the tensor: its name, the first part where operators were fused."""
        return _label(self.name, self.index)


@dataclass(frozen=True)
class Node:
    """An operator: its schema name (``CONV_2D``) and version, tensors by index (-1: left out), and its options."""

    index: int
    operator: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int]


@dataclass(frozen=True)
class Graph:
    """The graph of a file: its tensors and operators, and which tensors are its input and its output."""

    tensors: tuple[TensorInfo, ...]
    nodes: tuple[Node, ...]
    input: int
    output: int
    description: str


def read_graph(path: Path) -> Graph:
    """Read the graph of a ``.tflite`` file.

    Raises
    ------
    InputError
        If the file cannot be read, is of another kind, or is damaged; if it holds several graphs, inputs or outputs.
    """
    what = f"Model {str(path)!r}"
    content = _content(path, what)
    try:
        return _Reader(what, content).graph()
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{what} is a damaged flatbuffer ({error}); copy or export it again") from error


def _label(name: str, index: int) -> str:
    return name.partition(";")[0][:_LABEL_LENGTH] or f"tensor {index}"


def _content(path: Path, what: str) -> bytes:
    """Return the bytes of a file that says it is a TensorFlow Lite model."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = file.seek(0, 2)
            if start[4:] != _IDENTIFIER:
                raise InputError(
                    f"{what} is no TensorFlow Lite model: bytes 4 to 7 must be {_IDENTIFIER!r}, not {start[4:]!r}; "
                    "give the .tflite file that the converter wrote"
                )
            if size > FILE_LIMIT:
                raise InputError(f"{what} has {size} bytes, but at most {FILE_LIMIT} are read; no device holds it")
            file.seek(0)
            return file.read()
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist") from error
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class _Reader:
    """The parsing of one file; ``what`` begins every error text."""

    what: str
    content: bytes

    def graph(self) -> Graph:
        """Return the only graph of the file."""
        model = tflite.Model.GetRootAs(self.content, 0)
        if model.Version() != _VERSION:
            raise InputError(f"{self.what} has schema version {model.Version()}, but version {_VERSION} is supported")
        count = self.count(model.SubgraphsLength(), "graphs")
        if count != 1:
            raise InputError(
                f"{self.what} has {count} graphs, but control flow is not supported; export one with a single graph"
            )
        graph = model.Subgraphs(0)
        tensors = tuple(
            self.tensor(model, graph.Tensors(index), index)
            for index in range(self.count(graph.TensorsLength(), "tensors"))
        )
        self.check_names(tensors)
        nodes = tuple(
            self.node(model, graph.Operators(index), index, len(tensors))
            for index in range(self.count(graph.OperatorsLength(), "operators", NODE_LIMIT))
        )
        ends = [
            self.end(self.indices(values, length, len(tensors), label), label)
            for label, values, length in (
                ("input", graph.InputsAsNumpy(), graph.InputsLength()),
                ("output", graph.OutputsAsNumpy(), graph.OutputsLength()),
            )
        ]
        return Graph(tensors, nodes, ends[0], ends[1], self.text(model.Description(), "description"))

    def check_names(self, tensors: tuple[TensorInfo, ...]) -> None:
        """Refuse two activations of one name: what users ask for by name must be one thing."""
        seen: set[str] = set()
        for tensor in tensors:
            if tensor.data is None and tensor.name in seen:
                raise InputError(f"{self.what} has two tensors of name {tensor.label!r}; export it with distinct names")
            if tensor.data is None and tensor.name:
                seen.add(tensor.name)

    def count(self, count: int, label: str, limit: int | None = None) -> int:
        """Return a vector's length after checking that the file has room for it; an entry takes 4 bytes."""
        most = len(self.content) // 4 if limit is None else limit
        if count > most:
            raise InputError(f"{self.what} claims {count} {label}, but at most {most} are possible; export it again")
        return count

    def text(self, value: bytes | None, label: str) -> str:
        """Return a text of the file."""
        try:
            return (value or b"").decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.what} has a {label} that is no UTF-8 text; copy or export it again") from error

    def indices(self, values: Any, length: int, tensors: int, label: str) -> tuple[int, ...]:
        """Return a vector of tensor numbers, -1 for one that is left out."""
        self.count(length, f"{label} tensors")
        numbers = tuple(int(value) for value in values) if length else ()
        strange = [number for number in numbers if not -1 <= number < tensors]
        if strange:
            raise InputError(
                f"{self.what} names tensor {strange[0]} as {label}, but has tensors 0 to {tensors - 1}; export it again"
            )
        return numbers

    def end(self, numbers: tuple[int, ...], label: str) -> int:
        """Return the only input or output of the graph."""
        if len(numbers) != 1 or numbers[0] < 0:
            raise InputError(f"{self.what} must have one {label} tensor, not {len(numbers)}; export one of that form")
        return numbers[0]

    def tensor(self, model: Any, entry: Any, index: int) -> TensorInfo:
        """Return a tensor with its constant."""
        name = self.text(entry.Name(), f"name of tensor {index}")
        where = f"{self.what}: tensor {_label(name, index)!r}"
        kind = _KNOWN_TYPES.get(entry.Type(), f"number {entry.Type()}")
        shape = self.sizes(entry.ShapeAsNumpy(), entry.ShapeLength(), where, 0)
        signature = self.sizes(entry.ShapeSignatureAsNumpy(), entry.ShapeSignatureLength(), where, -1)
        if signature and len(signature) != len(shape):
            raise InputError(f"{where} has shape {shape}, but shape signature {signature}; export it again")
        scales, zero_points, axis = self.quantization(entry.Quantization(), where)
        return TensorInfo(
            index,
            name,
            shape,
            signature or shape,
            kind,
            self.constant(model, entry.Buffer(), kind, shape, where),
            scales,
            zero_points,
            axis,
            entry.Sparsity() is not None,
        )

    def sizes(self, values: Any, length: int, where: str, least: int) -> tuple[int, ...]:
        """Return the sizes of a shape."""
        if length > 8:
            raise InputError(f"{where} has {length} axes; supported are up to 4")
        sizes = tuple(int(value) for value in values) if length else ()
        if any(size < least for size in sizes):
            raise InputError(f"{where} must have sizes of at least {least}, not shape {sizes}; export it again")
        return sizes

    def quantization(self, entry: Any, where: str) -> tuple[Array, Array, int]:
        """Return scales, zero points and their axis, copied out of the file."""
        if entry is None:
            return np.zeros(0, np.float32), np.zeros(0, np.int64), 0
        scales = np.array(entry.ScaleAsNumpy() if entry.ScaleLength() else [], np.float32)
        zero_points = np.array(entry.ZeroPointAsNumpy() if entry.ZeroPointLength() else [], np.int64)
        if scales.size and not (np.isfinite(scales).all() and (scales > 0).all()):
            strange = scales[~(np.isfinite(scales) & (scales > 0))][0]
            raise InputError(f"{where} must have finite scales above 0, not {strange}; export it again")
        if zero_points.size not in (1, scales.size):
            raise InputError(f"{where} has {scales.size} scales, but {zero_points.size} zero points; export it again")
        return scales, np.resize(zero_points, scales.size), int(entry.QuantizedDimension())

    def constant(self, model: Any, number: int, kind: str, shape: tuple[int, ...], where: str) -> Array | None:
        """Return a tensor's constant, a view into the file; None for buffers that are empty."""
        buffers = self.count(model.BuffersLength(), "buffers")
        if not 0 <= number < max(buffers, 1):
            raise InputError(f"{where} names buffer {number}, but there are {buffers}; export it again")
        if number == 0 or buffers == 0:
            return None
        buffer = model.Buffers(number)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise InputError(
                f"{where} lies outside the flatbuffer (offset {buffer.Offset()}), as in files beyond 2 GB; "
                "export a model with its constants inside"
            )
        length = buffer.DataLength()
        if not length:
            return None
        if length > len(self.content):
            raise InputError(f"{where} has a buffer of {length} bytes, more than the file; copy or export it again")
        if kind not in _DTYPES:
            return np.array(buffer.DataAsNumpy(), np.uint8)
        dtype = np.dtype(_DTYPES[kind])
        if math.prod(shape) * dtype.itemsize != length:
            raise InputError(
                f"{where} of shape {shape} and type {kind} takes {math.prod(shape) * dtype.itemsize} bytes, but its "
                f"buffer has {length}; export it again"
            )
        values: Array = np.frombuffer(bytes(buffer.DataAsNumpy()), dtype).reshape(shape)
        return values

    def node(self, model: Any, entry: Any, index: int, tensors: int) -> Node:
        """Return an operator with its options."""
        codes = self.count(model.OperatorCodesLength(), "operator codes")
        number = entry.OpcodeIndex()
        if number >= codes:
            raise InputError(f"{self.what}: operator {index} has code {number}, but there are {codes}; export it again")
        code = model.OperatorCodes(number)
        # Numbers above 126 have a field of their own; older files fill the first one only.
        builtin = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        if builtin == tflite.BuiltinOperator.CUSTOM:
            name = f"custom operator {self.text(code.CustomCode(), 'custom code')!r}"
        else:
            name = tflite.BUILTIN_OPCODE2NAME.get(builtin, f"number {builtin}")
        return Node(
            index,
            name,
            code.Version(),
            self.indices(entry.InputsAsNumpy(), entry.InputsLength(), tensors, f"input of operator {index}"),
            self.indices(entry.OutputsAsNumpy(), entry.OutputsLength(), tensors, f"output of operator {index}"),
            self.options(entry),
        )

    def options(self, entry: Any) -> dict[str, int]:
        """Return the options of an operator that say something about its result."""
        kind = _OPTION_TYPES.get(entry.BuiltinOptionsType(), "")
        table = entry.BuiltinOptions()
        if table is None or kind not in _OPTIONS:
            return {}
        options = getattr(tflite, kind)()
        options.Init(table.Bytes, table.Pos)
        return {"table": entry.BuiltinOptionsType()} | {key: int(getattr(options, key)()) for key in _OPTIONS[kind]}
