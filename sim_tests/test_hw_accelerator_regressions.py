"""Small networks that once came out wrong: each is the shortest that shows its fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from designs import write_program
from models import Spec, add, argmax, avg_pool, build_model, concat, conv, linear, max_pool
from zeroskip.boards.simulation import StallPattern, simulate
from zeroskip.compiler import reference
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.ir import Tensor
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import Program
from zeroskip.compiler.target import Format, Geometry

LAST = {"relu": False, "out_signed": True}
SPARSE = {"structure": "nonstructured", "keep": 0.3}


@dataclass(frozen=True)
class Case:
    """A network, a geometry and the formats of its layers."""

    shape: tuple[int, ...]
    specs: tuple[Spec, ...]
    geometry: Geometry
    formats: Mapping[str, Format] = field(default_factory=dict)
    stalls: StallPattern | None = None
    bits: int = 8

    def program(self) -> Program:
        """Compile the network."""
        model = build_model(np.random.default_rng(0), Tensor("input", self.shape, self.bits), self.specs)
        return lower(run_passes(model)[0], self.geometry, self.formats)


CASES = {
    # the last column's capture began a slow word again in the middle of the drain
    "slow_word_of_one_column": Case(
        (14,), (linear(48), linear(7, **SPARSE), linear(5, **LAST)), Geometry(8, columns=6, results=4),
        {"fc2": Format.RELATIVE},
    ),
    # a later capture of a layer of one column met the descriptor of the next one
    "late_columns": Case((1, 2, 2), (conv(24, 1), linear(1, **LAST)), Geometry(4, columns=24, results=2)),
    # the next inference wrote into the output buffer before the one before had left
    "output_overtaken": Case((1,), (linear(24, **LAST),), Geometry(4), stalls=StallPattern(0, 0.9, 5)),
    # the interval left out the wait for the output buffer
    "output_waited_for": Case((3, 2, 2), (max_pool(2), linear(33, **LAST)), Geometry(8, columns=8)),
    # the first group ended before the second row's length had come
    "short_first_row": Case(
        (2, 3, 3), (max_pool(3), linear(12, empty_rows=(0, 1, 2, 3, 4), **SPARSE), linear(4, **LAST)), Geometry(4),
        {"fc1": Format.RELATIVE, "fc2": Format.RELATIVE},
    ),
    # a layer was said to read later than it does: its first slots do not wait for the drain
    "read_before_written": Case(
        (2, 2, 2), (conv(2, 1, **LAST), add("conv1", "input", **LAST), linear(3, **LAST)), Geometry(8)
    ),
    # a convolution of one output a group was taken for a depthwise one
    "one_output_a_group": Case((4, 5, 5), (conv(2, 3, groups=2), linear(3, **LAST)), Geometry(4, cores=2)),
    # the tensor that a copy reads was stored for its strided reader
    "copy_of_a_strided_input": Case(
        (2, 6, 6), (max_pool(3, 2), conv(2, (5, 5), inputs=("input",)), add("pool1", "conv1", **LAST)),
        Geometry(4),
    ),
    # a lane beyond the last input has no positions to encode
    "fewer_inputs_than_lanes": Case(
        (3,), (linear(5, **SPARSE), linear(4, **LAST)), Geometry(8, banked_vectors=True),
        {"fc1": Format.RELATIVE, "fc2": Format.RELATIVE},
    ),
    # a part of a joined vector was written from the word on in which it begins
    "part_begins_within_a_word": Case(
        (2, 3, 3),
        (
            conv(3, 2, out_scale=1.0), conv(2, 2, inputs=("input",), out_scale=1.0), concat("conv1", "conv2"),
            linear(4, **LAST),
        ),
        Geometry(8, columns=2, results=2, banked_vectors=True),
    ),
    # a row of one slot was filled up behind its only bank
    "one_slot_in_a_bank": Case(
        (1, 4, 4), (conv(3, 1, structure="nm", detail={"n": 1, "m": 4}), max_pool(2), linear(3, **LAST)), Geometry(4),
        {"conv1": Format.BANKS},
    ),
    # the sum with the zero point had only the bits of the scaled accumulator
    "zero_point_wider_than_the_sum": Case(
        (1,), (linear(2, bits=2, power_of_two=True, relu=False, out_zero_point=199),), Geometry(4), bits=2
    ),
    # what an idle column captured late took the place of the first column's next results
    "idle_columns": Case(
        (4, 2, 8), (conv(4, (1, 2), groups=4), conv(4, (1, 4), groups=4, **LAST)),
        Geometry(4, columns=6, results=4),
    ),
    # positions that see padding alone: SqueezeNet's last convolution has such a border
    "padded_by_its_window": Case(
        (2, 7, 7), (conv(6, 3, padding=1), conv(5, 1, padding=1), linear(4, **LAST)),
        Geometry(8, columns=2, results=2),
    ),
    "padded_by_more": Case(
        (2, 6, 5),
        (conv(5, 3, padding=4, **SPARSE), conv(5, 2, padding=(3, 2, 0, 5), stride=2, **SPARSE), linear(4, **LAST)),
        Geometry(4, cores=2), {"conv1": Format.RELATIVE, "conv2": Format.RELATIVE},
    ),
    # what fills the last word of results up is none of them
    "largest_of_a_filled_word": Case(
        (6,), (linear(12), linear(7, **LAST), argmax()), Geometry(8, columns=4, results=4)
    ),
    # the next inference must not reach the largest result before its number is taken
    "largest_waits_for_the_host": Case(
        (1,), (linear(24, **LAST), argmax()), Geometry(4), stalls=StallPattern(0, 0.9, 5)
    ),
    # a number of two bytes
    "largest_of_many": Case((3,), (linear(300, out_bits=3), argmax()), Geometry(8, columns=3)),
    "largest_of_sparse_rows": Case(
        (2, 4, 4), (conv(6, 3, padding=1, **SPARSE), linear(9, **SPARSE, **LAST), argmax()),
        Geometry(4, cores=2, results=2), {"conv1": Format.RELATIVE, "fc1": Format.RELATIVE},
    ),
    "largest_channel": Case(
        (2, 4, 4), (conv(6, 3, padding=1), avg_pool(4), conv(7, 1, **LAST), argmax()), Geometry(4, columns=2, results=2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_network_equals_reference(case, tmp_path):
    program = case.program()
    write_program(program, tmp_path)
    inputs = program.model.golden["input"][:3]
    expected = reference.run(program.model, inputs)
    design = tmp_path / "design"
    result = simulate(design, inputs, expected, stalls=case.stalls, idle_limit=1 << 15).check()
    if case.stalls is None:
        model, counted = program_cycles(program), result.cycles
        assert {layer.name: layer.cycles for layer in model.layers} == counted.layers
        assert (model.total, model.interval) == (counted.total, counted.interval)
