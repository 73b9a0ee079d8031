"""The intermediate representation: a Model is a graph of integer layers over named tensors, in topological order."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "Kind", "Layer", "Model", "Pool", "Rounding", "Tensor"]

IntArray = NDArray[Any]


class Kind(enum.Enum):
    """What a layer computes."""

    CONV2D = "conv2d"
    LINEAR = "linear"
    MAX_POOL2D = "max_pool2d"
    AVG_POOL2D = "avg_pool2d"
    ADD = "add"
    CONCAT = "concat"
    ARGMAX = "argmax"

    @property
    def runs(self) -> bool:
        """Whether the array runs it: a concatenation is a layout, an argmax watches the results of the layer before."""
        return self not in (Kind.CONCAT, Kind.ARGMAX)


class Rounding(enum.Enum):
    """How an accumulator becomes a code: the rounding of the right shift, or a threshold table.

    The formulas are at :func:`zeroskip.compiler.reference.rescale`.
    """

    FLOOR = "floor"
    HALF_UP = "half_up"
    HALF_AWAY = "half_away"
    HALF_EVEN = "half_even"
    TFLITE_DOUBLE = "tflite_double"
    TFLITE_SINGLE = "tflite_single"
    THRESHOLDS = "thresholds"


class Grid(enum.Enum):
    """The legal weight levels of a layer with ``b`` bits (ARCHITECTURE section 3).

    ``BINARY`` (1 bit) has -1 and 1 and no pruned position, ``TERNARY`` (2 bits) -1, 0 and 1, ``CODEBOOK`` the entries
    of the layer's codebook.
    """

    SIGNED = "signed"
    SYMMETRIC = "symmetric"
    ZERO_EXCLUDED = "zero_excluded"
    BINARY = "binary"
    TERNARY = "ternary"
    CODEBOOK = "codebook"


@dataclass(frozen=True)
class Tensor:
    """An activation tensor of one sample.

    ``shape`` is ``(C, H, W)`` or ``(F,)``; the real value of a code is ``scale * (code - zero_point)``.
    ``boundaries`` are given for an input whose floats become codes by another rule than ``clamp(half_even(x / scale) +
    zero_point)``: the smallest float of each code but the lowest, ascending.
    """

    name: str
    shape: tuple[int, ...]
    bits: int = 8
    signed: bool = False
    scale: float = 1.0
    zero_point: int = 0
    boundaries: tuple[float, ...] = ()

    @property
    def lo(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Pool:
    """A max pooling fused into the layer before it: window and stride ``(y, x)``, no padding."""

    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """One integer layer.

    ``inputs`` names the tensors it reads: two for ``ADD``, two or more for ``CONCAT``, otherwise one. ``weight`` has
    shape ``OIHW`` (conv2d; depthwise ``O1HW`` with ``groups == O``) or ``OI`` (linear; ``I`` in torch's C,H,W order
    when the input is an image), int16, 0 = pruned. ``bias`` is int32 ``[O]`` in accumulator units, ``multiplier`` int32
    and ``shift`` int8, shape ``[O]`` or ``[1]``.
    Result: ``clamp(((acc + bias) * multiplier, rounded shift right) + zero_point of the output, *clamp)``.

    With rounding ``THRESHOLDS`` there are no multiplier and shift and the bias is 0; ``thresholds`` is int32
    ``[O, T]``, each row ascending, and the result is the output's smallest code plus the number of thresholds
    ``<= acc``.

    ``MAX_POOL2D``, ``AVG_POOL2D`` and ``CONCAT`` have no arrays: a max pool and a concatenation (along the first axis)
    pass codes through, an average divides the sum of the codes by the window size, half away from zero, and clamps.

    ``ADD`` has ``multiplier`` and ``shift`` of shape ``[3]``, for its two inputs and its output, and ``left_shift``:
    ``clamp(rescale2(rescale0((a - zp_a) << left_shift) + rescale1((b - zp_b) << left_shift)) + zp_out, *clamp)``.

    ``ARGMAX`` has no arrays and ends a network: it gives the number of the largest code of a vector, the lowest of
    equal ones, as :func:`zeroskip.compiler.argmax.index_tensor` holds it.

    ``codebook`` is int16 ``[2 to 256]`` with entry 0 = 0 on grid ``CODEBOOK``, where ``weight`` holds the levels and
    ``weight_bits`` are the bits of an index; None on the other grids.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    output: str
    weight: IntArray | None = None
    bias: IntArray | None = None
    multiplier: IntArray | None = None
    shift: IntArray | None = None
    rounding: Rounding = Rounding.HALF_UP
    clamp: tuple[int, int] = (0, 255)
    weight_bits: int = 8
    grid: Grid = Grid.SIGNED
    structure: Mapping[str, Any] = field(default_factory=dict)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pool: Pool | None = None
    left_shift: int = 0
    thresholds: IntArray | None = None
    codebook: IntArray | None = None

    @property
    def input(self) -> str:
        """Name of the first input tensor, the only one of most kinds."""
        return self.inputs[0]

    @property
    def nonzero(self) -> int:
        """Number of nonzero weights."""
        return 0 if self.weight is None else int(np.count_nonzero(self.weight))


@dataclass(frozen=True, eq=False)
class Model:
    """A network of integer layers in execution order: a layer stands behind those that write what it reads.

    ``tensors`` holds every tensor by name; ``golden`` maps the names of the input, the output and any layer's output to
    int codes with a leading sample axis. ``metadata`` is the artifact's header as it was read. ``kept_channels`` names,
    for every tensor that lost channels in a pass, those that are left, by their numbers in the imported network.
    """

    name: str
    layers: tuple[Layer, ...]
    tensors: Mapping[str, Tensor]
    input: str
    output: str
    golden: Mapping[str, IntArray] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kept_channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def results(self) -> str:
        """Name of the tensor that the array writes last: the output, or what an argmax at the end reads."""
        last = self.layers[-1]
        return last.input if last.kind is Kind.ARGMAX else self.output

    def producer(self, tensor: str) -> Layer | None:
        """Return the layer that writes ``tensor``, None for the network's input."""
        return next((layer for layer in self.layers if layer.output == tensor), None)

    def readers(self, tensor: str) -> tuple[Layer, ...]:
        """Return the layers that read ``tensor``; a layer that reads it twice stands in the result twice."""
        return tuple(layer for layer in self.layers for name in layer.inputs if name == tensor)
