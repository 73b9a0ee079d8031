"""What the operators of a graph need while it is read: values by name, checked attributes, stored operands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.builder import Builder
from zeroskip.compiler.importers.float_functions import Step
from zeroskip.compiler.importers.flows import Constant, Flow, Joined, Stored
from zeroskip.compiler.importers.onnx_graph import Graph, Node
from zeroskip.compiler.importers.onnx_layout import Layout, layout_shape

__all__ = ["Context", "Value"]

Value = Constant | Flow | Joined

_REQUIRED = object()
_FLAGS = (
    "allowzero",
    "ceil_mode",
    "count_include_pad",
    "narrow",
    "saturate",
    "signed",
    "spatial",
    "storage_order",
    "training_mode",
    "transA",
    "transB",
)
"""Attributes that are 0 or 1."""


class Context:
    """The state of reading one graph.

    Attributes
    ----------
    graph : Graph
    values : what every ONNX tensor is that was reached, by name
    builder : the layers so far
    host : nodes at the end that are left to the host
    argmax : the node at the end that takes the number of the largest output, None without one
    """

    def __init__(self, graph: Graph, builder: Builder) -> None:
        self.graph, self.builder = graph, builder
        self.values: dict[str, Value] = {name: Constant(array) for name, array in graph.constants.items()}
        self.host: list[Node] = []
        self.argmax: Node | None = None
        self.readers = Counter(name for node in graph.nodes for name in node.inputs)
        self.readers[graph.output] += 1

    def attributes(self, node: Node, **known: Any) -> dict[str, Any]:
        """Return the attributes of ``node``, those that are missing from ``known``; any other one is refused."""
        for name in node.attributes:
            if name not in known:
                raise node.refused(f"has attribute {name!r}; supported are {', '.join(known) or 'none'}")
        values = {**known, **node.attributes}
        for name, value in values.items():
            default = known[name]
            same = value is default or default is None or isinstance(value, type(default))
            if not same or (name in _FLAGS and value not in (0, 1)):
                raise node.refused(f"must have attribute {name!r} like {default!r}, not {value!r}")
        return values

    def operand(self, node: Node, index: int) -> Value | None:
        """Return what the input at ``index`` is, None if it is absent."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        return self.values[node.inputs[index]]

    def constant(self, node: Node, index: int, default: Any = _REQUIRED) -> NDArray[Any]:
        """Return a constant operand."""
        value = self.operand(node, index)
        if value is None and default is not _REQUIRED:
            return np.asarray(default)
        if not isinstance(value, Constant):
            what = "is missing" if value is None else f"({node.inputs[index]!r}) is computed"
            raise node.refused(f"needs a constant as input {index}, but it {what}")
        return value.array

    def scalar(self, node: Node, index: int, default: Any = _REQUIRED) -> np.float32:
        """Return a constant operand of one value, or of equal ones, as a finite float32."""
        array = self.constant(node, index, default)
        if not array.size or (array != array.ravel()[0]).any() or not np.isfinite(array).all():
            raise node.refused(
                f"must have one finite number as input {index}, not an array of shape {array.shape}: activations have "
                "one scale a tensor"
            )
        return np.float32(array.ravel()[0])

    def integers(self, node: Node, index: int) -> tuple[int, ...]:
        """Return a constant operand as a few integers."""
        array = self.constant(node, index)
        if array.ndim > 1 or array.size > 8 or not np.issubdtype(array.dtype, np.integer):
            raise node.refused(f"must have at most 8 integers as input {index}, not {array.dtype} {array.shape}")
        return tuple(int(value) for value in array.ravel())

    def computed(self, node: Node, index: int = 0, *, pad: bool = False, integer: bool = False) -> Flow | Joined:
        """Return an operand that is computed; a border of zeros or codes as values only where they are served."""
        value = self.operand(node, index)
        if not isinstance(value, Flow | Joined):
            raise node.refused(f"needs a computed tensor as input {index}, not a constant")
        if any(value.pad) and not pad:
            raise node.refused("reads a padded map; only convolutions and poolings can")
        if value.integer and not integer:
            raise node.refused(f"computes with the integers of {value.name!r}; put a DequantizeLinear before it")
        return value

    def stored(self, node: Node, index: int = 0, *, pad: bool = False, integer: bool = False) -> tuple[Flow, Stored]:
        """Return an operand as the codes of a tensor of the model."""
        flow = self.builder.store(self.computed(node, index, pad=pad, integer=integer), node.name)
        if not isinstance(flow.source, Stored):
            raise node.refused(f"reads {flow.name!r}, which nothing quantizes; put a Quant between them")
        return flow, flow.source

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the ONNX shape of a value, with a batch of 1."""
        if isinstance(value, Constant):
            return value.array.shape
        shape = layout_shape(value.layout, value.shape)
        if any(value.pad):
            raise ValueError("A padded map has no shape of its own")
        return shape

    def elementwise(self, node: Node, value: Flow | Joined, make: Callable[[slice], Step]) -> Flow | Joined:
        """Return ``value`` after a step; ``make`` makes it for some of the channels."""
        name = node.outputs[0]
        if isinstance(value, Joined):
            parts: list[Flow] = []
            first = 0
            for part in value.parts:
                channels = part.shape[0]
                step = make(slice(first, first + channels))
                parts.append(self._single(part).then(f"{name}.{len(parts)}", step))
                first += channels
            return replace(value, name=name, parts=tuple(parts), integer=False)
        return replace(self._single(value), integer=False).then(name, make(slice(None)))

    def _single(self, value: Flow) -> Flow:
        """Return ``value`` to be taken further: codes that others read as well are stored once."""
        if value.quantizer is not None and self.readers[value.name] > 1:
            return self.builder.store(value, value.name)
        return value

    def relayout(self, node: Node, value: Flow | Joined, layout: Layout) -> Flow | Joined:
        """Return the same numbers in another layout."""
        self.builder.made.setdefault(node.name, "a layout")
        if isinstance(value, Flow) and value.quantizer is not None:
            value = self._single(value)
        return replace(value, name=node.outputs[0], layout=layout)

    def channel_values(self, node: Node, value: Flow | Joined, array: NDArray[Any]) -> NDArray[np.float32]:
        """Return a constant that is broadcast against ``value`` as float32 ``()`` or ``(C, 1)``."""
        numbers = np.asarray(array, np.float32)
        if not np.isfinite(numbers).all():
            raise node.refused("has a constant that is not finite")
        if numbers.size and (numbers == numbers.ravel()[0]).all() and numbers.ndim <= len(value.layout):
            return np.asarray(numbers.ravel()[0])
        full = self.shape(value)
        padded = (1,) * (len(full) - numbers.ndim) + numbers.shape
        if len(padded) != len(full):
            raise node.refused(f"has a constant of shape {numbers.shape}, but its input has shape {full}")
        for size, extent, letters in zip(padded, full, value.layout, strict=True):
            if size != 1 and (letters != "C" or size != extent):
                raise node.refused(
                    f"has a constant of shape {numbers.shape}, but its input has shape {full}; constants may differ by "
                    "channel only"
                )
        return numbers.reshape(-1, 1)

    def served(self, node: Node, what: str) -> None:
        """Note what became of a node."""
        self.builder.made[node.name] = what

    def table(self) -> list[Mapping[str, str]]:
        """Return what became of every node, in their order; the unused ones stand last."""
        made, graph = self.builder.made, self.graph
        rows = [(node.name, node.op, made.get(node.name, "constant, folded")) for node in graph.nodes]
        rows += [(name, op, "unused: the output does not need it") for name, op in graph.unused]
        return [{"node": name, "op": op, "became": became} for name, op, became in rows]
