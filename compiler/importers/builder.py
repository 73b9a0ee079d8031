"""Turn flows into layers and tensors of a Model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from zeroskip.compiler.argmax import index_tensor
from zeroskip.compiler.errors import CompileError
from zeroskip.compiler.importers.additions import add_layer
from zeroskip.compiler.importers.float_functions import Quantizer, Step
from zeroskip.compiler.importers.flows import Flow, Joined, MaxPool, Product, RawInput, Stored, Sum
from zeroskip.compiler.importers.input_codes import input_tensor
from zeroskip.compiler.importers.products import ProductFunction
from zeroskip.compiler.ir import Kind, Layer, Rounding, Tensor

__all__ = ["Builder"]

_IDENTITY_LIMIT = 1024
"""Longest vector whose codes are quantized again, by a matrix that is mostly zeros."""
_NAME_LIMIT = 100
_UNNAMED = re.compile(r"[^A-Za-z0-9_.\-]+")


class Builder:
    """The layers and tensors of the model as they are found.

    Attributes
    ----------
    tensors, layers : of the model
    input : name of the input tensor, empty until something reads it
    input_shape : ``(C, H, W)`` or ``(F,)``
    made : what became of ONNX nodes, by name
    sources : the ONNX tensor that has the values of a tensor, by its name
    notes : what the user should know
    """

    def __init__(self, input_name: str, input_shape: tuple[int, ...]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.layers: list[Layer] = []
        self.input = ""
        self.input_name, self.input_shape = input_name, input_shape
        self.made: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.notes: list[str] = []
        self._stored: dict[str, Flow] = {}

    def store(self, value: Flow | Joined, reader: str) -> Flow:
        """Return the flow as codes of a tensor of the model, with the layers that compute them.

        Raises
        ------
        CompileError
            If nothing quantizes the flow, or no integer parameters reproduce it.
        """
        if isinstance(value, Flow) and isinstance(value.source, Stored) and value.quantizer is None:
            return self._scaled(value, value.source, reader)
        known = self._stored.get(value.name)
        if known is None:
            known = self._join(value, reader) if isinstance(value, Joined) else self._compute(value, reader)
            if isinstance(value, Flow) and isinstance(known.source, Stored):
                known = self._scaled(replace(known, steps=value.factors, factors=()), known.source, reader)
            self._stored[value.name] = known
        return replace(known, name=value.name, layout=value.layout, pad=value.pad, integer=value.integer)

    def set_input(self, tensor: Tensor, reader: str) -> None:
        """Declare the network's input; all that read it must agree.

        Raises
        ------
        CompileError
            If a node before declared another one.
        """
        if self.input and self.tensors[self.input] != tensor:
            raise CompileError(
                f"Node {reader!r} quantizes the network's input in another way than the nodes before it; "
                "quantize it once and read the result"
            )
        self.input = tensor.name
        self.tensors[tensor.name] = tensor

    def pool(self, flow: Flow, pool: MaxPool, name: str, shape: tuple[int, ...]) -> Flow:
        """Emit a max pooling of stored codes, to the tensor ``name`` of ``shape``."""
        if not isinstance(flow.source, Stored):
            raise TypeError("A max pooling must read stored codes")
        source = self.tensors[flow.source.tensor]
        target = replace(source, name=self.name(name), shape=shape, boundaries=())
        window = {"kernel": pool.kernel, "stride": pool.stride, "padding": pool.padding}
        self.sources[target.name] = name
        layer = Layer(
            self.layer_name(pool.node),
            Kind.MAX_POOL2D,
            (source.name,),
            target.name,
            clamp=(target.lo, target.hi),
            **window,  # type: ignore[arg-type]
        )
        self._append(layer, target, pool.node)
        stored = replace(flow.source, tensor=target.name)
        return replace(flow, name=name, source=stored, shape=shape, pool=None)

    def argmax(self, node: str, scores: str, name: str) -> str:
        """Emit the number of the largest code of the tensor ``scores``; return the name of the tensor with it."""
        target = index_tensor(self.name(name), self.tensors[scores].size)
        self.sources[target.name] = name
        self._append(Layer(self.layer_name(node), Kind.ARGMAX, (scores,), target.name), target, node)
        return target.name

    def name(self, wanted: str) -> str:
        """Return a legal and unused tensor name like ``wanted``."""
        return _unique(wanted, self.tensors)

    def layer_name(self, wanted: str) -> str:
        """Return a legal and unused layer name like ``wanted``."""
        return _unique(wanted, {layer.name: layer for layer in self.layers})

    def _scaled(self, flow: Flow, source: Stored, reader: str) -> Flow:
        """Return a stored flow with scale steps multiplied into its scale."""
        scale = source.scale
        for step in flow.steps:
            if step.factor is None:
                raise CompileError(
                    f"Node {reader!r} reads what node {step.node!r} computes, which nothing quantizes; "
                    "put a Quant between them"
                )
            scale *= step.factor
            self.made[step.node] = f"scale of {source.tensor!r} where node {reader!r} reads it"
        return replace(flow, source=replace(source, scale=scale), steps=())

    def _compute(self, flow: Flow, reader: str) -> Flow:
        source, quantizer = flow.source, flow.quantizer
        if quantizer is None:
            raise CompileError(
                f"Node {reader!r} reads {flow.name!r}, which nothing quantizes; put a Quant between them"
            )
        if isinstance(source, RawInput):
            tensor = input_tensor(self.input or self.name(self.input_name), flow, quantizer)
            tensor = replace(tensor, shape=self.input_shape)
            self.set_input(tensor, quantizer.node)
            self.sources.setdefault(tensor.name, flow.label)
            self._explain(flow.steps, quantizer, f"the rule by which floats become codes of {tensor.name!r}")
            return _result(flow, tensor, quantizer)
        if isinstance(source, Stored):
            source = self._identity(flow, source, quantizer.node)
        if isinstance(source, Product):
            return self._product(flow, source, quantizer)
        if isinstance(source, Sum):
            return self._sum(flow, source, quantizer)
        raise CompileError(f"Node {reader!r} reads integers whose scale is unknown; put a DequantizeLinear behind them")

    def _identity(self, flow: Flow, source: Stored, node: str) -> Product:
        """Return a product with weights 1, for a function of codes that no layer computes."""
        channels = flow.shape[0]
        scale, bias = np.full(channels, source.scale), np.zeros(channels, np.int64)
        if len(flow.shape) == 3:
            ones, settings = np.ones((channels, 1, 1, 1), np.int64), {"groups": channels}
            return Product(node, Kind.CONV2D, source, ones, scale, bias, 1, binary=True, settings=settings)
        if channels <= _IDENTITY_LIMIT:
            return Product(node, Kind.LINEAR, source, np.eye(channels, dtype=np.int64), scale, bias, 2, narrow=True)
        raise CompileError(
            f"Node {node!r} quantizes {channels} codes of a vector again, which takes a layer of its own; "
            f"supported are up to {_IDENTITY_LIMIT}: quantize them once"
        )

    def _product(self, flow: Flow, product: Product, quantizer: Quantizer) -> Flow:
        """Emit the layer of a product and, behind it, its max pooling."""
        function = ProductFunction(flow, product, quantizer)
        quantizer = function.settled()
        pool = flow.pool
        shape, name = (flow.shape, flow.label) if pool is None else (pool.shape, f"{flow.label}.unpooled")
        target = _tensor(self.name(name), shape, quantizer)
        if pool is None:
            self.sources[target.name] = flow.label
        layer = function.layer(self.layer_name(product.node), target, self.tensors[product.source.tensor])
        self._append(layer, target, product.node)
        self._explain(flow.steps, quantizer, f"part of layer {layer.name!r}")
        if not product.exact:
            self.notes.append(
                f"layer {layer.name!r}: sums are exact here; a framework that rounds them in float32 may differ where "
                "a sum lies within that rounding of a boundary"
            )
        result = _result(flow, target, quantizer)
        return result if pool is None else self.pool(result, pool, flow.label, flow.shape)

    def _sum(self, flow: Flow, source: Sum, quantizer: Quantizer) -> Flow:
        """Emit an addition."""
        if not quantizer.bits:
            raise CompileError(f"Node {quantizer.node!r} quantizes a sum and must declare 1 to 8 bits")
        names = (source.first.tensor, source.second.tensor)
        target = _tensor(self.name(flow.label), flow.shape, quantizer)
        self.sources[target.name] = flow.label
        layer = add_layer(self.layer_name(source.node), flow, source, quantizer, names, target.name)
        self._append(layer, target, source.node)
        self._explain(flow.steps, quantizer, f"part of layer {layer.name!r}")
        return _result(flow, target, quantizer)

    def _join(self, joined: Joined, reader: str) -> Flow:
        """Emit a concatenation."""
        parts = [self.store(part, reader) for part in joined.parts]
        sources = [part.source for part in parts if isinstance(part.source, Stored)]
        if len({(source.scale, source.zero_point) for source in sources}) > 1:
            scales = ", ".join(f"{source.scale:g}" for source in sources)
            raise CompileError(
                f"Node {joined.node!r} joins tensors of scales {scales}; quantize them alike, or put a Quant behind it"
            )
        tensors = [self.tensors[source.tensor] for source in sources]
        target = replace(tensors[0], name=self.name(joined.name), shape=joined.shape, boundaries=())
        self.sources[target.name] = joined.name
        inputs = tuple(tensor.name for tensor in tensors)
        self._append(Layer(self.layer_name(joined.node), Kind.CONCAT, inputs, target.name), target, joined.node)
        lo, hi = min(source.lo for source in sources), max(source.hi for source in sources)
        return Flow(joined.name, replace(sources[0], tensor=target.name, lo=lo, hi=hi), joined.shape, joined.layout)

    def _append(self, layer: Layer, target: Tensor, node: str) -> None:
        self.layers.append(layer)
        self.tensors[target.name] = target
        rule = f", rounding {layer.rounding.value}" if layer.multiplier is not None else ""
        rule = ", thresholds" if layer.rounding is Rounding.THRESHOLDS else rule
        self.made[node] = f"layer {layer.name!r} ({layer.kind.value}{rule})"

    def _explain(self, steps: Iterable[Step], quantizer: Quantizer, text: str) -> None:
        for node in (*(step.node for step in steps), quantizer.node):
            self.made.setdefault(node, text)


def _result(flow: Flow, tensor: Tensor, quantizer: Quantizer) -> Flow:
    """Return the flow as the codes that ``tensor`` now holds."""
    source = Stored(tensor.name, float(quantizer.scale), quantizer.zero_point, quantizer.lo, quantizer.hi)
    return replace(flow, source=source, steps=(), quantizer=None, pool=None)


def _tensor(name: str, shape: tuple[int, ...], quantizer: Quantizer) -> Tensor:
    return Tensor(name, shape, quantizer.bits, quantizer.signed, float(quantizer.scale), quantizer.zero_point)


def _unique(wanted: str, used: Mapping[str, Any]) -> str:
    base = _UNNAMED.sub("_", wanted)[:_NAME_LIMIT].lstrip(".-") or "unnamed"
    name, number = base, 1
    while name in used:
        number += 1
        name = f"{base}_{number}"
    return name
