"""Turn a float network into an exact integer one: captured, calibrated, folded, and ready to save."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.calibration import Activation, Plan, calibrate, output_name
from zeroskip.pruning.capture import capture
from zeroskip.pruning.data import ImageSet
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.export import Record, write_artifact
from zeroskip.pruning.golden import Codes, IntegerLayer, IntegerNetwork
from zeroskip.pruning.graph import Graph, Kind, Op, as_map
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.quantizers import Scale, Weights, as_factor
from zeroskip.pruning.sharing import shared_levels

__all__ = ["FloatNetwork", "QuantizedNetwork", "Samples", "fixed_levels", "float_inputs", "layer_masks", "quantize"]

# What holds samples: images with labels, a tensor, (x, y), or batches of either as a DataLoader yields them.
Samples = ImageSet | Tensor | tuple[Tensor, Tensor] | Iterable[Any]

_GOLDEN_SAMPLES = 16
# Samples whose maps take more values than this all together are fewer, but one at least: they are in the artifact.
_GOLDEN_VALUES = 1 << 23
_MULTIPLIER_BITS = 15
_MAX_SHIFT = 47
_ADD_FRACTION_BITS = 8
_CALIBRATION_SAMPLES = 1024
# Resized or shifted samples lie between codes here and there; others by their normalization do everywhere.
_OFF_CODES, _OFF_SHARE = 0.05, 0.5
_LOOKED_AT = 1 << 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """A float network as it was quantized: layers, values of parameters, how codes become its input.

    ``outputs`` names the integer tensor that stands for each layer's output.
    """

    graph: Graph
    tensors: Mapping[str, Tensor]
    outputs: Mapping[str, str]
    source: Input | None

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Return every layer's output for a batch, by name of the integer tensor, poolings of the input left out."""
        found = {}
        # their codes are the input's, whose mean is in the first layer's bias
        left_out = self.graph.beyond_input()

        def keep(op: Op, value: Tensor) -> Tensor:
            if op.name not in left_out:
                found[self.outputs[op.name]] = value
            return value

        with torch.no_grad():
            self.graph.forward(self.tensors, x, activation=keep)
        return found


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """An integer network with its scales and structure.

    Members
    -------
    golden : IntegerNetwork, computes every tensor exactly
    structures : layer name -> structure as in the artifact's header
    grids, weight_scales : layer name -> weight levels and the distance between them, of the layer or of each channel
    first : codes of the input as the float network takes it
    samples : 16 input codes, stored with every layer's output
    floats : the float network that it was made of
    record : where the network comes from (recipe, accuracy, provenance)
    """

    golden: IntegerNetwork
    structures: Mapping[str, Mapping[str, Any]]
    grids: Mapping[str, Weights]
    weight_scales: Mapping[str, Scale]
    first: Activation
    samples: Tensor
    floats: FloatNetwork
    record: Record = field(default_factory=Record)

    def codes(self, x: Tensor) -> Tensor:
        """Return the input codes of ``x``: codes stay as they are, floats are what the float network takes."""
        tensor = self.golden.tensors["input"]
        if x.is_floating_point():
            x = _input_codes(x, self.first)
        if x.dtype != tensor.dtype:
            raise PruningError(f"Input codes must be {tensor.dtype}, not {x.dtype}")
        return _as_maps(x, tensor.shape)

    def float_values(self, x: Tensor) -> dict[str, NDArray[np.float32]]:
        """Return what the float network computes for ``x`` (as in :meth:`codes`), by the names of the integer tensors.

        Written with ``numpy.savez``, they are what ``zeroskip compare --floats`` takes.
        """
        found = self.floats.values(float_inputs(x, self.floats.source))
        return {name: value.numpy() for name, value in found.items()}

    def accuracy(self, data: Samples) -> float:
        """Return the share of ``data`` classified correctly: codes, or floats as the float network takes them.

        Raises
        ------
        PruningError
            If there are no labels, or not one class number a sample.
        """
        correct, total = 0, 0
        for x, y in _batches(data):
            if y is None:
                raise PruningError("accuracy needs labels: give an ImageSet, (x, y), or batches of (x, y)")
            if y.shape != x.shape[:1] or y.is_floating_point():
                raise PruningError(
                    f"Labels must be class numbers of shape {tuple(x.shape[:1])}, one a sample, but they are {y.dtype} "
                    f"of {tuple(y.shape)}"
                )
            if not total:
                _warn_off_codes(x, self.first, self.floats.source, "samples")
            correct += int((self.golden.predict(self.codes(x)) == y).sum())
            total += len(y)
        if total == 0:
            raise PruningError("accuracy needs at least one sample")
        return correct / total

    def save(self, path: Path | str, record: Record | None = None) -> Path:
        """Write the artifact (one safetensors file, the same bytes for the same network) and return its path."""
        return write_artifact(self, Path(path), record or self.record)

    def nonzero(self) -> int:
        """Return the number of nonzero weights."""
        return sum(int(torch.count_nonzero(layer.weight)) for layer in self.golden.layers if layer.weight is not None)

    def __repr__(self) -> str:
        total = sum(layer.weight.numel() for layer in self.golden.layers if layer.weight is not None)
        kept = self.nonzero()
        rate = total / max(1, kept)
        return f"QuantizedNetwork({len(self.golden.layers)} layers, {kept} of {total} weights, {rate:.1f}x)"


