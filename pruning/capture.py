"""Capture an ``nn.Module`` as a chain of layers with torch.export, or refuse it naming operation and source line."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from zeroskip.pruning.errors import PruningError

__all__ = ["SUPPORTED", "Graph", "Kind", "Norm", "Op", "capture", "tensors_of"]

SUPPORTED = (
    "Conv2d (zeros padding), Linear, BatchNorm directly after one of these, ReLU directly after these (or after the "
    "max pool that follows), MaxPool2d and AvgPool2d without padding, AdaptiveAvgPool2d(1), flatten/view/reshape to "
    "(N, features), Dropout in eval mode; one input, one output, no branches"
)


class Kind(enum.Enum):
    """What a captured layer computes."""

    CONV2D = "conv2d"
    LINEAR = "linear"
    MAX_POOL2D = "max_pool2d"
    AVG_POOL2D = "avg_pool2d"
    ADD = "add"
    CONCAT = "concat"


@dataclass(frozen=True)
class Norm:
    """A BatchNorm in eval mode: the names of its tensors (None: 1 and 0) and its epsilon."""

    gamma: str | None
    beta: str | None
    mean: str
    var: str
    eps: float

    def affine(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the ``gain`` and ``offset`` it applies to each channel."""
        inverse = torch.rsqrt(tensors[self.var] + self.eps)
        gain = inverse if self.gamma is None else tensors[self.gamma] * inverse
        offset = -tensors[self.mean] * gain
        return gain, offset if self.beta is None else tensors[self.beta] + offset


@dataclass(frozen=True)
class Op:
    """One layer: its module's tensors by name, its geometry ``(y, x)``, and the ReLU that follows it.

    ``padding`` is ``(top, left, bottom, right)``; shapes are of one sample, without the batch axis.
    """

    name: str
    kind: Kind
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    weight: str | None = None
    bias: str | None = None
    norm: Norm | None = None
    relu: bool = False
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def module(self) -> str:
        """Name of the module that owns the weight, as in ``named_modules()``."""
        return (self.weight or "").rpartition(".")[0]

    def evaluate(self, tensors: Mapping[str, Tensor], x: Tensor, weight: Tensor | None) -> Tensor:
        """Return the layer's float output; ``weight`` stands in for the module's own."""
        if self.kind is Kind.MAX_POOL2D:
            return F.max_pool2d(x, self.kernel, self.stride)
        if self.kind is Kind.AVG_POOL2D:
            return F.avg_pool2d(x, self.kernel, self.stride)
        if weight is None:
            raise ValueError(f"Layer '{self.name}' needs a weight")
        bias = None if self.bias is None else tensors[self.bias]
        if self.kind is Kind.CONV2D:
            top, left, bottom, right = self.padding
            if (top, left) != (bottom, right):
                x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
            y = F.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, self.groups)
        else:
            y = F.linear(x.flatten(1), weight, bias)
        if self.norm is not None:
            gain, offset = self.norm.affine(tensors)
            axes = (1, -1) + (1,) * (y.dim() - 2)
            y = y * gain.reshape(axes) + offset.reshape(axes)
        return F.relu(y) if self.relu else y


