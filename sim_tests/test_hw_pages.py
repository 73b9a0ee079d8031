"""Designs whose parameters come from outside: every value, every cycle, and a wrong byte."""

from __future__ import annotations

import re

import pytest

import designs
import models
from test_hw_accelerator import check
from zeroskip.boards.simulation import StallPattern, simulate
from zeroskip.compiler import reference
from zeroskip.compiler.cycle_model import program_cycles
from zeroskip.compiler.errors import InputError, VerificationError
from zeroskip.compiler.formats import layer_formats
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pages import page_bytes, page_parameters
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import FlashRead, Program
from zeroskip.compiler.target import Engine, Geometry


def write(model, folder, engine: Engine, geometry: Geometry, command: int | None, least_words: int = 16) -> Program:
    """Compile ``model`` with its parameters in a flash (read with ``command``) or at the host; return the program."""
    model, _ = run_passes(model)
    flash = None if command is None else FlashRead(command, 4096, 20)
    program = page_parameters(lower(model, geometry, layer_formats(model, engine)), flash, least_words)
    designs.write_program(program, folder)
    return program


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small network with indices, in a flash with four lines."""
    folder = tmp_path_factory.mktemp("digits")
    model = models.digits_like("nonstructured", 0.3)
    return folder, write(model, folder, Engine.SPARSE, Geometry(4, cores=2, results=2), 0x6B)


def test_small_network_with_indices(digits):
    folder, program = digits
    assert len(program.paging.pages) > 4
    assert any(len(page.parts) == 1 and page.parts[0][1] for page in program.paging.pages)
    check(program, folder, 4)
    check(program, folder, 3, StallPattern(input_gap=0.4, output_gap=0.6, seed=5))


def test_rows_shared_by_groups_and_lanes_that_share_multipliers(tmp_path):
    program = write(models.tiny("add_scales"), tmp_path, Engine.DENSE, Geometry(4, columns=3, sign_adds=4), 0xEB, 4)
    check(program, tmp_path, 4)


def test_lenet5_with_its_parameters_in_a_flash(tmp_path):
    model = models.lenet5_like(samples=2)
    program = write(model, tmp_path, Engine.SPARSE, Geometry(8, cores=2, results=2), 0x6B, 256)
    check(program, tmp_path, 2)


def test_parameters_from_the_host_with_pauses(tmp_path):
    model = models.digits_like()
    program = write(model, tmp_path, Engine.DENSE, Geometry(4, columns=2), None)
    check(program, tmp_path, 4)
    for seed in (1, 2):
        check(program, tmp_path, 3, StallPattern(input_gap=0.7, output_gap=0.3, seed=seed))


@pytest.mark.parametrize("number", [0, 5])
def test_wrong_page_is_named_and_not_used(digits, number):
    folder, program = digits
    image = folder / "design" / "rom" / "parameters.bin"
    right = image.read_bytes()
    begin = sum(page_bytes(program, page) for page in program.paging.pages[:number])
    inputs = program.model.golden["input"][:3]
    layer = program.layers[program.paging.pages[number].parts[0][0]].name
    try:
        image.write_bytes(right[: begin + 2] + bytes([right[begin + 2] ^ 4]) + right[begin + 3 :])
        result = simulate(folder / "design", inputs, reference.run(program.model, inputs))
        # what came before is right, and nothing came of the wrong page
        assert result.mismatch_count == 0 and len(result.outputs) == 0
        where = rf"the CRC of page {number} \(layer '{layer}'.*\) is wrong in inference 0, at cycle \d+"
        remedy = "compile again and load 'parameters.bin' anew"
        with pytest.raises(VerificationError, match=f"^Parameters from the flash: {where}; {remedy}$"):
            result.check()
        image.write_bytes(right[:-1])
        with pytest.raises(
            InputError, match=rf"^Parameter image '{re.escape(str(image))}' must have {len(right)} bytes"
        ):
            simulate(folder / "design", inputs, reference.run(program.model, inputs))
    finally:
        image.write_bytes(right)


def test_an_idle_design_has_its_first_pages(digits):
    _, program = digits
    cycles = program_cycles(program)
    first = cycles.layers[0]
    assert first.slots["stall"] < cycles.layers[-1].slots["stall"]
