"""Both engines against the reference, value by value, and the cycle model against the cycles counted."""

from __future__ import annotations

import re

import pytest

import designs
import models
from zeroskip.boards.simulation import SimulationResult, StallPattern, simulate
from zeroskip.compiler import reference
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import VerificationError
from zeroskip.compiler.formats import layer_formats
from zeroskip.compiler.ir import Kind
from zeroskip.compiler.lower import lower
from zeroskip.compiler.program import Program
from zeroskip.compiler.target import Engine, Format, Geometry
from zeroskip.hw.design import engine_name

DENSE = [
    ("asymmetric_padding", {"lanes": 4, "columns": 3}),
    ("dilation_2", {"lanes": 8, "columns": 1, "results": 2}),
    ("avg_pool_signed", {"lanes": 4, "columns": 2, "results": 4}),
    ("column", {"lanes": 4, "columns": 3, "results": 2}),
    ("signed", {"lanes": 16, "columns": 2, "results": 4}),
    ("depthwise", {"lanes": 4, "cores": 3}),
    ("floor", {"lanes": 8, "columns": 2, "results": 4}),
    ("pool_first", {"lanes": 16, "columns": 2, "results": 2}),
    ("add_scales", {"lanes": 16, "columns": 3, "results": 2}),
    ("one_pixel", {"lanes": 4, "columns": 3}),
    ("tflite_double", {"lanes": 4, "columns": 2, "results": 2}),
    ("thresholds", {"lanes": 4, "columns": 2}),
    ("mixed_roundings", {"lanes": 8, "columns": 2, "results": 4}),
    ("thresholds_of_8_bits", {"lanes": 4, "columns": 3, "results": 4}),
    ("unified", {"lanes": 4, "columns": 3, "sign_adds": 2}),
    ("unified", {"lanes": 8, "columns": 2, "sign_adds": 4, "results": 2}),
    ("add_scales", {"lanes": 4, "columns": 3, "sign_adds": 4}),
    ("global_pool", {"lanes": 8, "columns": 1, "sign_adds": 2}),
    ("binary", {"lanes": 4, "columns": 1, "sign_adds": 4}),
    ("only_linear", {"lanes": 4, "columns": 3, "results": 4}),
    ("concat_rows", {"lanes": 8, "columns": 2, "results": 2}),
    ("pool_last", {"lanes": 8, "columns": 2, "results": 2}),
    ("codebook", {"lanes": 4, "columns": 2}),
]
SPARSE = [
    ("stride_2", {"lanes": 8, "results": 4}),
    ("padded_pool", {"lanes": 4, "cores": 2}),
    ("empty_rows", {"lanes": 4, "cores": 3, "results": 2}),
    ("very_sparse", {"lanes": 16, "results": 4}),
    ("power_of_two_per_tensor", {"lanes": 4}),
    ("low_bits", {"lanes": 8, "cores": 2, "results": 2}),
    ("half_away", {"lanes": 4, "results": 4}),
    ("depthwise", {"lanes": 8, "cores": 2}),
    ("only_linear", {"lanes": 4, "cores": 3}),
    ("single_output", {"lanes": 8, "results": 2}),
    ("branches", {"lanes": 4, "cores": 2, "results": 2}),
    ("structure_nm", {"lanes": 4, "columns": 3}),
    ("structure_pattern", {"lanes": 8, "cores": 2, "results": 4}),
    ("one_pixel", {"lanes": 8}),
    ("tflite_per_channel", {"lanes": 8, "cores": 2, "results": 4}),
    ("mixed_roundings", {"lanes": 4, "cores": 2}),
    ("one_threshold", {"lanes": 8, "results": 8}),
    ("wide_multipliers", {"lanes": 4, "results": 2}),
    ("unified", {"lanes": 4, "cores": 3, "sign_adds": 4}),
    ("unified", {"lanes": 8, "columns": 3, "sign_adds": 4, "logic_products": 3}),
    ("add_scales", {"lanes": 8, "cores": 2, "sign_adds": 2, "results": 4}),
    ("empty_rows", {"lanes": 8, "cores": 1, "sign_adds": 4}),
    ("only_linear", {"lanes": 4, "cores": 2, "results": 2}),
    ("concat_rows", {"lanes": 8, "results": 4}),
    ("codebook_maps", {"lanes": 4, "cores": 2}),
]
PAIRED = [
    ("asymmetric_padding", "dense", {"lanes": 4, "columns": 3}),
    ("signed", "dense", {"lanes": 4, "columns": 2, "results": 4}),
    ("padded_pool", "dense", {"lanes": 4, "columns": 5}),
    ("ternary", "dense", {"lanes": 4, "columns": 5, "results": 2}),
    ("weights_zero_excluded_4", "dense", {"lanes": 4, "columns": 8, "results": 2}),
    ("weights_symmetric_5", "dense", {"lanes": 8, "columns": 4, "results": 8, "logic_products": 12}),
    ("add_scales", "dense", {"lanes": 8, "columns": 3, "results": 2}),
    ("structure_nm", "sparse", {"lanes": 4, "columns": 4}),
]
"""Two columns a multiplier: with one left over, padding, pooling, signed codes, indices, some products in logic."""
BITMAP = [
    (Geometry(4), None),
    (Geometry(8, results=2), 3),
    (Geometry(4, cores=3, results=2), 1),
    (Geometry(8, cores=3), None),
    (Geometry(4, columns=3), 11),
]
"""Geometries and bits of a mask word; None: each layer chooses its own."""


