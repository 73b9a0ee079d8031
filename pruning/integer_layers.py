"""Integer layers from float ones: weights on levels, everything affine folded into bias, multiplier and shift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zeroskip.pruning.calibration import Plan, output_name
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.golden import Codes, IntegerLayer
from zeroskip.pruning.graph import Graph, Kind, Op, as_map
from zeroskip.pruning.quantizers import as_factor

__all__ = ["describe_tensors", "integer_layer"]

_MULTIPLIER_BITS = 15
_MAX_SHIFT = 47
_ADD_FRACTION_BITS = 8


def describe_tensors(graph: Graph, plan: Plan) -> dict[str, Codes]:
    """Return the header's view of the tensors: an image input is described in pixels, ``x = code / range`` (- mean)."""
    first = plan.activations["input"]
    padded = any(any(op.padding) for op in graph.first_layers())
    scale = 1 / plan.source.range if plan.source else first.scale
    codes = {
        "input": Codes("input", graph.in_shape, first.bits, first.signed, scale, int(first.offset) if padded else 0)
    }
    as_input = graph.beyond_input()
    for op in graph.ops:
        name, form = output_name(graph, op), plan.activations[output_name(graph, op)]
        same = op.name in as_input
        zero = codes["input"].zero_point if same else 0
        codes[name] = Codes(name, op.out_shape, form.bits, form.signed, scale if same else form.scale, zero)
    if graph.argmax:
        # as many bits as the number of the last class has; beyond 8, bytes
        bits = max(1, (graph.ops[-1].out_shape[0] - 1).bit_length())
        codes["output"] = Codes("output", (-(-bits // 8),), min(bits, 8), False, 1.0)
    return codes


def integer_layer(graph: Graph, op: Op, tensors: Mapping[str, Tensor], plan: Plan, mask: Tensor | None) -> IntegerLayer:
    """Return the integer layer of a float one: levels, BatchNorm and normalization in bias and multiplier.

    Parameters
    ----------
    tensors : values of the network's parameters and buffers, by name
    plan : grids and scales
    mask : kept weights; None for a layer without

    Raises
    ------
    PruningError
        If a bias or a ratio of scales does not fit its format.
    """
    source = op.inputs[0]
    out = output_name(graph, op)
    form = plan.activations[out]
    common: dict[str, Any] = {
        "name": op.name, "kind": op.kind, "inputs": op.inputs, "output": out, "kernel": op.kernel, "stride": op.stride,
        "padding": op.padding, "dilation": op.dilation, "groups": op.groups,
        "clamp": form.limits(*op.clip),
    }  # fmt: skip
    if op.kind is Kind.ADD:
        return _addition(common, op, plan, form.scale)
    if op.weight is None or mask is None:
        return IntegerLayer(**common)
    scale, weight = plan.weight_scales[op.name], tensors[op.weight].detach()
    levels = (plan.grids[op.name].levels(weight, as_factor(scale, weight)) * mask).to(torch.int64).contiguous()
    step = torch.tensor(scale, dtype=torch.float64)
    gain, offset = _affine(op, tensors, len(levels))
    sign = torch.where(gain < 0, -1, 1).reshape(-1, *(1,) * (levels.dim() - 1))
    # A channel of gain 0 is constant: no weights, the constant in the bias.
    levels = levels * sign * (gain != 0).reshape(sign.shape)
    size = torch.where(gain == 0, 1.0, gain.abs())
    unit = plan.activations[source].scale * step * size
    sums = levels.flatten(1).sum(1)
    bias = torch.round(offset / unit - plan.activations[source].offset * sums)
    if float(bias.abs().max()) >= 2.0**31:
        raise PruningError(
            f"Layer '{op.name}' has a bias of {float(bias.abs().max()):.3g} steps, but it must fit 32 bits"
        )
    ratios = unit / form.scale if op.norm is not None or step.dim() else (unit / form.scale)[:1]
    multiplier, shift = _requantization(op.name, ratios, plan.power_of_two)
    return IntegerLayer(
        **common, weight=as_map(levels.to(torch.int16)), bias=bias.to(torch.int32), multiplier=multiplier, shift=shift
    )  # fmt: skip


def _addition(common: dict[str, Any], op: Op, plan: Plan, scale: float) -> IntegerLayer:
    """Return a sum: the inputs go to the output's scale with some bits of fraction, which a plain shift rounds off."""
    fraction = 2.0**_ADD_FRACTION_BITS
    ratios = [plan.activations[name].scale / scale * fraction for name in op.inputs]
    multiplier, shift = _requantization(op.name, torch.tensor([*ratios, 1 / fraction], dtype=torch.float64), False)
    return IntegerLayer(**common, multiplier=multiplier, shift=shift)


def _affine(op: Op, tensors: Mapping[str, Tensor], channels: int) -> tuple[Tensor, Tensor]:
    """Return gain and offset (float64 ``[O]``) with ``y = gain * (w * x) + offset``."""
    bias = tensors[op.bias].to(torch.float64) if op.bias else torch.zeros(channels, dtype=torch.float64)
    if op.norm is None:
        return torch.ones(channels, dtype=torch.float64), bias
    wide = {name: value.to(torch.float64) for name, value in tensors.items()}
    gain, offset = op.norm.affine(wide)
    return gain, gain * bias + offset


def _requantization(name: str, ratios: Tensor, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """Return multiplier (int32) and shift (int8) with ``multiplier / 2^shift`` nearest to each ratio."""
    multipliers, shifts = [], []
    for ratio in ratios.tolist():
        if power_of_two:
            shift = -math.log2(ratio)
            if abs(shift - round(shift)) > 1e-6:
                raise PruningError(f"Layer '{name}' has the scale ratio {ratio:g}, which is no power of two")
            multiplier, shift = 1, round(shift)
        else:
            shift = _MULTIPLIER_BITS - 1 - math.floor(math.log2(ratio))
            shift = min(shift, _MAX_SHIFT)
            multiplier = round(ratio * 2.0**shift)
            if multiplier == 1 << _MULTIPLIER_BITS:
                multiplier, shift = multiplier >> 1, shift - 1
        if not 0 <= shift <= _MAX_SHIFT:
            raise PruningError(f"Layer '{name}' needs a shift of {shift}, but it must be from 0 to {_MAX_SHIFT}")
        multipliers.append(multiplier)
        shifts.append(shift)
    return torch.tensor(multipliers, dtype=torch.int32), torch.tensor(shifts, dtype=torch.int8)
