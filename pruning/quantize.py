"""Turn a float network into an exact integer one: captured, calibrated, folded, and ready to save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zeroskip.pruning.admm import Admm
from zeroskip.pruning.calibration import Activation, Plan, calibrate
from zeroskip.pruning.capture import capture
from zeroskip.pruning.errors import PruningError
from zeroskip.pruning.export import Record, write_artifact
from zeroskip.pruning.golden import IntegerLayer, IntegerNetwork
from zeroskip.pruning.graph import Graph, Kind, Op
from zeroskip.pruning.inputs import Input
from zeroskip.pruning.integer_layers import describe_tensors, integer_layer
from zeroskip.pruning.quantizers import Scale, Weights
from zeroskip.pruning.samples import (
    Samples,
    as_maps,
    batches,
    check_calibration,
    float_inputs,
    gather,
    input_codes,
    warn_off_codes,
)
from zeroskip.pruning.sharing import shared_levels

__all__ = ["FloatNetwork", "QuantizedNetwork", "fixed_levels", "layer_masks", "quantize"]

_GOLDEN_SAMPLES = 16
# Samples whose maps take more values than this all together are fewer, but one at least: they are in the artifact.
_GOLDEN_VALUES = 1 << 23
_CALIBRATION_SAMPLES = 1024


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
            x = input_codes(x, self.first)
        if x.dtype != tensor.dtype:
            raise PruningError(f"Input codes must be {tensor.dtype}, not {x.dtype}")
        return as_maps(x, tensor.shape)

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
        for x, y in batches(data):
            if y is None:
                raise PruningError("accuracy needs labels: give an ImageSet, (x, y), or batches of (x, y)")
            if y.shape != x.shape[:1] or y.is_floating_point():
                raise PruningError(
                    f"Labels must be class numbers of shape {tuple(x.shape[:1])}, one a sample, but they are {y.dtype} "
                    f"of {tuple(y.shape)}"
                )
            if not total:
                warn_off_codes(x, self.first, self.floats.source, "samples")
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
    inputs = gather(calibration, _CALIBRATION_SAMPLES)
    check_calibration(inputs, sample)
    if plan is None:
        floats, fixed = float_inputs(inputs, source), fixed_levels(graph, live, layers)
        plan = calibrate(
            graph, tensors, floats, source, weights, activations, power_of_two, reconstruct, fixed, per_channel
        )
    masks = layer_masks(graph, tensors, layers)
    warn_off_codes(inputs, plan.activations["input"], source, "calibration samples")
    codes = describe_tensors(graph, plan)
    integer = tuple(integer_layer(graph, op, tensors, plan, masks.get(op.name)) for op in graph.ops)
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
    golden_in = as_maps(input_codes(samples, plan.activations["input"]), graph.in_shape)
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
