"""The quantized network in exact integer torch arithmetic, one of the independent readings of the integer rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroskip.pruning.capture import Kind
from zeroskip.pruning.errors import PruningError

__all__ = ["Codes", "IntegerLayer", "IntegerNetwork"]

# float64 sums are exact below 2^53, int64 products below 2^63.
_EXACT_FLOAT = 1 << 53
_EXACT_INT = 1 << 62


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

    Result: ``clamp(((acc + bias) * multiplier, shifted right rounding half up) + zero point of the output)``;
    ``weight`` int16 ``OIHW`` or ``OI``, ``bias`` int32 ``[O]``, ``multiplier`` int32 and ``shift`` int8 ``[O]`` or
    ``[1]``; None for poolings. ``padding`` is ``(top, left, bottom, right)``.
    """

    name: str
    kind: Kind
    input: str
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


class IntegerNetwork:
    """A chain of integer layers; ``run`` returns every tensor.

    Sums run in float64 where the bound ``max|code| * sum|w|`` stays below 2^53 (checked here for every layer), the rest
    in int64.
    """

    def __init__(self, layers: tuple[IntegerLayer, ...], tensors: Mapping[str, Codes]) -> None:
        self.layers = layers
        self.tensors = dict(tensors)
        for layer in layers:
            self._check_bounds(layer)

    def _check_bounds(self, layer: IntegerLayer) -> None:
        if layer.weight is None or layer.bias is None or layer.multiplier is None:
            return
        sums = layer.weight.to(torch.int64).abs().flatten(1).sum(1)
        bound = int(sums.max()) * self.tensors[layer.input].magnitude
        total = bound + int(layer.bias.to(torch.int64).abs().max())
        if bound >= _EXACT_FLOAT or total * int(layer.multiplier.max()) >= _EXACT_INT:
            raise PruningError(
                f"Layer '{layer.name}' overflows: accumulator bound {total} with multiplier {layer.multiplier.max()}"
            )

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
            result = self._layer(layer, values[layer.input])
            values[layer.output] = result.to(out.dtype).reshape(-1, *out.shape)
        return values

    def predict(self, codes: Tensor, batch: int = 1000) -> Tensor:
        """Return the index of the largest output of every sample (the lower index on a tie)."""
        last = self.layers[-1].output
        parts = [self.run(codes[i : i + batch])[last].flatten(1).numpy().argmax(1) for i in range(0, len(codes), batch)]
        return torch.cat([torch.from_numpy(part) for part in parts]) if parts else torch.zeros(0, dtype=torch.int64)

    def _layer(self, layer: IntegerLayer, codes: Tensor) -> Tensor:
        if layer.kind is Kind.MAX_POOL2D:
            return F.max_pool2d(codes.to(torch.float32), layer.kernel, layer.stride)
        if layer.kind is Kind.AVG_POOL2D:
            return self._average(layer, codes)
        return self._requantize(layer, self._accumulate(layer, codes))

    def _accumulate(self, layer: IntegerLayer, codes: Tensor) -> Tensor:
        if layer.weight is None:
            raise ValueError(f"Layer '{layer.name}' has no weight")
        x, weight = codes.to(torch.float64), layer.weight.to(torch.float64)
        if layer.kind is Kind.LINEAR:
            return F.linear(x.flatten(1), weight).to(torch.int64)
        if any(layer.padding):
            top, left, bottom, right = layer.padding
            x = F.pad(x, (left, right, top, bottom), value=float(self.tensors[layer.input].zero_point))
        return F.conv2d(x, weight, None, layer.stride, 0, layer.dilation, layer.groups).to(torch.int64)

    def _requantize(self, layer: IntegerLayer, acc: Tensor) -> Tensor:
        if layer.bias is None or layer.multiplier is None or layer.shift is None:
            raise ValueError(f"Layer '{layer.name}' has no requantization")
        axes = (1, -1) + (1,) * (acc.dim() - 2)
        bias, multiplier, shift = (
            v.to(torch.int64).reshape(axes) for v in (layer.bias, layer.multiplier, layer.shift)
        )  # fmt: skip
        half = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp(min=0), torch.zeros_like(shift))
        scaled = ((acc + bias) * multiplier + half) >> shift
        return (scaled + self.tensors[layer.output].zero_point).clamp(*layer.clamp)

    def _average(self, layer: IntegerLayer, codes: Tensor) -> Tensor:
        count = layer.kernel[0] * layer.kernel[1]
        window = codes.to(torch.float64)
        total = F.avg_pool2d(window, layer.kernel, layer.stride, divisor_override=1).to(torch.int64)
        rounded = total.sign() * ((2 * total.abs() + count) // (2 * count))
        return rounded.clamp(*layer.clamp)