def _batches(data: Samples) -> Iterable[tuple[Tensor, Tensor | None]]:
    """Yield ``(x, y or None)`` from anything that :data:`Samples` allows."""
    if isinstance(data, ImageSet):
        yield data.x, data.y
    elif isinstance(data, Tensor):
        yield data, None
    elif isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        yield data
    elif isinstance(data, Iterable):
        for item in data:
            if isinstance(item, Tensor):
                yield item, None
            elif isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, Tensor) for part in item):
                yield item[0], item[1]
            else:
                raise PruningError(f"A batch must be a tensor or (x, y), not {type(item).__name__}")
    else:
        raise PruningError(
            f"Samples must be an ImageSet, a tensor, (x, y) or batches of them, not {type(data).__name__}"
        )


def _gather(data: Samples, count: int) -> Tensor:
    """Return the first ``count`` inputs of ``data``."""
    parts, found = [], 0
    for x, _ in _batches(data):
        parts.append(x[: count - found])
        found += len(parts[-1])
        if found >= count:
            break
    if found == 0:
        raise PruningError("The calibration data hold no sample")
    return torch.cat(parts)


def float_inputs(x: Tensor, source: Input | None) -> Tensor:
    """Return what the float network takes: codes are normalized as ``source`` says, floats stay."""
    if x.is_floating_point():
        return x
    if source is None:
        raise PruningError("Integer samples need uint8 or int8 codes and input=Input(range=..., mean=..., std=...)")
    return source.normalize(x)


def _input_codes(x: Tensor, form: Activation) -> Tensor:
    """Return the codes of a float network input, rounded half to even; codes stay."""
    if not x.is_floating_point():
        return x
    codes = torch.round(x.to(torch.float64) / form.scale + form.offset)
    return codes.clamp(form.lo, form.hi).to(torch.int8 if form.signed else torch.uint8)


def _check_calibration(inputs: Tensor, sample: Tensor) -> None:
    """Refuse calibration samples that are no samples of the network, or no numbers."""
    if inputs.shape[1:] != sample.shape[1:]:
        raise PruningError(
            f"The calibration samples have shape {tuple(inputs.shape[1:])}, but sample {tuple(sample.shape[1:])}"
        )
    if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
        raise PruningError("The calibration samples hold a NaN or an infinity; give finite ones")


def _warn_off_codes(x: Tensor, form: Activation, source: Input | None, what: str) -> None:
    """Say when float samples are hardly what the network was trained on: most lie off the codes of ``source``."""
    if source is None or not x.is_floating_point():
        return
    # Of different values: in most images nearly all are the background.
    values = np.unique(x.detach().cpu().reshape(-1)[:_LOOKED_AT].to(torch.float64).numpy())
    codes = torch.from_numpy(values) / form.scale + form.offset
    off = (codes - codes.round().clamp(form.lo, form.hi)).abs() > _OFF_CODES
    if off.to(torch.float64).mean() > _OFF_SHARE:
        _log.warning(
            "Most values of the %s are not (code / %d - %g) / %g with a code from %d to %d: feed what the float "
            "network was trained on, and give its range, mean and std as input",
            what, source.range, source.mean, source.std, form.lo, form.hi,
        )  # fmt: skip