def check(program: Program, folder, vectors: int, stalls: StallPattern | None = None) -> SimulationResult:
    """Simulate golden inputs, compare every layer, and the cycles when nothing stalls."""
    inputs = program.model.golden[program.model.input][:vectors]
    result = simulate(folder / "design", inputs, reference.run(program.model, inputs), stalls=stalls).check()
    if stalls is None:
        model, counted = program_cycles(program), result.cycles
        assert counted is not None
        assert {layer.name: layer.cycles for layer in model.layers} == counted.layers
        assert (model.load, model.unload, model.total, model.interval) == (
            counted.load,
            counted.unload,
            counted.total,
            counted.interval,
        )
    return result


@pytest.mark.parametrize(("name", "settings"), DENSE)
def test_dense_engine_equals_reference(name, settings, tmp_path):
    program = designs.write_design(models.tiny(name), tmp_path, "dense", **settings)
    assert engine_name(program) == "dense"
    check(program, tmp_path, 4)


@pytest.mark.parametrize(("name", "settings"), SPARSE)
def test_sparse_engine_equals_reference(name, settings, tmp_path):
    program = designs.write_design(models.tiny(name), tmp_path, "sparse", **settings)
    assert engine_name(program) == "sparse"
    check(program, tmp_path, 4)


@pytest.mark.parametrize(("name", "engine", "settings"), PAIRED)
def test_two_products_of_one_multiplier_equal_reference(name, engine, settings, tmp_path):
    program = designs.write_design(models.tiny(name), tmp_path, engine, **settings, paired_products=1)
    assert program.config.paired_multipliers
    assert (tmp_path / "design" / "rtl" / "paired_multiplier.v").is_file()
    check(program, tmp_path, 4)


@pytest.mark.parametrize(("geometry", "bits"), BITMAP, ids=str)
def test_bitmap_layers_equal_reference(geometry, bits, tmp_path):
    model = models.tiny("densities")
    formats = layer_formats(model, Engine.SPARSE, bitmap=True)
    # without the passes, which would take out the rows and the layer without weights
    program = lower(model, geometry, formats, index_bits=bits)
    for plan in program.layers:
        if plan.layer.weight is not None:
            assert plan.format is (Format.BITMAP if plan.layer.kind is Kind.CONV2D else Format.RELATIVE)
    assert any(plan.front["pass_last"] for plan in program.layers)
    designs.write_program(program, tmp_path)
    check(program, tmp_path, 4)


def test_bitmaps_beside_other_formats_equal_reference(tmp_path):
    keep = {"conv1": 0.6, "conv2": 0.5, "fc1": 0.1, "fc2": 1.0}
    model = models.digits_like("nonstructured", keep)
    program = designs.write_design(model, tmp_path, "auto", 4, cores=2, results=2, bitmap=1)
    formats = {plan.name: plan.format for plan in program.layers if plan.layer.weight is not None}
    assert formats == {
        "conv1": Format.BITMAP,
        "conv2": Format.BITMAP,
        "fc1": Format.RELATIVE,
        "fc2": Format.DENSE,
    }
    check(program, tmp_path, 4, StallPattern(input_gap=0.4, output_gap=0.6, seed=3))
    check(program, tmp_path, 4)


def test_layers_of_both_engines_in_one_design_equal_reference(tmp_path):
    keep = {"conv1": 1.0, "conv2": 0.15, "fc1": 0.1, "fc2": 1.0}
    model = models.digits_like("nonstructured", keep)
    program = designs.write_design(model, tmp_path, "auto", 4, cores=2, results=2)
    assert engine_name(program) == "hybrid"
    check(program, tmp_path, 4)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A pruned digits network on the sparse engine, simulated once."""
    folder = tmp_path_factory.mktemp("digits")
    model = models.digits_like("nonstructured", 0.15)
    program = designs.write_design(model, folder, "sparse", 4, cores=2, results=2)
    result = check(program, folder, 8)
    assert result.cycles is not None
    return folder, program, result.cycles


def test_inferences_overlap(digits):
    _, _, cycles = digits
    assert cycles.interval < cycles.total - cycles.load


def test_stalls_on_both_streams_change_nothing(digits):
    folder, program, _ = digits
    check(program, folder, 3, StallPattern(input_gap=0.4, output_gap=0.6, seed=7))


def test_every_slot_is_in_one_class(digits):
    _, program, _ = digits
    for layer in program_cycles(program).layers:
        assert sum(layer.slots.values()) == layer.cycles * layer.lanes
        assert min(layer.slots.values()) >= 0


def test_changed_rounding_constant_in_the_rtl_is_found_and_named(digits):
    folder, program, _ = digits
    rtl = folder / "design" / "rtl" / "accelerator.v"
    text = rtl.read_text()
    lines = [i for i, line in enumerate(text.splitlines()) if re.search(r"\$signed\(shifted\) \+ \$signed\(", line)]
    assert len(lines) == program.config.geometry.results
    changed = text.splitlines()
    changed[lines[-1]] = re.sub(r"(\$signed\(shifted\) \+) \$signed\(.*?\)", r"\1 0", changed[lines[-1]])
    try:
        rtl.write_text("\n".join(changed) + "\n")
        with pytest.raises(VerificationError, match="conv1"):
            check(program, folder, 8)
    finally:
        rtl.write_text(text)
