"""The intermediate representation: a Model is a chain of integer layers over named tensors."""

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


class Rounding(enum.Enum):
    """Rounding of the right shift in a requantization (ARCHITECTURE section 3)."""

    FLOOR = "floor"
    HALF_UP = "half_up"
    HALF_AWAY = "half_away"


class Grid(enum.Enum):
    """The legal weight levels of a layer with ``b`` bits (ARCHITECTURE section 3)."""

    SIGNED = "signed"
    SYMMETRIC = "symmetric"
    ZERO_EXCLUDED = "zero_excluded"


@dataclass(frozen=True)
class Tensor:
    """An activation tensor of one sample.

    ``shape`` is ``(C, H, W)`` or ``(F,)``; the real value of a code is ``scale * (code - zero_point)``.
    """

    name: str
    shape: tuple[int, ...]
    bits: int = 8
    signed: bool = False
    scale: float = 1.0
    zero_point: int = 0

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

    ``weight`` has shape ``OIHW`` (conv2d; depthwise ``O1HW`` with ``groups == O``) or ``OI`` (linear; ``I`` in torch's
    C,H,W order when the input is an image), int16, 0 = pruned. ``bias`` is int32 ``[O]`` in accumulator units,
    ``multiplier`` int32 and ``shift`` int8, shape ``[O]`` or ``[1]``.
    Result: ``clamp(((acc + bias) * multiplier, rounded shift right) + zero_point of the output, *clamp)``.
    For ``MAX_POOL2D`` and ``AVG_POOL2D`` weight, bias, multiplier and shift are None; a max pool passes codes through,
    an average divides the sum of the codes by the window size, half away from zero, and clamps.
    """

    name: str
    kind: Kind
    input: str
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

    @property
    def nonzero(self) -> int:
        """Number of nonzero weights."""
        return 0 if self.weight is None else int(np.count_nonzero(self.weight))


@dataclass(frozen=True, eq=False)
class Model:
    """A network of integer layers in execution order.

    ``tensors`` holds every tensor by name; ``golden`` maps the names of the input, the output and any layer's output to
    int codes with a leading sample axis. ``metadata`` is the artifact's header as it was read.
    """

    name: str
    layers: tuple[Layer, ...]
    tensors: Mapping[str, Tensor]
    input: str
    output: str
    golden: Mapping[str, IntArray] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)
