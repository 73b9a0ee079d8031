"""What the operators of a TensorFlow Lite file work on: checked tensors, and where each of their elements lies in ours.

The file's maps are ``(1, H, W, C)``, ours ``(C, H, W)``. A Value is one of our tensors as the file sees it, after any
RESHAPE and TRANSPOSE; those compute nothing and become part of what reads the Value.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.errors import InputError
from zeroskip.compiler.importers.tflite.file import ELEMENT_LIMIT, Graph, Node, TensorInfo
from zeroskip.compiler.ir import Layer, Tensor

__all__ = ["Border", "Network", "Value", "map_shape"]

Array = NDArray[Any]
Border = tuple[int, int, int, int]

_NAME_LENGTH = 100
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.\-]+")


@dataclass(frozen=True, eq=False)
class Value:
    """One of our tensors as the file sees it.

    ``shape`` is the file's. ``order``, of that shape, holds for each element its place in the tensor (of the network's
    input: in the file's input); None where it is a map or vector as it is. ``border`` is a padding that waits for the
    window it belongs to. A value that is ``computed_by_host`` only the host reads.
    """

    tensor: str
    shape: tuple[int, ...]
    order: Array | None = None
    border: Border = (0, 0, 0, 0)
    computed_by_host: bool = False


def map_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return our shape of a map of the file, ``(1, H, W, C)`` to ``(C, H, W)``."""
    _, height, width, channels = shape
    return channels, height, width


def _map_order(shape: tuple[int, int, int]) -> Array:
    """Return where the elements of the file's map lie in our ``shape``, as ``(1, H, W, C)``."""
    return np.arange(math.prod(shape)).reshape(shape).transpose(1, 2, 0)[None]


