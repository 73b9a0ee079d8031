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
from zeroskip.compiler.program import Program

DENSE = [
    ("asymmetric_padding", 4, 3),
    ("dilation_2", 8, 1),
    ("avg_pool_signed", 4, 2),
    ("column", 4, 3),
    ("signed", 16, 2),
    ("depthwise", 4, 3),
    ("one_pixel", 4, 3),
]
SPARSE = [
    ("stride_2", 8),
    ("padded_pool", 4),
    ("empty_rows", 4),
    ("very_sparse", 16),
    ("power_of_two_per_tensor", 4),
    ("low_bits", 8),
    ("half_away", 4),
    ("depthwise", 8),
    ("only_linear", 4),
    ("single_output", 8),
    ("one_pixel", 8),
]


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


@pytest.mark.parametrize(("name", "lanes", "columns"), DENSE)
def test_dense_engine_equals_reference(name, lanes, columns, tmp_path):
    program = designs.write_design(models.tiny(name), tmp_path, "dense", lanes, columns)
    check(program, tmp_path, 4)


@pytest.mark.parametrize(("name", "lanes"), SPARSE)
def test_sparse_engine_equals_reference(name, lanes, tmp_path):
    program = designs.write_design(models.tiny(name), tmp_path, "sparse", lanes)
    check(program, tmp_path, 4)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A pruned digits network on the sparse engine, simulated once."""
    folder = tmp_path_factory.mktemp("digits")
    program = designs.write_design(models.digits_like("nonstructured", 0.15), folder, "sparse", 4)
    check(program, folder, 8)
    return folder, program


def test_stalls_on_both_streams_change_nothing(digits):
    folder, program = digits
    check(program, folder, 3, StallPattern(input_gap=0.4, output_gap=0.6, seed=7))


def test_every_slot_is_in_one_class(digits):
    _, program = digits
    for layer in program_cycles(program).layers:
        assert sum(layer.slots.values()) == layer.cycles * layer.lanes
        assert min(layer.slots.values()) >= 0


def test_changed_rounding_constant_in_the_rtl_is_found_and_named(digits):
    folder, program = digits
    rtl = folder / "design" / "rtl" / "accelerator.v"
    text = rtl.read_text()
    lines = [i for i, line in enumerate(text.splitlines()) if re.search(r"\$signed\(shifted\) \+ \$signed\(", line)]
    assert len(lines) == 1
    changed = text.splitlines()
    changed[lines[0]] = re.sub(r"(\$signed\(shifted\) \+) \$signed\(.*?\)", r"\1 0", changed[lines[0]])
    try:
        rtl.write_text("\n".join(changed) + "\n")
        with pytest.raises(VerificationError, match="conv1"):
            check(program, folder, 8)
    finally:
        rtl.write_text(text)