@dataclass(frozen=True)
class Graph:
    """The layers of a network in order, each fed by the one before."""

    ops: tuple[Op, ...]
    in_shape: tuple[int, ...]

    def forward(
        self,
        tensors: Mapping[str, Tensor],
        x: Tensor,
        weight: Callable[[Op, Tensor], Tensor] | None = None,
        activation: Callable[[Op, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Run the layers; the hooks replace weights and activations (for observation or fake quantization)."""
        for op in self.ops:
            own = None if op.weight is None else tensors[op.weight]
            if own is not None and weight is not None:
                own = weight(op, own)
            x = op.evaluate(tensors, x, own)
            if activation is not None:
                x = activation(op, x)
        return x


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, the live ones, so that gradients flow."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def capture(model: nn.Module, sample: Tensor) -> Graph:
    """Return the layers of ``model`` in eval mode; ``sample`` is an example input with a batch axis.

    Raises
    ------
    PruningError
        For an operation or an arrangement outside :data:`SUPPORTED`, with the user's source line.
    """
    training = model.training
    model.eval()
    try:
        program = torch.export.export(model, (sample,), strict=False)
    except Exception as error:
        # torch.export raises many types; all mean that the module has no static graph.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PruningError(f"The network cannot be captured: {first}. Supported are: {SUPPORTED}") from error
    finally:
        model.train(training)
    return _Reader(program, sample).read()


class _Reader:
    """Walks the exported graph once and builds the chain."""

    def __init__(self, program: Any, sample: Tensor) -> None:
        signature = program.graph_signature
        self.graph: fx.Graph = program.graph
        self.batch = sample.shape[0]
        self.names: dict[str, str] = dict(signature.inputs_to_parameters) | dict(signature.inputs_to_buffers)
        self.inputs = tuple(signature.user_inputs)
        self.outputs = tuple(signature.user_outputs)
        self.ops: list[Op] = []
        self.tail: fx.Node | None = None

    def read(self) -> Graph:
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise PruningError(
                f"A network must have one input and one output, not {len(self.inputs)} and {len(self.outputs)}"
            )
        in_shape: tuple[int, ...] = ()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if node.name == self.inputs[0]:
                    self.tail, in_shape = node, self._shape(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                if self.tail is None or self.outputs[0] != self.tail.name:
                    raise PruningError("The network's output must be that of its last layer")
            else:
                raise self._refuse(node, f"node '{node.op}'")
        if not any(op.weight for op in self.ops):
            raise PruningError("The network has no convolution and no linear layer")
        return Graph(tuple(self.ops), in_shape)

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        shape = tuple(int(n) for n in node.meta["val"].shape)
        if shape[:1] != (self.batch,):
            raise self._refuse(node, f"a tensor of shape {shape} without the batch axis in front")
        return shape[1:]

    def _refuse(self, node: fx.Node, what: str) -> PruningError:
        return PruningError(f"Unsupported: {what}{_source_line(node)}. Supported are: {SUPPORTED}")

    def _arguments(self, node: fx.Node) -> dict[str, Any]:
        """Return the operator's arguments by name, defaults included."""
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        values = {a.name: a.default_value for a in schema if a.has_default_value()}
        values |= {a.name: value for a, value in zip(schema, node.args, strict=False)}
        return values | dict(node.kwargs)

    def _call(self, node: fx.Node) -> None:
        full = str(node.target)
        name = full.removeprefix("aten.").split(".")[0].removesuffix("_")
        handlers: dict[str, Callable[[fx.Node, dict[str, Any]], None]] = {
            "conv2d": self._conv2d,
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "relu": self._relu,
            "max_pool2d": self._pool,
            "avg_pool2d": self._pool,
            "adaptive_avg_pool2d": self._global_pool,
            "flatten": self._flatten,
            "view": self._flatten,
            "reshape": self._flatten,
            "dropout": self._dropout,
            "contiguous": self._identity,
        }
        if not full.startswith("aten.") or name not in handlers:
            raise self._refuse(node, f"operation '{full}'")
        arguments = self._arguments(node)
        source = arguments.get("input", arguments.get("self"))
        if source is not self.tail or self.tail is None:
            raise self._refuse(
                node, f"operation '{full}' on something else than the previous layer's output (a branch)"
            )
        if len(self.tail.users) != 1:
            raise self._refuse(
                node, f"operation '{full}' on a tensor that is used {len(self.tail.users)} times (a branch)"
            )
        handlers[name](node, arguments)
        self.tail = node

    def _parameter(self, node: fx.Node, value: Any) -> str | None:
        if value is None:
            return None
        name = self.names.get(value.name)
        if name is None:
            raise self._refuse(node, "a weight or bias that is not a parameter of the model")
        return name

    def _layer_name(self, node: fx.Node, weight: str) -> str:
        module = weight.rpartition(".")[0]
        if any(op.weight == weight for op in self.ops):
            raise self._refuse(node, f"layer '{module}' used twice")
        name = (module or weight).replace(".", "_")
        return name if all(op.name != name for op in self.ops) else f"{name}_{len(self.ops)}"

    def _conv2d(self, node: fx.Node, a: dict[str, Any]) -> None:
        weight = self._parameter(node, a["weight"])
        if weight is None:
            raise self._refuse(node, "a convolution without a weight")
        source: fx.Node = a["input"]
        kernel = _pair(a["weight"].meta["val"].shape[2:])
        dilation = _pair(a["dilation"])
        self.ops.append(
            Op(
                name=self._layer_name(node, weight), kind=Kind.CONV2D,
                in_shape=self._shape(source), out_shape=self._shape(node),
                weight=weight, bias=self._parameter(node, a["bias"]), kernel=kernel, stride=_pair(a["stride"]),
                padding=_padding(a["padding"], kernel, dilation), dilation=dilation, groups=int(a["groups"]),
            )
        )  # fmt: skip

    def _linear(self, node: fx.Node, a: dict[str, Any]) -> None:
        weight = self._parameter(node, a["weight"])
        source = self._shape(a["input"])
        if weight is None or len(source) != 1:
            raise self._refuse(node, f"a linear layer on an input of shape {source}; flatten it to (N, features) first")
        before = self.ops[-1].out_shape if self.ops else source
        self.ops.append(
            Op(
                name=self._layer_name(node, weight), kind=Kind.LINEAR, in_shape=before, out_shape=self._shape(node),
                weight=weight, bias=self._parameter(node, a["bias"]),
            )
        )  # fmt: skip

    def _batch_norm(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a["training"]:
            raise self._refuse(node, "BatchNorm in training mode")
        mean, var = self._parameter(node, a["running_mean"]), self._parameter(node, a["running_var"])
        last = self.ops[-1] if self.ops else None
        if last is None or last.weight is None or last.relu or last.norm or mean is None or var is None:
            raise self._refuse(node, "BatchNorm that does not follow a convolution or linear layer directly")
        norm = Norm(self._parameter(node, a["weight"]), self._parameter(node, a["bias"]), mean, var, float(a["eps"]))
        self.ops[-1] = replace(last, norm=norm)

    def _relu(self, node: fx.Node, a: dict[str, Any]) -> None:
        # A maximum and a ReLU commute, so a ReLU behind a max pool belongs to the layer before the pool.
        place = len(self.ops) - 1
        while place >= 0 and self.ops[place].kind is Kind.MAX_POOL2D:
            place -= 1
        if place < 0 or self.ops[place].weight is None:
            raise self._refuse(node, "ReLU that does not follow a convolution or linear layer")
        self.ops[place] = replace(self.ops[place], relu=True)

    def _pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        source = a.get("input", a.get("self"))
        kernel = _pair(a["kernel_size"])
        plain = _pair(a["padding"]) == (0, 0) and not a["ceil_mode"]
        plain = plain and _pair(a.get("dilation", 1)) == (1, 1) and a.get("divisor_override") is None
        if not plain or source is None or len(self._shape(source)) != 3:
            raise self._refuse(node, "a pooling with padding, dilation, ceil_mode or divisor_override")
        kind = Kind.MAX_POOL2D if "max_pool2d" in str(node.target) else Kind.AVG_POOL2D
        self._add_pool(node, source, kind, kernel, _pair(a["stride"]) if a["stride"] else kernel)

    def _global_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        source = a.get("input", a.get("self"))
        if source is None or _pair(a["output_size"]) != (1, 1):
            raise self._refuse(node, f"adaptive average pooling to {a['output_size']}")
        size = _pair(self._shape(source)[1:])
        self._add_pool(node, source, Kind.AVG_POOL2D, size, size)

    def _add_pool(
        self, node: fx.Node, source: fx.Node, kind: Kind, kernel: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        number = 1 + sum(op.weight is None for op in self.ops)
        self.ops.append(Op(f"pool{number}", kind, self._shape(source), self._shape(node), kernel=kernel, stride=stride))

    def _flatten(self, node: fx.Node, a: dict[str, Any]) -> None:
        if len(self._shape(node)) != 1 and self._shape(node) != self._shape(node.all_input_nodes[0]):
            raise self._refuse(node, f"a change of shape to {self._shape(node)}; only (N, features) is known")

    def _dropout(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a["train"]:
            raise self._refuse(node, "dropout in training mode")

    def _identity(self, node: fx.Node, a: dict[str, Any]) -> None:
        """Accept an operation that changes no value."""


def _pair(value: Any) -> tuple[int, int]:
    """Return an int or a list of one or two as ``(y, x)``."""
    if isinstance(value, int):
        return value, value
    items = [int(v) for v in value]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _padding(value: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return ``(top, left, bottom, right)`` of a padding argument; ``same`` puts the odd one below and right."""
    if value == "valid":
        return 0, 0, 0, 0
    if value == "same":
        y, x = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
        return y // 2, x // 2, y - y // 2, x - x // 2
    top, left = _pair(value)
    return top, left, top, left


def _source_line(node: fx.Node) -> str:
    """Return `` at FILE:LINE (code)`` of the user's innermost line that made the node."""
    trace = node.meta.get("stack_trace") or ""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n?\s*([^\n]*)', trace)
    if not found:
        return ""
    own = [entry for entry in found if "/torch/nn/" not in entry[0]] or found
    file, line, code = own[-1]
    return f" at {file}:{line} ({code.strip()})"