class Network:
    """The network under construction: our tensors and layers, and the file's tensors as values.

    ``layers``, ``tensors`` and ``input`` are the Model's; ``notes`` says what became of every operator, ``sources``
    what the file calls our tensors.
    """

    def __init__(self, graph: Graph, what: str) -> None:
        self.graph = graph
        self.what = what
        self.tensors: dict[str, Tensor] = {}
        self.layers: list[Layer] = []
        self.values: dict[int, Value] = {}
        self.notes: list[str] = []
        self.sources: dict[str, str] = {}
        self.input = ""
        self._names: set[str] = set()
        self._input_info: TensorInfo | None = None
        # Where each element of the file's input lies in ours; set when the first layer reads it.
        self._input_places: Array | None = None

    def refuse(self, node: Node, reason: str, nearest: str) -> NoReturn:
        """Raise the error that names an operator, why it is refused and the nearest form that is served."""
        raise InputError(f"{self.where(node)} {reason}; nearest supported form: {nearest}")

    def where(self, node: Node) -> str:
        """Return how errors and notes call an operator: number, kind and the tensor it writes."""
        written = [repr(self.graph.tensors[index].label) for index in node.outputs[:1] if index >= 0]
        return f"{self.what}: operator {node.index} {node.operator} {''.join(written)}".rstrip()

    def note(self, node: Node, became: str) -> None:
        """Record what became of an operator."""
        self.notes.append(f"import: operator {node.index} {node.operator} {self.target(node).label!r}: {became}")

    def info(self, node: Node, position: int) -> TensorInfo:
        """Return an operator's input tensor as the file declares it."""
        if position >= len(node.inputs) or node.inputs[position] < 0:
            self.refuse(node, f"has no input {position}", f"{node.operator} with all its inputs")
        return self.graph.tensors[node.inputs[position]]

    def constant(self, node: Node, position: int, *types: str) -> Array:
        """Return a constant input."""
        info = self.info(node, position)
        if info.type not in types or info.data is None or info.sparse:
            kind = f"sparse {info.type}" if info.sparse else info.type
            state = "a computed" if info.data is None else "a constant"
            self.refuse(
                node,
                f"has {state} input {position} of type {kind}",
                f"a constant of type {' or '.join(types)}, stored densely",
            )
        return info.data

    def codes(self, node: Node, info: TensorInfo) -> TensorInfo:
        """Return a tensor of activations after checking that it holds int8 codes of one scale, of a shape we serve."""
        label = f"tensor {info.label!r}"
        if info.type != "INT8" or info.sparse:
            self.refuse(node, f"has {label} of type {info.type}", "INT8, from full integer quantization")
        if info.scales.size != 1 or not -128 <= int(info.zero_points[0]) <= 127:
            self.refuse(
                node,
                f"has {label} with {info.scales.size} scales and zero points {info.zero_points[:4].tolist()}",
                "one scale and a zero point of -128 to 127",
            )
        if any(size < 0 for size in info.signature[1:]):
            self.refuse(node, f"has {label} of dynamic shape {info.signature}", "fixed sizes, but for the batch")
        if not info.shape or info.shape[0] != 1 or not 1 <= math.prod(info.shape) <= ELEMENT_LIMIT:
            self.refuse(
                node,
                f"has {label} of shape {info.shape}",
                f"a batch of 1 and 1 to {ELEMENT_LIMIT} elements",
            )
        return info

    def value(self, node: Node, position: int = 0) -> Value:
        """Return an input that is an activation."""
        info = self.info(node, position)
        if info.data is not None:
            self.refuse(node, f"has a constant input {info.label!r}", "an input that a layer computes")
        if info.index not in self.values:
            self.codes(node, info)
            self.refuse(
                node,
                f"reads {info.label!r} before it is written: a cycle, or operators out of order",
                "operators in the order of execution",
            )
        value = self.values[info.index]
        if value.computed_by_host:
            self.refuse(
                node,
                f"reads {info.label!r}, which is left to the host",
                "SOFTMAX, ARG_MAX and DEQUANTIZE behind the last layer only",
            )
        self.codes(node, info)
        return value

    def map(self, node: Node, position: int = 0, padded: bool = False) -> tuple[Tensor, Value]:
        """Return an input that must be a map, and its value; only readers of ``padded`` maps take a border."""
        value = self.value(node, position)
        if len(value.shape) != 4:
            self.refuse(node, f"reads shape {value.shape}", "a map of shape (1, H, W, C)")
        if value.tensor == self.input:
            self._place_input(node, value, as_map=True)
        tensor = self.tensors[value.tensor]
        shape = map_shape(value.shape)
        if tensor.shape != shape or not self._as_it_is(value):
            self.refuse(
                node,
                f"reads a map {value.shape} that a RESHAPE or TRANSPOSE made of shape {tensor.shape} in another order",
                "maps in the order in which they were computed",
            )
        if any(value.border) and not padded:
            self.refuse(node, f"reads a map with a PAD of {value.border}", "PAD before a convolution or a max pooling")
        return tensor, value

    def elements(self, node: Node, position: int = 0) -> tuple[Tensor, Array]:
        """Return an input and, flat, where each of its elements lies in the tensor."""
        value = self.value(node, position)
        if any(value.border):
            self.refuse(node, f"reads a map with a PAD of {value.border}", "PAD before a convolution or a max pooling")
        if value.tensor == self.input:
            self._place_input(node, value, as_map=False)
        return self.tensors[value.tensor], self._places(value).ravel()

    def rearrange(self, node: Node, order: Array) -> None:
        """Write a value that holds the same elements as the first input, in ``order`` of :meth:`places_of`."""
        value = self.value(node)
        if any(value.border):
            self.refuse(node, f"reads a map with a PAD of {value.border}", "PAD before a convolution or a max pooling")
        shape = self._same_codes(node).shape
        if order.shape != shape:
            self.refuse(node, f"makes shape {order.shape} of {value.shape}, but writes {shape}", "equal sizes")
        self.write(node, replace(value, shape=shape, order=order))
        self.note(node, "layout only")

    def places_of(self, value: Value) -> Array:
        """Return the order of a value as :class:`Value` has it, never None."""
        if value.order is not None:
            return value.order
        if value.tensor == self.input:
            return np.arange(math.prod(value.shape)).reshape(value.shape)
        shape = self.tensors[value.tensor].shape
        return _map_order((shape[0], shape[1], shape[2])) if len(value.shape) == 4 else np.arange(shape[0])[None]

    def pass_on(self, node: Node, value: Value, became: str) -> None:
        """Write a value that stands for the same codes as the input."""
        self._same_codes(node)
        self.write(node, value)
        self.note(node, became)

    def declare(self, node: Node, shape: tuple[int, ...], order: Array | None = None) -> Tensor:
        """Add our tensor for what an operator writes; ``order`` as in :class:`Value`."""
        info = self.codes(node, self.target(node))
        tensor = self.tensor(info, shape)
        self.tensors[tensor.name] = tensor
        self.write(node, Value(tensor.name, info.shape, order))
        return tensor

    def tensor(self, info: TensorInfo, shape: tuple[int, ...]) -> Tensor:
        """Return our tensor of ``shape`` for one of the file's, under a name of its own."""
        return Tensor(self.name(info), shape, 8, True, float(info.scales[0]), int(info.zero_points[0]))

    def name(self, info: TensorInfo) -> str:
        """Return a name of its own for one of the file's tensors."""
        stem = _NOT_A_NAME.sub(".", info.name.partition(";")[0]).strip(".")[-_NAME_LENGTH:] or f"tensor.{info.index}"
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}.{number}"
        self._names.add(name)
        self.sources[name] = info.name
        return name

    def target(self, node: Node) -> TensorInfo:
        """Return the tensor that an operator writes."""
        if len(node.outputs) != 1 or node.outputs[0] < 0:
            self.refuse(node, f"writes {len(node.outputs)} tensors", "one output")
        return self.graph.tensors[node.outputs[0]]

    def write(self, node: Node, value: Value) -> None:
        """Record the value of the tensor that an operator writes."""
        info = self.target(node)
        if info.index in self.values or info.data is not None or info.index == self.graph.input:
            self.refuse(node, f"writes {info.label!r}, which has a value already", "one writer a tensor")
        self.values[info.index] = value

    def open_input(self, info: TensorInfo) -> None:
        """Make a tensor of the file the network's input; its shape is settled by the first layer that reads it."""
        tensor = self.tensor(info, info.shape)
        self.input = tensor.name
        self._input_info = info
        self.values[info.index] = Value(tensor.name, info.shape)

    def _same_codes(self, node: Node) -> TensorInfo:
        """Return the output of an operator that passes codes through, after checking that they mean the same."""
        source, target = self.info(node, 0), self.codes(node, self.target(node))
        pairs = ((info.scales[0], info.zero_points[0]) for info in (source, target))
        if len(set(pairs)) > 1:
            self.refuse(
                node,
                f"reads scale {source.scales[0]} and zero point {source.zero_points[0]}, but writes "
                f"{target.scales[0]} and {target.zero_points[0]}",
                "one scale and zero point for both",
            )
        return target

    def _place_input(self, node: Node, value: Value, as_map: bool) -> None:
        """Settle the shape of the network's input by its first reader: a map in C, H, W order, or a vector."""
        if self._input_places is not None or self._input_info is None:
            return
        shape = self._input_info.shape
        raw = np.arange(math.prod(shape))
        ours: tuple[int, ...]
        if as_map or (len(shape) == 4 and value.order is None):
            ours = map_shape(value.shape)
            order = self.places_of(value)[0].transpose(2, 0, 1).ravel()
            plain = len(shape) == 4 and np.array_equal(order, raw.reshape(shape)[0].transpose(2, 0, 1).ravel())
            if not plain and not np.array_equal(order, raw):
                self.refuse(
                    node, f"reads the input {shape} as a map {value.shape} in another order", "an input (1, H, W, C)"
                )
        else:
            ours, order = (len(raw),), raw
        places = np.empty_like(raw)
        places[order] = raw
        self._input_places = places
        tensor = Tensor(
            self.input, ours, 8, True, float(self._input_info.scales[0]), int(self._input_info.zero_points[0])
        )
        self.tensors = {self.input: tensor, **self.tensors}

    def _places(self, value: Value) -> Array:
        """Return where each element of a value lies in its tensor."""
        order = self.places_of(value)
        return order if value.tensor != self.input or self._input_places is None else self._input_places[order]

    def _as_it_is(self, value: Value) -> bool:
        """Return whether a value of rank 4 is its tensor, a map, element by element."""
        if value.order is None and value.tensor != self.input:
            return len(self.tensors[value.tensor].shape) == 3
        return np.array_equal(self._places(value), _map_order(map_shape(value.shape)))
