"""The post-processor in designs whose biases, multipliers, shifts and thresholds lie at the ends of their ranges."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import designs
import models
from models import conv
from zeroskip.boards import find_board
from zeroskip.boards.netlist_check import estimated_cycles, golden_vectors
from zeroskip.boards.simulation import simulate
from zeroskip.boards.synthesis import synthesize
from zeroskip.boards.tools import find_tool
from zeroskip.boards.top import DEFAULT_BAUD, plan_top
from zeroskip.compiler import reference
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import ToolError
from zeroskip.compiler.ir import Kind, Layer, Model, Rounding, Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.program import Program
from zeroskip.compiler.resources import ECP5_SHAPES, program_blocks, program_multipliers
from zeroskip.compiler.synthetic import build_model
from zeroskip.compiler.target import Format, Geometry
from zeroskip.compiler.timing import post_cycles, scale_cycles, search_cycles
from zeroskip.compiler.verify import verify
from zeroskip.hw.design import design_files

INT32 = (-(1 << 31), (1 << 31) - 1)
TFLITE = (Rounding.TFLITE_DOUBLE, Rounding.TFLITE_SINGLE)
SIGNED = {"relu": False, "out_signed": True}

SCALES = {
    Rounding.HALF_UP: ((0, 1, 1 << 15, (1 << 17) - 1), (0, 1, 16, 33, 47)),
    Rounding.HALF_AWAY: ((1, (1 << 17) - 1), (0, 1, 31, 47)),
    Rounding.HALF_EVEN: ((1, (1 << 17) - 1), (0, 1, 31, 47)),
    Rounding.FLOOR: ((1, (1 << 17) - 1), (0, 1, 31, 47)),
    Rounding.TFLITE_SINGLE: ((1, (1 << 31) - 1), (0, 31, 62)),
    Rounding.TFLITE_DOUBLE: ((0, 1, 1 << 30, (1 << 31) - 1), (0, 1, 30, 31, 32, 33, 45, 55, 62)),
}
"""Multipliers and shifts of a layer, every pair of them in some channels."""

DESIGNS = {
    "one_rounding": ((Rounding.HALF_UP,), Geometry(4, columns=2)),
    "two_steps": ((Rounding.TFLITE_DOUBLE,), Geometry(4, columns=2, results=4)),
    "all_roundings": (tuple(SCALES), Geometry(8, cores=2, results=2)),
    "thresholds": ((Rounding.THRESHOLDS, Rounding.THRESHOLDS), Geometry(8, results=8)),
    "everything": ((*SCALES, Rounding.THRESHOLDS), Geometry(4, columns=3, results=2)),
}


def extreme_thresholds(layer: Layer, source: Tensor, levels: int) -> np.ndarray:
    """Return rows of thresholds at the ends of the accumulator and of 32 bits."""
    low, high = reference.accumulator_range(layer, source).partial
    rows = [
        [INT32[0]] * levels,
        [INT32[1]] * levels,
        [INT32[0], low - 1, low, low + 1, 0, high, high + 1, INT32[1]],
        [low] * levels,
        [high] * levels,
        np.linspace(low, high, levels).round().tolist(),
    ]
    padded = [np.sort(np.resize(row, levels)) for row in rows]
    count = 0 if layer.bias is None else len(layer.bias)
    return np.resize(np.array(padded, np.int32), (count, levels))


def extreme(layer: Layer, source: Tensor, target: Tensor) -> Layer:
    """Return the layer with every combination of the extremes of its rounding, a channel each."""
    if layer.rounding is Rounding.THRESHOLDS:
        return replace(layer, thresholds=extreme_thresholds(layer, source, target.hi - target.lo))
    low, high = reference.accumulator_range(layer, source).total
    # TensorFlow Lite's roundings take biased sums of 32 bits
    ends = (INT32[0] - low, INT32[1] - high) if layer.rounding in TFLITE else INT32
    channels = list(product((0, *ends), *SCALES[layer.rounding]))
    assert len(channels) == target.shape[0]
    bias, multiplier, shift = (np.array(column) for column in zip(*channels, strict=True))
    return replace(
        layer, bias=bias.astype(np.int32), multiplier=multiplier.astype(np.int32), shift=shift.astype(np.int8)
    )


def extreme_model(roundings: tuple[Rounding, ...]) -> Model:
    """Return a chain of 1x1 convolutions; each has one weight a channel, of -1, 1 or the largest."""
    counts = {rounding: 3 * len(m) * len(s) for rounding, (m, s) in SCALES.items()} | {Rounding.THRESHOLDS: 8}
    specs = [
        conv(counts[rounding], 1, rounding=rounding, bits=8, out_bits=8 - 5 * (index % 2), **SIGNED)
        for index, rounding in enumerate(roundings)
    ]
    model = build_model(np.random.default_rng(1), Tensor("input", (3, 2, 3), signed=True), specs, samples=6)
    layers, golden = [], {model.input: model.golden[model.input]}
    for layer in model.layers:
        source, target = model.tensors[layer.input], model.tensors[layer.output]
        weight = np.zeros_like(layer.weight)
        for row, weights in enumerate(weight):
            weights[row % source.shape[0]] = (1, -1, 128, -128)[row // source.shape[0] % 4]
        layer = extreme(replace(layer, weight=weight), source, target)
        layers.append(layer)
        golden[layer.output] = reference.run_layer(model, layer, [golden[layer.input]])
    extremes = replace(model, layers=tuple(layers), golden=golden)
    verify(extremes)
    return extremes


def compiled(name: str) -> Program:
    """Lower one of the designs; with cores the layers are stored with indices."""
    roundings, geometry = DESIGNS[name]
    model = extreme_model(roundings)
    sparse = geometry.columns == 1
    return lower(model, geometry, {layer.name: Format.RELATIVE for layer in model.layers if sparse})


@pytest.mark.parametrize("name", DESIGNS)
def test_extremes_equal_reference(name, tmp_path):
    program = compiled(name)
    assert all(layer.kind is Kind.CONV2D for layer in program.model.layers)
    for path, content in design_files(program, None).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    inputs = program.model.golden["input"][:4]
    expected = reference.run(program.model, inputs)
    result = simulate(tmp_path, inputs, expected).check()
    model, counted = program_cycles(program), result.cycles
    assert {layer.name: layer.cycles for layer in model.layers} == counted.layers
    assert (model.total, model.interval) == (counted.total, counted.interval)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite_per_channel", "thresholds_of_8_bits", "add"])
def test_mapped_netlist_equals_reference(name, tmp_path):
    try:
        for tool in ("yosys", "verilator", "nextpnr-ecp5", "ecppack"):
            find_tool(tool)
    except ToolError as error:
        pytest.skip(str(error))
    program = designs.write_design(models.tiny(name, samples=3), tmp_path, "dense", 4, columns=2)
    board = find_board("ulx3s-25f")
    result = synthesize(tmp_path / "design", board, jobs=1)
    assert result.check.vectors == 3 and result.check.mismatches == 0
    inputs, _ = golden_vectors(tmp_path / "design")
    estimate = estimated_cycles(tmp_path / "design", inputs, plan_top(board, DEFAULT_BAUD).divisor)
    assert estimate == pytest.approx(result.check.cycles, rel=0.35)
    resources = result.to_report()["resources"]
    assert resources["dsp"]["used"] == program_multipliers(program.config)
    assert resources["bram"]["used"] == program_blocks(program, ECP5_SHAPES)


@pytest.mark.parametrize(
    ("name", "cycles"),
    [
        ("one_rounding", (9, 1, 9)),
        ("two_steps", (11, 1, 11)),
        ("all_roundings", (11, 1, 11)),
        ("thresholds", (9, 17, 17)),
        ("everything", (11, 17, 17)),
    ],
)
def test_latency_is_that_of_what_the_design_holds(name, cycles):
    config = compiled(name).config
    assert (scale_cycles(config), search_cycles(config), post_cycles(config)) == cycles
