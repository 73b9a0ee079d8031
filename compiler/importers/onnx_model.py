"""Read an ONNX network, QONNX or with QuantizeLinear, into a Model that equals it exactly, or refuse it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zeroskip.compiler.errors import CompileError, InputError
from zeroskip.compiler.importers.builder import Builder
from zeroskip.compiler.importers.float_functions import Quantizer, run_steps
from zeroskip.compiler.importers.flows import Constant, Flow, IntegerInput, Joined, Product, RawInput, Stored
from zeroskip.compiler.importers.onnx_constants import FOLDED, fold, shape_of
from zeroskip.compiler.importers.onnx_context import Context, Value
from zeroskip.compiler.importers.onnx_graph import QUANTIZERS as QUANTIZER_DOMAINS
from zeroskip.compiler.importers.onnx_graph import Graph, Node, read_graph
from zeroskip.compiler.importers.onnx_layers import LAYERS
from zeroskip.compiler.importers.onnx_layout import layout_shape, natural
from zeroskip.compiler.importers.onnx_operators import OPERATORS, input_layout
from zeroskip.compiler.importers.products import ProductFunction, code_bits
from zeroskip.compiler.importers.qdq import LINEAR_QUANTIZERS
from zeroskip.compiler.importers.qonnx import QUANTIZERS
from zeroskip.compiler.ir import Model, Tensor
from zeroskip.compiler.verify import verify

__all__ = ["load_onnx"]

_STANDARD: Mapping[str, Callable[[Context, Node], Value]] = {**OPERATORS, **LAYERS, **LINEAR_QUANTIZERS}
_CHANNELS_LAST = {name: _STANDARD[name] for name in ("BatchNormalization", "Conv", "MaxPool")}
_ANNOTATION = re.compile("(U?)INT([1-8])")
_OPTIONAL = ("Clip", "Pad", "Dropout")
"""Operators that may lack an operand before their last one."""
_HINTS = {
    "ConvTranspose": "Conv, with the upsampling outside of the network",
    "LeakyRelu": "Relu",
    "PRelu": "Relu",
    "Sigmoid": "Clip, as a hard sigmoid, before a Quant",
    "Tanh": "Clip, as HardTanh, before a Quant",
    "ReduceMean": "GlobalAveragePool",
    "QLinearConv": "Conv between DequantizeLinear and QuantizeLinear",
    "QLinearMatMul": "MatMul between DequantizeLinear and QuantizeLinear",
    "ConvInteger": "Conv between DequantizeLinear and QuantizeLinear",
    "DynamicQuantizeLinear": "QuantizeLinear with constant scales (static quantization)",
}


def load_onnx(path: Path | str) -> Model:
    """Read an ``.onnx`` file.

    Parameters
    ----------
    path : a file of QONNX or ONNX with QuantizeLinear and DequantizeLinear, its data inside

    Returns
    -------
    Model : legal as :func:`zeroskip.compiler.verify.verify` has it; ``metadata`` has what became of every node
        (``nodes``), what the user should know (``notes``), the element type of its input (``input_type``), the file's
        tensors that have the values of ours (``source_tensors``) and the layouts of the file's (``source_layouts``)

    Raises
    ------
    InputError
        Naming the file, the node, the reason and what is supported.
    """
    path = Path(path)
    graph = read_graph(path)
    try:
        model = _channels_first_or_last(graph)
        verify(model)
    except CompileError as error:
        raise InputError(f"Model {str(path)!r} is refused: {error}") from error
    return model


def _channels_first_or_last(graph: Graph) -> Model:
    """Read the graph for an input with the channels in front; where that does not fit, with the channels behind."""
    try:
        return _Import(graph, False).model()
    except CompileError as error:
        if len(graph.shape) < 3:
            raise
        try:
            return _Import(graph, True).model()
        except CompileError:
            raise error from None


class _Import:
    """One attempt at a graph."""

    def __init__(self, graph: Graph, channels_last: bool) -> None:
        self.graph = graph
        order = input_layout(len(graph.shape), channels_last)
        sizes = dict(zip(order, graph.shape[1:], strict=True))
        self.last = channels_last
        self.shape = (sizes["C"],) if order == "C" else (sizes["C"], sizes.get("H", 1), sizes["W"])
        self.builder = Builder(graph.input, self.shape)
        self.context = Context(graph, self.builder)
        integer = graph.dtype != "float32"
        source: Stored | IntegerInput | RawInput = IntegerInput() if integer else RawInput()
        annotated = _ANNOTATION.fullmatch(graph.input_type)
        if annotated and not integer:
            # FINN: floats that hold integers
            tensor = Tensor(self.builder.name(graph.input), self.shape, int(annotated[2]), not annotated[1])
            self.builder.set_input(tensor, graph.input)
            source = Stored(tensor.name, 1.0, 0, tensor.lo, tensor.hi)
        layout = natural(self.shape, order)
        self.sums: Product | None = None
        self.context.values[graph.input] = Flow(graph.input, source, self.shape, layout, integer=integer)

    def model(self) -> Model:
        """Return the network."""
        for node in self.graph.nodes:
            for output in node.outputs[1:]:
                if output and self.context.readers[output]:
                    raise node.refused(f"has a second output {output!r} that is read; supported is the first one")
            self.context.values[node.outputs[0]] = self._value(node)
        scores = output = self._output()
        builder = self.builder
        if self.context.argmax is not None:
            output = builder.argmax(self.context.argmax.name, scores, self.graph.output)
        notes = list(builder.notes)
        if self.last and self.shape[0] > 1:
            notes.append(f"input {builder.input!r}: channels last in the file, here in the order (C, H, W)")
        if self.context.host:
            names = ", ".join(f"{node.name!r} ({node.op})" for node in self.context.host)
            notes.append(f"output {output!r}: the host computes {names} of it")
        metadata: dict[str, Any] = {
            "provenance": {"format": "onnx", "opset": self.graph.opset, "producer": self.graph.producer or "unknown"},
            "nodes": self.context.table(),
            "notes": notes,
            "input_type": self.graph.dtype,
            "source_tensors": self._sources(scores),
            "source_layouts": {
                name: value.layout for name, value in self.context.values.items() if isinstance(value, Flow | Joined)
            },
        }
        return Model(
            self.graph.name or "onnx",
            tuple(builder.layers),
            dict(builder.tensors),
            builder.input,
            output,
            metadata=metadata,
        )

    def _sources(self, output: str) -> dict[str, str]:
        """Return the file's tensors with the values of ours; parts of a concatenation have none."""
        sources = {self.builder.input: self.graph.input, **self.builder.sources}
        if self.sums is not None:
            # functions that are left to the host stand between our output and the file's
            flows = ((name, value) for name, value in self.context.values.items() if isinstance(value, Flow))
            plain = (name for name, value in flows if value.source is self.sums and not value.steps)
            sources[output] = next(plain, "")
        return {ours: name for ours, name in sources.items() if name in self.context.values}

    def _value(self, node: Node) -> Value:
        """Return what a node computes."""
        operands = [self.context.operand(node, index) for index in range(len(node.inputs))]
        constant = all(operand is None or isinstance(operand, Constant) for operand in operands)
        if node.op == "Shape" and not node.domain:
            value = operands[0]
            if value is None:
                raise node.refused("has no input")
            return shape_of(node, self.context.shape(value))
        if constant and not node.domain and node.op in FOLDED:
            return fold(node, [operand for operand in operands if isinstance(operand, Constant)])
        handler = self._table(node).get(node.op)
        if handler is None:
            raise node.refused(self._unsupported(node))
        if not node.inputs or operands[0] is None:
            raise node.refused("has no input")
        if any(operand is None for operand in operands) and node.op not in _OPTIONAL:
            raise node.refused("lacks an input")
        value = handler(self.context, node)
        if isinstance(value, Flow | Joined) and not any(value.pad) and self.context.shape(value)[0] != 1:
            raise node.refused(f"gives shape {layout_shape(value.layout, value.shape)}, which has lost the batch")
        return value

    def _table(self, node: Node) -> Mapping[str, Callable[[Context, Node], Value]]:
        if node.domain in QUANTIZER_DOMAINS:
            return QUANTIZERS
        return _CHANNELS_LAST if node.domain else _STANDARD

    def _unsupported(self, node: Node) -> str:
        known = [*self._table(node), *FOLDED] if not node.domain else list(self._table(node))
        nearest = _HINTS.get(node.op) or next(iter(difflib.get_close_matches(node.op, known, 1, 0.0)))
        return f"is not supported; nearest is {nearest}"

    def _output(self) -> str:
        """Return the name of the output tensor, with its layer emitted."""
        graph, builder = self.graph, self.builder
        value = self.context.values.get(graph.output)
        if not isinstance(value, Flow | Joined) or any(value.pad):
            raise CompileError(f"Output {graph.output!r} is a constant, the input or a padding; nothing is computed")
        if isinstance(value, Flow) and isinstance(value.source, Product) and value.quantizer is None:
            self.sums = value.source
            value = self._sums(value, value.source)
        order = "".join(value.layout)
        if order != "".join(letter for letter in "CHW" if letter in order):
            builder.notes.append(
                f"output {graph.output!r}: axes in the file {value.layout}, here in the order (C, H, W)"
            )
        source = builder.store(value, graph.output).source
        if not isinstance(source, Stored) or not builder.layers or builder.layers[-1].output != source.tensor:
            raise CompileError(f"Output {graph.output!r} must be what the network computes last")
        return source.tensor

    def _sums(self, flow: Flow, product: Product) -> Flow:
        """Return the sums of a last layer as codes; the float functions behind them are left to the host.

        That keeps every value, and the index of the largest one, only where the functions rise and are the same in
        every channel.
        """
        plain = Quantizer(
            product.node, lambda x: np.rint(x / scale), scale := np.float32(product.scale[0]), 0, 0, 0, 0, True
        )
        function = ProductFunction(replace(flow, steps=()), product, plain)
        lo = int((function.low + product.bias).min())
        hi = int((function.high + product.bias).max())
        what = f"Output {flow.name!r} of node {product.node!r} is not quantized"
        if hi - lo > 255 or not -255 <= lo <= 127:
            raise CompileError(
                f"{what} and has values of {lo} to {hi} steps; outputs have at most 8 bits: put a Quant of 8 bits "
                "behind it"
            )
        if flow.pool is not None:
            raise CompileError(f"{what} before its pooling; put a Quant behind it")
        every = np.broadcast_to(np.arange(lo, hi + 1), (len(product.weight), hi - lo + 1))
        with np.errstate(over="ignore", invalid="ignore"):
            results = run_steps(flow.steps, (every * product.scale[:, None]).astype(np.float32))
            rising = bool((np.diff(results[0]) > 0).all())
        if (results != results[:1]).any() or not rising:
            raise CompileError(
                f"{what}, and what follows differs by channel or does not rise: the largest code would not be the "
                "largest output; put a Quant of 8 bits behind it"
            )
        zero_point = 0 if -128 <= lo and hi < 256 and (lo >= 0 or hi < 128) else -lo
        low, high = lo + zero_point, hi + zero_point
        bits, signed = code_bits(low, high)
        codes = replace(
            plain,
            function=lambda x: np.rint(x / scale) + zero_point,
            zero_point=zero_point,
            lo=low,
            hi=high,
            bits=bits,
            signed=signed,
        )
        for step in flow.steps:
            self.builder.made[step.node] = "left to the host: the output is what it reads"
            if self.context.argmax is not None:
                self.builder.made[step.node] = "nothing: the number of the largest is the same without it"
        if self.context.argmax is None:
            self.context.host[:0] = [
                node for node in self.graph.nodes if node.name in {step.node for step in flow.steps}
            ]
        return replace(flow, steps=(), quantizer=codes, label=flow.name)
