"""The quantized network in exact integer torch arithmetic, one of the independent readings of the integer rules."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.graph import Kind

__all__ = ["Codes", "IntegerLayer", "IntegerNetwork", "Rounding", "scaled"]

# float32 sums are exact below 2^24, float64 sums below 2^53, int64 products below 2^63.
_EXACT_SINGLE = 1 << 24
_EXACT_FLOAT = 1 << 53
_EXACT_INT = 1 << 62
_TFLITE_FRACTION = 31


class Rounding(enum.Enum):
    """How an accumulator becomes a code; networks made here round half up, the others come from elsewhere."""

    FLOOR = "floor"
    HALF_UP = "half_up"
    HALF_AWAY = "half_away"
    HALF_EVEN = "half_even"
    TFLITE_DOUBLE = "tflite_double"
    TFLITE_SINGLE = "tflite_single"
    THRESHOLDS = "thresholds"


def scaled(value: Tensor, multiplier: Tensor, shift: Tensor, rounding: Rounding) -> Tensor:
    """Return ``value * multiplier / 2^shift`` (int64, broadcasting) as an integer, rounded by ``rounding``."""
    product, one = value * multiplier, torch.ones_like(shift)
    divisor = one << shift
    below = torch.div(product, divisor, rounding_mode="floor")
    rest = product - below * divisor
    if rounding is Rounding.FLOOR:
        return below
    if rounding in (Rounding.HALF_UP, Rounding.TFLITE_SINGLE):
        return below + (2 * rest >= divisor).to(torch.int64)
    if rounding is Rounding.HALF_EVEN:
        return below + ((2 * rest > divisor) | ((2 * rest == divisor) & (below % 2 == 1))).to(torch.int64)
    if rounding is Rounding.HALF_AWAY:
        return below + ((2 * rest > divisor) | ((2 * rest == divisor) & (product > 0))).to(torch.int64)
    if rounding is Rounding.TFLITE_DOUBLE:
        fraction = shift.clamp(max=_TFLITE_FRACTION)
        high = scaled(value, multiplier, fraction, Rounding.HALF_UP)
        return scaled(high, torch.ones_like(high), shift - fraction, Rounding.HALF_AWAY)
    raise ValueError(f"Rounding must be a shift, not '{rounding.value}'")


@dataclass(frozen=True)
class Codes:
    """A tensor of the integer network: sample shape and codes; real value = ``scale * (code - zero_point)``."""

    name: str
    shape: tuple[int, ...]
    bits: int
    signed: bool
    scale: float
    zero_point: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the codes."""
        return torch.int8 if self.signed else torch.uint8

    @property
    def magnitude(self) -> int:
        """Largest ``|code|``."""
        return 1 << (self.bits - 1) if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One layer in integers.

    Result: ``clamp(((acc + bias) * multiplier, shifted right with rounding) + zero point of the output)``;
    ``weight`` int16 ``OIHW`` or ``OI``, ``bias`` int32 ``[O]``, ``multiplier`` int32 and ``shift`` int8 ``[O]`` or
    ``[1]``; None for poolings. ``padding`` is ``(top, left, bottom, right)``. With ``THRESHOLDS`` (int32 ``[O, T]``)
    the result is the output's smallest code plus the number of thresholds that the accumulator reaches.

    An addition scales ``(code - zero point) << left_shift`` of its two inputs by its first two multipliers and shifts,
    and their sum by the third. A concatenation joins codes along the channels. An argmax gives the number of the
    largest code, the lowest of equal ones, as bytes, the lowest first.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    output: str
    weight: Tensor | None = None
    bias: Tensor | None = None
    multiplier: Tensor | None = None
    shift: Tensor | None = None
    clamp: tuple[int, int] = (0, 255)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    rounding: Rounding = Rounding.HALF_UP
    left_shift: int = 0
    thresholds: Tensor | None = None

    @property
    def input(self) -> str:
        """Name of the first input tensor, the only one of most kinds."""
        return self.inputs[0]


