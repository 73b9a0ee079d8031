"""Capture an ``nn.Module`` as a graph of layers with torch.export, or refuse it naming operation and source line."""

from __future__ import annotations

import enum
import math
import re
import sysconfig
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.selection import Selection

__all__ = ["INPUT", "POOLINGS", "SUPPORTED", "Graph", "Kind", "Norm", "Op", "as_map", "capture"]

INPUT = "input"

SUPPORTED = (
    "Conv2d and Conv1d (zeros padding), Linear, BatchNorm directly after one of these, a sum of two layers, ReLU "
    "directly after these (or after the max pool that follows), torch.cat along the channels, slices x[:, :, ::n, ::n] "
    "and zero channels by F.pad behind a layer, MaxPool and AvgPool without padding, AdaptiveAvgPool(1) or a mean over "
    "the positions, flatten/view/reshape to (N, features), Dropout in eval mode, argmax over the classes at the end; "
    "one input, one output"
)


class Kind(enum.Enum):
    """What a captured layer computes."""

    CONV2D = "conv2d"
    LINEAR = "linear"
    MAX_POOL2D = "max_pool2d"
    AVG_POOL2D = "avg_pool2d"
    ADD = "add"
    CONCAT = "concat"
    ARGMAX = "argmax"


POOLINGS = (Kind.MAX_POOL2D, Kind.AVG_POOL2D)


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

    ``inputs`` names the layers it reads, :data:`INPUT` stands for the network's input. ``padding`` is ``(top, left,
    bottom, right)``; shapes are of one sample, without the batch axis. Sequences are maps of height 1.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
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

    def evaluate(self, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        """Return the layer's float output; ``weight`` stands in for the module's own."""
        x = inputs[0]
        if self.kind is Kind.ADD:
            return F.relu(x + inputs[1]) if self.relu else x + inputs[1]
        if self.kind is Kind.CONCAT:
            return torch.cat(list(inputs), 1)
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
            y = F.conv2d(x, as_map(weight), bias, self.stride, (top, left), self.dilation, self.groups)
        else:
            y = F.linear(x.flatten(1), weight, bias)
        if self.norm is not None:
            gain, offset = self.norm.affine(tensors)
            axes = (1, -1) + (1,) * (y.dim() - 2)
            y = y * gain.reshape(axes) + offset.reshape(axes)
        return F.relu(y) if self.relu else y


@dataclass(frozen=True)
class Graph:
    """The layers of a network, each behind those it reads; the last one is the output.

    ``constants`` are weights of layers that stand for operations without a module. With ``argmax`` the network gives
    the number of the largest output of the last layer.
    """

    ops: tuple[Op, ...]
    in_shape: tuple[int, ...]
    constants: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    argmax: bool = False

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return what the layers name: constants, and the model's parameters and buffers, the live ones."""
        return {**self.constants, **dict(model.named_parameters()), **dict(model.named_buffers())}

    def forward(
        self,
        tensors: Mapping[str, Tensor],
        x: Tensor,
        weight: Callable[[Op, Tensor], Tensor] | None = None,
        activation: Callable[[Op, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Run the layers; the hooks replace weights and activations (for observation or fake quantization)."""
        # Reshaping would lose the memory layout of a map of one channel.
        values = {INPUT: x if x.shape[1:] == self.in_shape else x.reshape(-1, *self.in_shape)}
        left = Counter(name for op in self.ops for name in op.inputs)
        for op in self.ops:
            own = None if op.weight is None else tensors[op.weight]
            if own is not None and weight is not None:
                own = weight(op, own)
            x = op.evaluate(tensors, [values[name] for name in op.inputs], own)
            left.subtract(op.inputs)
            for name in set(op.inputs):
                if not left[name]:
                    del values[name]
            values[op.name] = x if activation is None else activation(op, x)
        return values[self.ops[-1].name]

    def beyond_input(self) -> frozenset[str]:
        """Return the names of the input and of the poolings on it: their codes are the input's."""
        names = {INPUT}
        for op in self.ops:
            if op.kind in POOLINGS and op.inputs[0] in names:
                names.add(op.name)
        return frozenset(names)

    def first_layers(self) -> tuple[Op, ...]:
        """Return the layers with weights that read the input, poolings left out."""
        names = self.beyond_input()
        return tuple(op for op in self.ops if op.weight and op.inputs[0] in names)


def as_map(weight: Tensor) -> Tensor:
    """Return a convolution's weight as ``OIHW``; a 1-D one gets the height 1."""
    return weight.unsqueeze(2) if weight.dim() == 3 else weight


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
        # torch.export raises many types; all mean that the module has no static graph for such a sample.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PruningError(
            f"The network cannot be captured with samples of shape {tuple(sample.shape[1:])}: "
            f"{first.rstrip('.')}{_raising_line(error)}. Supported are: {SUPPORTED}"
        ) from error
    finally:
        model.train(training)
    return _Reader(program, sample).read()


class _Reader:
    """Walks the exported graph once and builds the layers."""

    def __init__(self, program: Any, sample: Tensor) -> None:
        signature = program.graph_signature
        self.graph: fx.Graph = program.graph
        self.batch = sample.shape[0]
        self.names: dict[str, str] = dict(signature.inputs_to_parameters) | dict(signature.inputs_to_buffers)
        self.inputs = tuple(signature.user_inputs)
        self.outputs = tuple(signature.user_outputs)
        self.ops: dict[str, Op] = {}
        # The layer whose result a node is; several nodes are, where one only changes the shape or was absorbed.
        self.made_by: dict[fx.Node, str] = {}
        self.pool_nodes: dict[str, fx.Node] = {}
        # Slices and paddings of a layer's result that become a layer where something else reads them.
        self.selections: dict[fx.Node, tuple[fx.Node, Selection]] = {}
        self.constants: dict[str, Tensor] = {}
        self.argmax = False

    def read(self) -> Graph:
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise PruningError(
                f"A network must have one input and one output, not {len(self.inputs)} and {len(self.outputs)}"
            )
        in_shape: tuple[int, ...] = ()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                if node.name == self.inputs[0]:
                    self.made_by[node] = INPUT
                    in_shape = self._map(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                made = {known.name: name for known, name in self.made_by.items()}
                if not self.ops or made.get(self.outputs[0]) != list(self.ops)[-1]:
                    raise PruningError("The network's output must be that of its last layer")
            else:
                raise self._refuse(node, f"node '{node.op}'")
        ops = tuple(self.ops.values())
        if not any(op.weight for op in ops):
            raise PruningError("The network has no convolution and no linear layer")
        read = {name for op in ops for name in op.inputs}
        for op in ops[:-1]:
            if op.name not in read:
                raise PruningError(f"Layer '{op.name}' is computed, but the network's output does not depend on it")
        return Graph(ops, in_shape, self.constants, self.argmax)

    def _add(self, node: fx.Node, op: Op) -> None:
        self.ops[op.name] = op
        self.made_by[node] = op.name

    def _unique(self, name: str) -> str:
        """Return ``name``, numbered where a layer has it already."""
        return name if name not in self.ops and name != INPUT else f"{name}_{len(self.ops)}"

    def _map(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape of one sample as the layers see it: a sequence is a map of height 1."""
        shape = self._shape(node)
        return (shape[0], 1, shape[1]) if len(shape) == 2 else shape

    def _source(self, node: fx.Node, value: Any) -> fx.Node:
        """Return an argument that must be the result of a layer."""
        if isinstance(value, fx.Node) and value in self.selections and value not in self.made_by:
            self._select(value)
        if not isinstance(value, fx.Node) or value not in self.made_by:
            raise self._refuse(node, f"operation '{node.target}' on something else than the result of a layer")
        return value

    def _alone(self, node: fx.Node, name: str) -> bool:
        """Return whether ``node`` is all that reads the result of layer ``name``: the layer may then absorb it."""
        aliases = [known for known, maker in self.made_by.items() if maker == name]
        return {user for known in aliases for user in known.users} - set(aliases) == {node}

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
            "conv1d": self._conv,
            "conv2d": self._conv,
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "relu": self._relu,
            "argmax": self._argmax,
            "add": self._sum,
            "cat": self._concat,
            "max_pool1d": self._pool,
            "max_pool2d": self._pool,
            "avg_pool1d": self._pool,
            "avg_pool2d": self._pool,
            "adaptive_avg_pool1d": self._global_pool,
            "adaptive_avg_pool2d": self._global_pool,
            "mean": self._mean,
            "flatten": self._flatten,
            "view": self._flatten,
            "reshape": self._flatten,
            "squeeze": self._flatten,
            "slice": self._slice,
            "pad": self._pad,
            "dropout": self._dropout,
            "contiguous": self._identity,
            "alias": self._identity,
        }
        if not full.startswith("aten.") or name not in handlers:
            raise self._refuse(node, f"operation '{full}'")
        if self.argmax:
            raise self._refuse(node, f"operation '{full}' behind an argmax")
        arguments = self._arguments(node)
        if name not in ("cat", "slice", "pad"):
            arguments["input"] = self._source(node, arguments.get("input", arguments.get("self")))
        handlers[name](node, arguments)

    def _parameter(self, node: fx.Node, value: Any) -> str | None:
        if value is None:
            return None
        name = self.names.get(value.name)
        if name is None:
            raise self._refuse(node, "a weight or bias that is not a parameter of the model")
        return name

    def _layer_name(self, node: fx.Node, weight: str) -> str:
        module = weight.rpartition(".")[0]
        if any(op.weight == weight for op in self.ops.values()):
            raise self._refuse(node, f"layer '{module}' used twice")
        return self._unique((module or weight).replace(".", "_"))

    def _conv(self, node: fx.Node, a: dict[str, Any]) -> None:
        weight = self._parameter(node, a["weight"])
        if weight is None:
            raise self._refuse(node, "a convolution without a weight")
        shape = a["weight"].meta["val"].shape[2:]
        kernel, dilation = _window(shape, shape), _window(a["dilation"], shape)
        self._add(
            node,
            Op(
                name=self._layer_name(node, weight), kind=Kind.CONV2D, inputs=(self.made_by[a["input"]],),
                in_shape=self._map(a["input"]), out_shape=self._map(node),
                weight=weight, bias=self._parameter(node, a["bias"]), kernel=kernel, stride=_window(a["stride"], shape),
                padding=_padding(a["padding"], kernel, dilation, shape), dilation=dilation, groups=int(a["groups"]),
            ),
        )  # fmt: skip

    def _linear(self, node: fx.Node, a: dict[str, Any]) -> None:
        weight = self._parameter(node, a["weight"])
        source = self._shape(a["input"])
        if weight is None or len(source) != 1:
            raise self._refuse(node, f"a linear layer on an input of shape {source}; flatten it to (N, features) first")
        name = self.made_by[a["input"]]
        before = self.ops[name].out_shape if name in self.ops else source
        self._add(
            node,
            Op(
                name=self._layer_name(node, weight), kind=Kind.LINEAR, inputs=(name,), in_shape=before,
                out_shape=self._shape(node), weight=weight, bias=self._parameter(node, a["bias"]),
            ),
        )  # fmt: skip

    def _batch_norm(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a["training"]:
            raise self._refuse(node, "BatchNorm in training mode")
        mean, var = self._parameter(node, a["running_mean"]), self._parameter(node, a["running_var"])
        name = self.made_by[a["input"]]
        last = self.ops.get(name)
        if last is None or last.weight is None or last.relu or last.norm or mean is None or var is None:
            raise self._refuse(node, "BatchNorm that does not follow a convolution or linear layer directly")
        if not self._alone(node, name):
            raise self._refuse(node, f"BatchNorm of layer '{name}', whose result without it is used as well")
        norm = Norm(self._parameter(node, a["weight"]), self._parameter(node, a["bias"]), mean, var, float(a["eps"]))
        self._add(node, replace(last, norm=norm))

    def _relu(self, node: fx.Node, a: dict[str, Any]) -> None:
        # A maximum and a ReLU commute, so a ReLU behind a max pool belongs to the layer before the pool.
        name, reader = self.made_by[a["input"]], node
        while True:
            op = self.ops.get(name)
            if op is None or (op.weight is None and op.kind not in (Kind.MAX_POOL2D, Kind.ADD)):
                raise self._refuse(node, "ReLU that does not follow a convolution or linear layer or a sum")
            if op.relu:
                break
            if not self._alone(reader, name):
                raise self._refuse(node, f"ReLU of layer '{name}', whose result without it is used as well")
            if op.kind is not Kind.MAX_POOL2D:
                self.ops[name] = replace(op, relu=True)
                break
            name, reader = op.inputs[0], self.pool_nodes[name]
        self.made_by[node] = self.made_by[a["input"]]

    def _argmax(self, node: fx.Node, a: dict[str, Any]) -> None:
        shape = self._shape(a["input"])
        axes = len(shape) + 1
        if a["dim"] is None or a["dim"] % axes != 1 or math.prod(shape) != shape[0]:
            raise self._refuse(
                node, f"argmax over the axis {a['dim']}; only the outputs of a vector, axis 1, are known"
            )
        source = self.ops.get(self.made_by[a["input"]])
        if source is None or source.kind is Kind.CONCAT:
            raise self._refuse(node, "argmax of something else than a layer's result")
        self.made_by[node] = source.name
        self.argmax = True

    def _sum(self, node: fx.Node, a: dict[str, Any]) -> None:
        other = a["other"]
        if not isinstance(other, fx.Node) or a.get("alpha", 1) != 1:
            raise self._refuse(node, f"operation '{node.target}' with a number")
        pair = (a["input"], self._source(node, other))
        if any(self._shape(source) != self._shape(node) for source in pair):
            raise self._refuse(node, "a sum of tensors of different shapes")
        self._join(node, Kind.ADD, "add", pair)

    def _concat(self, node: fx.Node, a: dict[str, Any]) -> None:
        axes = len(self._shape(node)) + 1
        sources = tuple(self._source(node, value) for value in a["tensors"])
        if a["dim"] % axes != 1 or len(sources) < 2:
            raise self._refuse(node, f"torch.cat along axis {a['dim']}; only the channels, axis 1, are known")
        self._join(node, Kind.CONCAT, "concat", sources)

    def _join(self, node: fx.Node, kind: Kind, stem: str, sources: tuple[fx.Node, ...]) -> None:
        inputs = tuple(self.made_by[source] for source in sources)
        if INPUT in inputs or any(self._reads_input(name) for name in inputs):
            raise self._refuse(node, f"the network's input in '{node.target}'; put a convolution between them")
        if any(self.ops[name].out_shape != self._map(source) for name, source in zip(inputs, sources, strict=True)):
            raise self._refuse(node, f"flattened maps in '{node.target}'; join the maps and flatten the result")
        number = 1 + sum(op.kind is kind for op in self.ops.values())
        name = self._unique(f"{stem}{number}")
        self._add(node, Op(name, kind, inputs, self._map(sources[0]), self._map(node)))

    def _reads_input(self, name: str) -> bool:
        """Return whether layer ``name`` is a pooling of the network's input."""
        op = self.ops[name]
        return op.kind in POOLINGS and (op.inputs[0] == INPUT or self._reads_input(op.inputs[0]))

    def _pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        source = a["input"]
        shape = self._shape(source)[1:]
        kernel = _window(a["kernel_size"], shape)
        plain = set(_list(a["padding"])) == {0} and not a["ceil_mode"]
        plain = plain and set(_list(a.get("dilation", 1))) == {1} and a.get("divisor_override") is None
        if not plain or not shape:
            raise self._refuse(node, "a pooling with padding, dilation, ceil_mode or divisor_override")
        kind = Kind.MAX_POOL2D if "max_pool" in str(node.target) else Kind.AVG_POOL2D
        self._add_pool(node, source, kind, kernel, _window(a["stride"], shape) if a["stride"] else kernel)

    def _global_pool(self, node: fx.Node, a: dict[str, Any]) -> None:
        shape = self._shape(a["input"])
        if set(_list(a["output_size"])) != {1}:
            raise self._refuse(node, f"adaptive average pooling to {a['output_size']}")
        size = _window(shape[1:], shape[1:])
        self._add_pool(node, a["input"], Kind.AVG_POOL2D, size, size)

    def _mean(self, node: fx.Node, a: dict[str, Any]) -> None:
        shape = self._shape(a["input"])
        axes = sorted(int(axis) % (len(shape) + 1) for axis in a.get("dim") or [])
        if len(shape) < 2 or axes != list(range(2, len(shape) + 1)):
            raise self._refuse(node, f"a mean over the axes {a.get('dim')}; only all positions of a map are known")
        size = _window(shape[1:], shape[1:])
        self._add_pool(node, a["input"], Kind.AVG_POOL2D, size, size)

    def _add_pool(
        self, node: fx.Node, source: fx.Node, kind: Kind, kernel: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        number = 1 + sum(op.kind in POOLINGS for op in self.ops.values())
        name, before = self._unique(f"pool{number}"), self._map(source)
        height, width = ((size - k) // s + 1 for size, k, s in zip(before[1:], kernel, stride, strict=True))
        inputs = (self.made_by[source],)
        self._add(node, Op(name, kind, inputs, before, (before[0], height, width), kernel=kernel, stride=stride))
        self.pool_nodes[name] = node

    def _flatten(self, node: fx.Node, a: dict[str, Any]) -> None:
        if len(self._shape(node)) != 1 and self._shape(node) != self._shape(a["input"]):
            raise self._refuse(node, f"a change of shape to {self._shape(node)}; only (N, features) is known")
        self._identity(node, a)

    def _slice(self, node: fx.Node, a: dict[str, Any]) -> None:
        source, selection = self._selected(node, a["self"])
        shape = a["self"].meta["val"].shape
        axis, step = int(a["dim"]) % len(shape), int(a["step"])
        whole = not a["start"] and (a["end"] is None or a["end"] >= shape[axis])
        known = whole and (step == 1 or axis >= 2)
        found = selection.strided(axis - len(shape), step) if known else None
        self._extend(node, source, found, "than take x[:, :, ::n, ::n]")

    def _pad(self, node: fx.Node, a: dict[str, Any]) -> None:
        source, selection = self._selected(node, a["self"])
        zeros = a["mode"] == "constant" and not a["value"]
        found = selection.padded([int(n) for n in a["pad"]], len(self._shape(source)) + 1) if zeros else None
        self._extend(node, source, found, "than add channels of zeros")

    def _selected(self, node: fx.Node, value: Any) -> tuple[fx.Node, Selection]:
        """Return the result of a layer that ``value`` selects from, and how."""
        if isinstance(value, fx.Node) and value in self.selections:
            return self.selections[value]
        return self._source(node, value), Selection()

    def _extend(self, node: fx.Node, source: fx.Node, selection: Selection | None, limit: str) -> None:
        if selection is None or len(self._shape(source)) < 2:
            raise self._refuse(node, f"operation '{node.target}' that does more {limit}")
        if self.made_by[source] == INPUT or self._reads_input(self.made_by[source]):
            raise self._refuse(
                node, f"operation '{node.target}' on the network's input; put a convolution between them"
            )
        self.selections[node] = source, selection

    def _select(self, node: fx.Node) -> None:
        """Add the layer that a selection stands for."""
        source, selection = self.selections[node]
        if selection.identity:
            self.made_by[node] = self.made_by[source]
            return
        name = self._unique(f"select{1 + len(self.constants)}")
        # No module can have such a name.
        weight = f"<{name}>.weight"
        before = self._map(source)
        self.constants[weight] = selection.weight(before[0], source.meta["val"].dtype)
        inputs = (self.made_by[source],)
        # The ReLU changes no value then, and says that the codes have no sign.
        relu = self._never_negative(inputs[0])
        self._add(
            node,
            Op(name, Kind.CONV2D, inputs, before, self._map(node), weight, relu=relu, stride=selection.stride),
        )

    def _never_negative(self, name: str) -> bool:
        op = self.ops[name]
        if op.kind in POOLINGS or op.kind is Kind.CONCAT:
            return all(self._never_negative(before) for before in op.inputs)
        return op.relu

    def _dropout(self, node: fx.Node, a: dict[str, Any]) -> None:
        if a["train"]:
            raise self._refuse(node, "dropout in training mode")
        self._identity(node, a)

    def _identity(self, node: fx.Node, a: dict[str, Any]) -> None:
        """Accept an operation that changes no value."""
        self.made_by[node] = self.made_by[a["input"]]


def _list(value: Any) -> list[int]:
    """Return an int or a list of ints as a list."""
    return [value] if isinstance(value, int) else [int(v) for v in value]


def _window(value: Any, shape: Sequence[Any]) -> tuple[int, int]:
    """Return an int or a list as ``(y, x)`` for a window over positions of ``shape``; a sequence has height 1."""
    items = _list(value)
    if len(shape) == 1:
        return 1, items[0]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _padding(
    value: Any, kernel: tuple[int, int], dilation: tuple[int, int], shape: Sequence[Any]
) -> tuple[int, int, int, int]:
    """Return ``(top, left, bottom, right)`` of a padding argument; ``same`` puts the odd one below and right."""
    if value == "valid":
        return 0, 0, 0, 0
    if value == "same":
        y, x = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
        return y // 2, x // 2, y - y // 2, x - x // 2
    top, left = (0, _list(value)[0]) if len(shape) == 1 else _window(value, shape)
    return top, left, top, left


def _raising_line(error: BaseException) -> str:
    """Return `` at FILE:LINE (code)`` of the user's innermost line that an error of torch.export came through."""
    foreign = (str(Path(torch.__file__).parent), sysconfig.get_path("stdlib"), __file__)
    chain: BaseException | None = error
    while chain is not None:
        frames = traceback.extract_tb(chain.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(foreign)]
        if own:
            return f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})"
        chain = chain.__cause__ or chain.__context__
    return ""


def _source_line(node: fx.Node) -> str:
    """Return `` at FILE:LINE (code)`` of the user's innermost line that made the node."""
    trace = node.meta.get("stack_trace") or ""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n?\s*([^\n]*)', trace)
    if not found:
        return ""
    own = [entry for entry in found if "/torch/nn/" not in entry[0]] or found
    file, line, code = own[-1]
    return f" at {file}:{line} ({code.strip()})"
