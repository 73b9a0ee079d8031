"""What an ONNX tensor is while a graph is read: a constant, or float32 functions of integers that await their codes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroskip.compiler.importers.float_functions import Quantizer, Step
from zeroskip.compiler.importers.onnx_layout import Layout
from zeroskip.compiler.ir import Kind

__all__ = ["Constant", "Flow", "IntegerInput", "Joined", "Levels", "MaxPool", "Product", "RawInput", "Stored", "Sum"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Levels:
    """Integers behind a quantized constant: its values are ``levels * scale``.

    ``scale`` has the rank of ``levels`` and broadcasts against it; ``bits``, ``narrow`` and ``binary`` are what the
    quantizer declares.
    """

    levels: IntArray
    scale: NDArray[np.float32]
    bits: int
    narrow: bool = False
    binary: bool = False


@dataclass(frozen=True, eq=False)
class Constant:
    """An array known when the graph is read."""

    array: NDArray[Any]
    quantized: Levels | None = None


@dataclass(frozen=True)
class RawInput:
    """The network's input as float32, before anything quantizes it."""


@dataclass(frozen=True)
class IntegerInput:
    """The network's input as integers whose scale stands in the first DequantizeLinear."""


@dataclass(frozen=True)
class Stored:
    """The codes of a tensor of the model: ``value = scale * (code - zero_point)``, codes ``lo`` to ``hi``."""

    tensor: str
    scale: float
    zero_point: int
    lo: int
    hi: int


@dataclass(frozen=True, eq=False)
class Product:
    """Sums of weights and stored codes less their zero point; ``value = (sum + bias) * scale``, exact, then float32.

    ``weight`` is int64 ``(O, ...)`` as a layer of ``kind`` has it, ``bias`` int64 ``(O,)`` and ``scale`` float64
    ``(O,)``; ``settings`` are the window settings of the layer. ``average`` is the number of elements that the first
    step divides by where the product is an average pooling, otherwise 0. ``exact`` says whether a framework's float32
    sums are exact whatever their order.
    """

    node: str
    kind: Kind
    source: Stored
    weight: IntArray
    scale: NDArray[np.float64]
    bias: IntArray
    bits: int
    narrow: bool = False
    binary: bool = False
    exact: bool = True
    average: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sum:
    """The float32 sum of two stored tensors."""

    node: str
    first: Stored
    second: Stored


@dataclass(frozen=True)
class MaxPool:
    """A max pooling between the steps of a flow: ``after`` is how many stand before it, ``shape`` what it reads."""

    node: str
    after: int
    shape: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Flow:
    """A tensor that is computed: ``steps`` of the integers of ``source``, and codes where ``quantizer`` makes them.

    ``shape`` is ``(C, H, W)`` or ``(F,)``; ``layout`` says how the ONNX tensor orders it. ``pad`` is a border of zeros
    around the map that the next window must take. ``integer``: the ONNX tensor holds the codes themselves. ``label`` is
    the ONNX tensor that the quantizer writes, before any layout; ``factors`` multiply the values of the codes.
    """

    name: str
    source: RawInput | IntegerInput | Stored | Product | Sum
    shape: tuple[int, ...]
    layout: Layout
    steps: tuple[Step, ...] = ()
    quantizer: Quantizer | None = None
    pool: MaxPool | None = None
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    integer: bool = False
    label: str = ""
    factors: tuple[Step, ...] = ()

    def then(self, name: str, step: Step) -> Flow:
        """Return the flow after one more step; codes stay codes behind a factor, else become what they stand for."""
        if self.quantizer is not None and step.factor is not None:
            return replace(self, name=name, factors=(*self.factors, step))
        flow = self.unquantized()
        return replace(flow, name=name, steps=(*flow.steps, step))

    def unquantized(self) -> Flow:
        """Return the flow with its quantizer and the factors behind it as steps."""
        if self.quantizer is None:
            return self
        steps = (*self.steps, self.quantizer.step(), *self.factors)
        return replace(self, steps=steps, quantizer=None, factors=())


@dataclass(frozen=True, eq=False)
class Joined:
    """A concatenation along the channels; what follows is done to every part."""

    name: str
    node: str
    parts: tuple[Flow, ...]
    shape: tuple[int, ...]
    layout: Layout
    integer: bool = False
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