class IntegerNetwork:
    """Integer layers, each behind those that write what it reads; ``run`` returns every tensor.

    Sums run in float32 where the bound ``max|code| * sum|w|`` stays below 2^24, else in float64, where it must stay
    below 2^53 (checked here for every layer); the rest in int64.
    """

    def __init__(self, layers: tuple[IntegerLayer, ...], tensors: Mapping[str, Codes]) -> None:
        self.layers = layers
        self.tensors = dict(tensors)
        self._types: dict[str, torch.dtype] = {}
        for layer in layers:
            self._check_bounds(layer)

    def _check_bounds(self, layer: IntegerLayer) -> None:
        if layer.kind is Kind.ADD and layer.multiplier is not None and layer.shift is not None:
            scales = [(int(m), int(s)) for m, s in zip(layer.multiplier, layer.shift, strict=True)]
            spans = [(2 * self.tensors[name].magnitude) << layer.left_shift for name in layer.inputs]
            products = [span * m for span, (m, _) in zip(spans, scales[:2], strict=True)]
            total = sum((product >> s) + 1 for product, (_, s) in zip(products, scales[:2], strict=True))
            if max(*products, total * scales[2][0]) >= _EXACT_INT:
                raise PruningError(f"Layer '{layer.name}' overflows: its sum reaches {total} with multipliers {scales}")
        if layer.weight is None or layer.bias is None:
            return
        sums = layer.weight.to(torch.int64).abs().flatten(1).sum(1)
        bound = int(sums.max()) * self.tensors[layer.input].magnitude
        self._types[layer.name] = torch.float32 if bound < _EXACT_SINGLE else torch.float64
        total = bound + int(layer.bias.to(torch.int64).abs().max())
        largest = 1 if layer.multiplier is None else int(layer.multiplier.max())
        if bound >= _EXACT_FLOAT or total * largest >= _EXACT_INT:
            raise PruningError(f"Layer '{layer.name}' overflows: accumulator bound {total} with multiplier {largest}")

    def run(self, codes: Tensor) -> dict[str, Tensor]:
        """Return the codes of the input and of every layer's output for input ``codes`` (N, *shape)."""
        first = self.tensors[self.layers[0].input]
        if tuple(codes.shape[1:]) != first.shape or codes.dtype != first.dtype:
            shape = ", ".join(map(str, first.shape))
            raise PruningError(
                f"Input codes must be {first.dtype} of shape (N, {shape}), not {codes.dtype} {tuple(codes.shape)}"
            )
        values = {first.name: codes}
        for layer in self.layers:
            out = self.tensors[layer.output]
            result = self._layer(layer, [values[name] for name in layer.inputs])
            values[layer.output] = result.to(out.dtype).reshape(-1, *out.shape)
        return values

    def predict(self, codes: Tensor, batch: int = 1000) -> Tensor:
        """Return the index of the largest output of every sample (the lower index on a tie)."""
        last = self.layers[-1].input if self.layers[-1].kind is Kind.ARGMAX else self.layers[-1].output
        parts = [self.run(codes[i : i + batch])[last].flatten(1).numpy().argmax(1) for i in range(0, len(codes), batch)]
        return torch.cat([torch.from_numpy(part) for part in parts]) if parts else torch.zeros(0, dtype=torch.int64)

    def _layer(self, layer: IntegerLayer, inputs: Sequence[Tensor]) -> Tensor:
        if layer.kind is Kind.ADD:
            return self._add(layer, inputs)
        if layer.kind is Kind.CONCAT:
            return torch.cat(list(inputs), 1)
        codes = inputs[0]
        if layer.kind is Kind.ARGMAX:
            # torch promises nothing of equal values
            number = torch.from_numpy(codes.flatten(1).numpy().argmax(1))
            return number[:, None] >> (8 * torch.arange(self.tensors[layer.output].shape[0])) & 255
        if layer.kind is Kind.MAX_POOL2D:
            top, left, bottom, right = layer.padding
            padded = F.pad(codes.to(torch.float32), (left, right, top, bottom), value=-torch.inf)
            return F.max_pool2d(padded, layer.kernel, layer.stride)
        if layer.kind is Kind.AVG_POOL2D:
            return self._average(layer, codes)
        return self._requantize(layer, self._accumulate(layer, codes))

    def _add(self, layer: IntegerLayer, inputs: Sequence[Tensor]) -> Tensor:
        if layer.multiplier is None or layer.shift is None:
            raise ValueError(f"Layer '{layer.name}' has no multiplier and shift")
        multiplier, shift = layer.multiplier.to(torch.int64), layer.shift.to(torch.int64)
        total = torch.zeros_like(inputs[0], dtype=torch.int64)
        for number, (name, codes) in enumerate(zip(layer.inputs, inputs, strict=True)):
            value = (codes.to(torch.int64) - self.tensors[name].zero_point) * 2**layer.left_shift
            total = total + scaled(value, multiplier[number], shift[number], layer.rounding)
        result = scaled(total, multiplier[2], shift[2], layer.rounding)
        return (result + self.tensors[layer.output].zero_point).clamp(*layer.clamp)

    def _accumulate(self, layer: IntegerLayer, codes: Tensor) -> Tensor:
        if layer.weight is None:
            raise ValueError(f"Layer '{layer.name}' has no weight")
        x, weight = (values.to(self._types[layer.name]) for values in (codes, layer.weight))
        if layer.kind is Kind.LINEAR:
            return F.linear(x.flatten(1), weight).to(torch.int64)
        if any(layer.padding):
            top, left, bottom, right = layer.padding
            x = F.pad(x, (left, right, top, bottom), value=float(self.tensors[layer.input].zero_point))
        return F.conv2d(x, weight, None, layer.stride, 0, layer.dilation, layer.groups).to(torch.int64)

    def _requantize(self, layer: IntegerLayer, acc: Tensor) -> Tensor:
        axes = (1, -1) + (1,) * (acc.dim() - 2)
        if layer.thresholds is not None:
            lo = -self.tensors[layer.output].magnitude if self.tensors[layer.output].signed else 0
            counts = torch.zeros_like(acc)
            for threshold in layer.thresholds.to(torch.int64).T:
                counts += acc >= threshold.reshape(axes)
            return counts + lo
        if layer.bias is None or layer.multiplier is None or layer.shift is None:
            raise ValueError(f"Layer '{layer.name}' has no requantization")
        bias, multiplier, shift = (
            v.to(torch.int64).reshape(axes) for v in (layer.bias, layer.multiplier, layer.shift)
        )  # fmt: skip
        result = scaled(acc + bias, multiplier, shift, layer.rounding)
        return (result + self.tensors[layer.output].zero_point).clamp(*layer.clamp)

    def _average(self, layer: IntegerLayer, codes: Tensor) -> Tensor:
        count = layer.kernel[0] * layer.kernel[1]
        window = codes.to(torch.float64)
        total = F.avg_pool2d(window, layer.kernel, layer.stride, divisor_override=1).to(torch.int64)
        rounded = total.sign() * ((2 * total.abs() + count) // (2 * count))
        return rounded.clamp(*layer.clamp)