def _as_maps(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return sequences ``(N, C, L)`` as the maps of height 1 that the network takes; everything else stays."""
    return x.unsqueeze(2) if x.dim() == 3 and len(shape) == 3 and shape[1] == 1 else x


def layer_masks(graph: Graph, tensors: Mapping[str, Tensor], layers: Admm | None) -> dict[str, Tensor]:
    """Return the kept weights of every layer: those of ``layers``, elsewhere the nonzero ones."""
    held = layers.masks() if layers else {}
    ops = [op for op in graph.ops if op.weight is not None]
    return {op.name: held.get(op.module, tensors[op.weight or ""].detach() != 0) for op in ops}


def fixed_levels(graph: Graph, tensors: Mapping[str, Tensor], layers: Admm | None) -> dict[str, tuple[Weights, float]]:
    """Return grid and scale of every layer, by name, whose weights are on levels.

    Its constraint set has put them there, or parameters without a set share values.
    """
    found: dict[str, tuple[Weights, float]] = {}
    for op in graph.ops:
        constraint = layers.constraint(op.module) if layers and op.weight else None
        levels = constraint.levels_of(tensors[op.weight or ""].detach()) if constraint else None
        if constraint is None and isinstance(tensors.get(op.weight or ""), nn.Parameter):
            levels = shared_levels(op, tensors)
        if levels is not None:
            found[op.name] = levels
    return found


def quantize(
    model: nn.Module,
    sample: Tensor,
    calibration: Samples,
    weights: int | Mapping[str, int] = 4,
    activations: int = 8,
    input: Input | None = None,  # noqa: A002 - the name is part of the public contract
    layers: Admm | None = None,
    power_of_two: bool = False,
    plan: Plan | None = None,
    reconstruct: bool = False,
    per_channel: bool = False,
) -> QuantizedNetwork:
    """Quantize ``model`` to integers.

    Weights that are 0 stay 0, and those that share a value keep sharing it: a layer of at most 255 values becomes a
    codebook, or a uniform grid where the values lie on one (:func:`zeroskip.pruning.sharing.shared_levels`).

    Parameters
    ----------
    sample : example input with a batch axis, as the model takes it (or codes with ``input``)
    calibration : samples that set the activation ranges (the first 1,024 are used); floats as the model takes them, or
        codes with ``input``: uint8, or int8 where it is signed
    weights : weight bits, or layer name or glob -> bits; zero-excluded below 8 bits, symmetric at 8; layers whose set
        in ``layers`` has levels or shared values keep these, and so do layers of shared values without a set
    activations : activation bits; unsigned after a ReLU, signed elsewhere
    input : how the network sees its pixels; without it the float input is calibrated to signed 8 bit
    layers : the hardened Admm whose masks and structures hold
    power_of_two : choose scales so that every multiplier is 1
    plan : scales chosen earlier, as :func:`zeroskip.pruning.calibration.calibrate` returns them
    reconstruct : for autoencoders: the output has the input's codes
    per_channel : a weight scale for each output channel, of the layers whose weights do not share values

    Raises
    ------
    PruningError
        If the network has an unsupported operation, a weight is off its set, or a value does not fit the format.
    """
    source = plan.source if plan else input
    if not isinstance(sample, Tensor):
        raise PruningError(f"sample must be a tensor with a batch axis, not {type(sample).__name__}")
    graph = capture(model, float_inputs(sample, source))
    live = graph.tensors(model)
    if layers is not None:
        # the model may be a copy of the one that layers prunes
        layers.check({op.module: live[op.weight] for op in graph.ops if op.weight})
    # training may go on with the live ones
    tensors = {name: value.detach().clone() for name, value in live.items()}
    inputs = _gather(calibration, _CALIBRATION_SAMPLES)
    _check_calibration(inputs, sample)
    if plan is None:
        floats, fixed = float_inputs(inputs, source), fixed_levels(graph, live, layers)
        plan = calibrate(
            graph, tensors, floats, source, weights, activations, power_of_two, reconstruct, fixed, per_channel
        )
    masks = layer_masks(graph, tensors, layers)
    _warn_off_codes(inputs, plan.activations["input"], source, "calibration samples")
    codes = _describe_tensors(graph, plan)
    integer = tuple(
        _integer_layer(graph, op, tensors, plan, masks.get(op.name)) for op in graph.ops
    )  # fmt: skip
    if graph.argmax:
        name = "argmax"
        while name in {op.name for op in graph.ops}:
            name += "_"
        integer += (IntegerLayer(name, Kind.ARGMAX, (integer[-1].output,), "output"),)
    outputs = {op.name: layer.output for op, layer in zip(graph.ops, integer, strict=False)}
    structures = {
        op.name: _structure(layers, op, live[op.weight], plan.grids[op.name]) for op in graph.ops if op.weight
    }
    values = sum(math.prod(tensor.shape) for tensor in codes.values())
    samples = inputs[: max(1, min(_GOLDEN_SAMPLES, _GOLDEN_VALUES // values))]
    golden_in = _as_maps(_input_codes(samples, plan.activations["input"]), graph.in_shape)
    return QuantizedNetwork(
        IntegerNetwork(integer, codes),
        structures,
        dict(plan.grids),
        dict(plan.weight_scales),
        plan.activations["input"],
        golden_in,
        FloatNetwork(graph, tensors, outputs, source),
    )


def _structure(layers: Admm | None, op: Op, weight: Tensor, grid: Weights) -> dict[str, Any]:
    """Return the structure of a layer's set; trained weights that hold zeros without one were pruned elsewhere."""
    constraint = layers.constraint(op.module) if layers else None
    if constraint and (described := dict(constraint.describe())) != {"kind": "dense"}:
        return described
    # On levels with a 0 among them it says nothing.
    if constraint and not grid.excludes_zero and grid.grid != "codebook":
        return {"kind": "dense"}
    kept = int(torch.count_nonzero(weight))
    sparse = isinstance(weight, nn.Parameter) and 0 < kept < weight.numel()
    return {"kind": "nonstructured", "keep": kept} if sparse else {"kind": "dense"}


def _describe_tensors(graph: Graph, plan: Plan) -> dict[str, Codes]:
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


def _integer_layer(
    graph: Graph, op: Op, tensors: Mapping[str, Tensor], plan: Plan, mask: Tensor | None
) -> IntegerLayer:
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
