"""A captured network: its layers in order, what each computes in floats, and the tensors they name."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["INPUT", "POOLINGS", "Graph", "Kind", "Norm", "Op", "as_map"]

INPUT = "input"


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
    """One layer: its module's tensors by name, its geometry ``(y, x)``, and the activation function that follows it.

    ``inputs`` names the layers it reads, :data:`INPUT` stands for the network's input. ``clip`` holds the smallest and
    the largest result: ``(0, inf)`` is a ReLU. ``padding`` is ``(top, left, bottom, right)``; shapes are of one sample,
    without the batch axis. Sequences are maps of height 1.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    weight: str | None = None
    bias: str | None = None
    norm: Norm | None = None
    clip: tuple[float, float] = (-math.inf, math.inf)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def module(self) -> str:
        """Name of the module that owns the weight, as in ``named_modules()``."""
        return (self.weight or "").rpartition(".")[0]

    @property
    def relu(self) -> bool:
        """Whether an activation function lets nothing below 0 through."""
        return self.clip[0] >= 0

    @property
    def clips(self) -> bool:
        """Whether an activation function follows."""
        return self.clip != (-math.inf, math.inf)

    def activate(self, y: Tensor) -> Tensor:
        """Return the activation function of ``y``."""
        if self.clip == (0, math.inf):
            return F.relu(y)
        return y.clamp(*self.clip) if self.clips else y

    def evaluate(self, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        """Return the layer's float output; ``weight`` stands in for the module's own."""
        x = inputs[0]
        if self.kind is Kind.ADD:
            return self.activate(x + inputs[1])
        if self.kind is Kind.CONCAT:
            return torch.cat(list(inputs), 1)
        if self.kind is Kind.MAX_POOL2D:
            return F.max_pool2d(self._padded(x, -math.inf), self.kernel, self.stride)
        if self.kind is Kind.AVG_POOL2D:
            return F.avg_pool2d(x, self.kernel, self.stride)
        if weight is None:
            raise ValueError(f"Layer '{self.name}' needs a weight")
        bias = None if self.bias is None else tensors[self.bias]
        if self.kind is Kind.CONV2D:
            top, left, bottom, right = self.padding
            if (top, left) != (bottom, right):
                x, top, left = self._padded(x, 0.0), 0, 0
            y = F.conv2d(x, as_map(weight), bias, self.stride, (top, left), self.dilation, self.groups)
        else:
            y = F.linear(x.flatten(1), weight, bias)
        if self.norm is not None:
            gain, offset = self.norm.affine(tensors)
            axes = (1, -1) + (1,) * (y.dim() - 2)
            y = y * gain.reshape(axes) + offset.reshape(axes)
        return self.activate(y)

    def _padded(self, x: Tensor, value: float) -> Tensor:
        top, left, bottom, right = self.padding
        return F.pad(x, (left, right, top, bottom), value=value) if any(self.padding) else x


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
