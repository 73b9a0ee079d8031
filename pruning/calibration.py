"""Scales of a captured network: activation ranges of least squared error, weight scales, power-of-two ratios."""

from __future__ import annotations

import fnmatch
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroskip.pruning.errors import PruningError, nearest
from zeroskip.pruning.graph import POOLINGS, Graph, Kind, Op
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.quantizers import Scale, Weights, as_factor, channel_scales, fake_quantize, search_scale

__all__ = ["Activation", "Plan", "calibrate", "fake_quant_forward", "output_name"]

_log = logging.getLogger(__name__)
_VALUES = 200_000
_CANDIDATES = 121
_LOWEST = 0.4


@dataclass(frozen=True)
class Activation:
    """The codes of a tensor: real value = ``scale * (code - offset)``.

    ``offset`` is the code of real 0: 0 except at an image input, where ``mean * range`` may lie between two codes; a
    padded layer needs it whole.
    """

    bits: int
    signed: bool
    scale: float
    offset: float = 0.0

    @property
    def lo(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    def limits(self, lo: float, hi: float) -> tuple[int, int]:
        """Return the smallest and the largest code of results that an activation function keeps in ``lo`` to ``hi``."""
        least = self.lo if lo == -math.inf else math.floor(lo / self.scale + 0.5)
        most = self.hi if hi == math.inf else math.floor(hi / self.scale + 0.5)
        return min(max(least, self.lo), self.hi), min(max(most, self.lo), self.hi)

    def fake(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded half up to the codes and clamped, as real values, with a straight-through gradient."""
        rounded: Tensor = _Rounded.apply(x, self.scale, self.lo, self.hi)  # type: ignore[no-untyped-call]
        return rounded


class _Rounded(torch.autograd.Function):
    """The rounding of :meth:`Activation.fake` in one pass over memory a direction, where torch's operators take ten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, lo: int, hi: int) -> Tensor:
        codes = torch.div(x, scale).add_(0.5).floor_()
        inside = codes.clamp(lo, hi)
        ctx.save_for_backward(inside == codes)
        return inside.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient * ctx.saved_tensors[0], None, None, None


@dataclass(frozen=True)
class Plan:
    """Everything a network's quantization fixes before fine-tuning: grids and scales by layer, codes by tensor.

    ``activations`` maps ``input`` and every layer's name to the codes of its output.
    """

    source: Input | None
    power_of_two: bool
    grids: Mapping[str, Weights]
    weight_scales: Mapping[str, Scale]
    activations: Mapping[str, Activation]


def output_name(graph: Graph, op: Op) -> str:
    """Return the name of a layer's output tensor: its own, ``output`` for the last that no argmax follows."""
    return "output" if op is graph.ops[-1] and not graph.argmax else op.name


def _grids(graph: Graph, weights: int | Mapping[str, int]) -> dict[str, Weights]:
    """Return each layer's weight grid; a mapping goes from layer name or glob to bits and must cover all layers."""
    ops = [op for op in graph.ops if op.weight]
    if isinstance(weights, int):
        return {op.name: Weights.of_bits(weights) for op in ops}
    grids: dict[str, Weights] = {}
    for pattern, bits in sorted(weights.items(), key=lambda item: item[0] in {op.module for op in ops}):
        matches = [op for op in ops if fnmatch.fnmatchcase(op.module, pattern)]
        if not matches:
            raise PruningError(
                f"No layer is called '{pattern}'; the nearest are: {nearest(pattern, [op.module for op in ops])}"
            )
        grids |= {op.name: Weights.of_bits(bits) for op in matches}
    missing = [op.module for op in ops if op.name not in grids]
    if missing:
        raise PruningError(f"weights names no bits for layer '{missing[0]}'; add it or a glob such as '*'")
    return grids


def _sampled(values: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return at most 200,000 evenly spread values, the largest magnitude among them."""
    flat = values.detach().reshape(-1)
    stride = max(1, math.ceil(flat.numel() / _VALUES))
    picked = flat[::stride].to(torch.float64).numpy()
    return np.append(picked, float(flat[flat.abs().argmax()]))


def _mse(values: np.ndarray[tuple[int], np.dtype[np.float64]], form: Activation) -> float:
    codes = np.clip(np.floor(values / form.scale + 0.5), form.lo, form.hi)
    return float(np.square(values - codes * form.scale).mean())


def _best(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], bits: int, signed: bool, step: float | None
) -> Activation:
    """Return the codes of least squared error; with ``step`` the scale is ``step * 2^S`` with a whole S >= 0."""
    hi = Activation(bits, signed, 1.0).hi
    top = float(np.abs(values).max())
    if step is not None:
        middle = math.log2(top / hi / step) if top > 0 else 0.0
        shifts = {max(0, math.floor(middle) + d) for d in (-2, -1, 0, 1)}
        scales = [step * 2.0**shift for shift in sorted(shifts)]
    elif top == 0:
        return Activation(bits, signed, 1.0)
    else:
        scales = [top / hi * (_LOWEST + (1 - _LOWEST) * i / (_CANDIDATES - 1)) for i in range(_CANDIDATES)]
    forms = [Activation(bits, signed, scale) for scale in scales]
    return forms[int(np.argmin([_mse(values, form) for form in forms]))]


def _input_codes(source: Input | None, x: Tensor, graph: Graph) -> Activation:
    if source is None:
        top = float(x.abs().max())
        _log.warning("No Input(...) is declared: the float input is calibrated to signed 8 bit")
        return Activation(8, True, top / 127 if top > 0 else 1.0)
    if isinstance(source.mean, tuple) or isinstance(source.std, tuple):
        raise PruningError(
            "Input has a mean or std for each channel, but the integer network takes one of each; call "
            "fold_channels(model, codes, input) before pruning and use the Input it returns"
        )
    offset = source.mean * source.range
    padded = [op for op in graph.first_layers() if any(op.padding)]
    if padded and abs(offset - round(offset)) > 1e-6:
        raise PruningError(
            f"Layer '{padded[0].name}' pads its input, so mean * range must be a whole code, not {offset:g}; "
            "use mean 0, or a mean that is a multiple of 1/range"
        )
    whole = float(round(offset)) if padded else offset
    return Activation(8, source.signed, 1 / (source.range * source.std), whole)


def calibrate(
    graph: Graph,
    tensors: Mapping[str, Tensor],
    x: Tensor,
    source: Input | None,
    weights: int | Mapping[str, int] = 4,
    activations: int = 8,
    power_of_two: bool = False,
    reconstruct: bool = False,
    fixed: Mapping[str, tuple[Weights, float]] | None = None,
    per_channel: bool = False,
) -> Plan:
    """Choose all scales from the float network and calibration inputs ``x`` (N, ...), float as the network takes them.

    Weight scales have the least squared error over nonzero weights, activation scales over the values seen. With
    ``power_of_two`` an activation scale is its layer's input scale x weight scale x ``2^S``, so that requantization
    is a shift: the activation's 8 bits bear the coarser choice better than 4-bit weights do.
    With ``reconstruct`` the output has the input's codes, so that their difference is the error of a reconstruction.
    ``fixed`` holds grid and scale of the layers, by name, whose weights lie on levels already; with ``per_channel`` the
    output channels of all others have scales of their own.
    """
    if not 1 <= activations <= 8:
        raise PruningError(f"Activation bits must be from 1 to 8, not {activations!r}")
    fixed = fixed or {}
    grids = _grids(graph, weights) | {name: grid for name, (grid, _) in fixed.items()}
    forms = {"input": _input_codes(source, x, graph)}
    if reconstruct:
        _check_reconstruction(graph, forms["input"])
    scales: dict[str, Scale] = {}
    seen: dict[str, Tensor] = {}

    def observe(op: Op, y: Tensor) -> Tensor:
        seen[op.name] = y
        return y

    with torch.no_grad():
        graph.forward(tensors, x, activation=observe)
    if power_of_two:
        _check_power_of_two(graph, per_channel)
    shared = _shared_codes(graph)
    for op in graph.ops:
        name = output_name(graph, op)
        if op.weight is not None:
            search = channel_scales if per_channel else search_scale
            known_scale = fixed[op.name][1] if op.name in fixed else None
            scales[op.name] = known_scale or search(tensors[op.weight], grids[op.name])
        if reconstruct and op is graph.ops[-1]:
            forms[name] = forms["input"]
            continue
        if op.kind in POOLINGS:
            forms[name] = forms[op.inputs[0]]
            continue
        # The layers whose values the shared codes must hold; poolings and concatenations only pass them on.
        makers = [m for m in graph.ops if shared[m.name] == shared[op.name] and (m.weight or m.kind is Kind.ADD)]
        known = [output_name(graph, m) for m in makers if output_name(graph, m) in forms]
        if known:
            forms[name] = forms[known[0]]
            continue
        values = np.concatenate([_sampled(seen[m.name]) for m in makers])
        scale = scales.get(op.name)
        step = forms[op.inputs[0]].scale * scale if power_of_two and isinstance(scale, float) else None
        forms[name] = _best(values, activations, not all(m.relu for m in makers), step)
    return Plan(source, power_of_two, grids, scales, forms)


def _check_reconstruction(graph: Graph, first: Activation) -> None:
    """Refuse a network whose output cannot have the codes of its input."""
    last = graph.ops[-1]
    if last.weight is None or math.prod(last.out_shape) != math.prod(graph.in_shape):
        raise PruningError(
            f"Layer '{last.name}' has output shape {last.out_shape}, but a reconstruction ends in a convolution or "
            f"linear layer of as many values as the input's {graph.in_shape}"
        )
    if first.offset:
        raise PruningError("A reconstruction has the input's codes, whose code 0 must be 0; use an Input of mean 0")


def _check_power_of_two(graph: Graph, per_channel: bool) -> None:
    """Refuse what shifts alone cannot do."""
    if per_channel:
        raise PruningError("Scales for each channel need a multiplier a channel; use power_of_two=False")
    for op in graph.ops:
        if op.norm is not None:
            raise PruningError(
                f"Layer '{op.name}' has BatchNorm, which needs a multiplier a channel; use power_of_two=False or "
                "train without BatchNorm"
            )
        if op.kind in (Kind.ADD, Kind.CONCAT):
            raise PruningError(
                f"Layer '{op.name}' joins tensors, whose scales need a multiplier; use power_of_two=False"
            )


def _shared_codes(graph: Graph) -> dict[str, str]:
    """Return a representative of each layer: layers of one representative must have one scale.

    A concatenation passes codes through, so it shares them with all its inputs, and a pooling with its own.
    """
    leader: dict[str, str] = {}
    for op in graph.ops:
        leader[op.name] = op.name
        if op.kind is Kind.CONCAT or (op.kind in POOLINGS and op.inputs[0] in leader):
            for name in op.inputs:
                old = leader[name]
                leader = {key: op.name if value == old else value for key, value in leader.items()}
    return leader


def fake_quant_forward(
    graph: Graph,
    tensors: Mapping[str, Tensor],
    plan: Plan,
    masks: Mapping[str, Tensor],
    weight: Callable[[Op, Tensor], Tensor] | None = None,
) -> Callable[[Tensor], Tensor]:
    """Return the network with fake-quantized weights and activations, straight-through, for fine-tuning.

    ``masks`` holds the kept weights by layer name; pruned weights stay zero. ``weight`` says what becomes of a layer's
    weights in place of rounding.
    """
    pooled = _pooled(graph)
    before = {op.name: op for op in graph.ops if op.name in pooled.values()}
    plain = {op.name: replace(op, clip=(-math.inf, math.inf)) for op in before.values()}
    network = Graph(tuple(plain.get(op.name, op) for op in graph.ops), graph.in_shape)

    def rounded(op: Op, value: Tensor) -> Tensor:
        factor = as_factor(plan.weight_scales[op.name], value)
        return fake_quantize(value, plan.grids[op.name], factor, masks.get(op.name))

    def activation(op: Op, y: Tensor) -> Tensor:
        if op.name in pooled:
            op = before[pooled[op.name]]
            y = op.activate(y)
        elif op.name in before or op.kind in (Kind.MAX_POOL2D, Kind.CONCAT):
            return y
        return plan.activations[output_name(graph, op)].fake(y)

    def forward(x: Tensor) -> Tensor:
        return network.forward(tensors, x, weight or rounded, activation)

    return forward


def _pooled(graph: Graph) -> dict[str, str]:
    """Return the max pools that may come before the ReLU and rounding of the layer they read, with that layer.

    All three keep the order of values, so the result is the same, of a quarter of the values in a 2x2 pool. The
    gradient goes to a window's largest value, and not to the first of those that are rounded alike.
    """
    readers = Counter(name for op in graph.ops for name in op.inputs)
    layers = {op.name for op in graph.ops if op.weight is not None and readers[op.name] == 1}
    return {op.name: op.inputs[0] for op in graph.ops if op.kind is Kind.MAX_POOL2D and op.inputs[0] in layers}
