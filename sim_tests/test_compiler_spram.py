"""Parameters in SPRAM: how an image is cut into blocks, which ones move, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import models
from designs import write_design
from zeroskip.compiler.emit import load_program
from zeroskip.compiler.errors import CapacityError, CompileError
from zeroskip.compiler.geometry import choose_program
from zeroskip.compiler.lower import lower
from zeroskip.compiler.pipeline import run_passes
from zeroskip.compiler.program import Program
from zeroskip.compiler.resources import DEFAULT_LIMITS, Limits, program_blocks
from zeroskip.compiler.spram import SPRAM_DEPTH, move_roms, spram_count, spram_grid, spram_roms, spram_words
from zeroskip.compiler.target import Engine, Geometry
from zeroskip.hw.design import compile_artifact

ICE40_SHAPES = ((2048, 2), (1024, 4), (512, 8), (256, 16))


def limits(blocks: int, spram: int = 4) -> Limits:
    return Limits("a small device", 8, blocks, ICE40_SHAPES, 16, spram)


def styles(program: Program) -> dict[str, str]:
    return {rom.name: rom.style for rom in program.roms if rom.name.startswith(("weights", "index"))}


@pytest.mark.parametrize(
    ("depth", "width", "grid"),
    [(1, 1, (1, 1)), (16384, 16, (1, 1)), (16385, 16, (2, 1)), (300, 17, (1, 2)), (40000, 64, (3, 4))],
)
def test_words_come_back_from_their_blocks(depth, width, grid):
    words = [(0x9E3779B97F4A7C15 * (address + 1)) % (1 << width) for address in range(depth)]
    rows, columns = spram_grid(depth, width)
    blocks = spram_words(words, width)
    assert (rows, columns) == grid and len(blocks) == rows * columns
    assert all(0 <= part < 1 << 16 for block in blocks for part in block)
    for address, word in enumerate(words):
        row, place = divmod(address, SPRAM_DEPTH)
        parts = (blocks[row * columns + column][place] << (16 * column) for column in range(columns))
        assert sum(parts) == word


@pytest.fixture(scope="module")
def lenet():
    return run_passes(models.lenet5_like())[0]


def test_only_what_block_ram_does_not_hold_moves(lenet):
    roomy = choose_program(lenet, Engine.SPARSE, limits(40), lanes=4).program
    assert styles(roomy) == {"weights_0": "block", "index_0": "block"}
    tight = choose_program(lenet, Engine.SPARSE, limits(30), lanes=4)
    assert styles(tight.program) == {"weights_0": "block", "index_0": "spram"}
    assert program_blocks(tight.program, ICE40_SHAPES) <= 30 < program_blocks(roomy, ICE40_SHAPES)
    assert "in SPRAM: index_0, 3 of 4 blocks, loaded at boot" in tight.reasons
    # where it lies changes nothing else
    assert tight.program.timing == roomy.timing
    assert [replace(rom, style="") for rom in tight.program.roms] == [replace(rom, style="") for rom in roomy.roms]
    tighter = choose_program(lenet, Engine.SPARSE, limits(17), lanes=4).program
    assert styles(tighter) == {"weights_0": "spram", "index_0": "spram"}
    assert [rom.name for rom in spram_roms(tighter.roms)] == ["index_0", "weights_0"]


def test_search_finds_an_array_that_only_fits_with_spram(lenet):
    with pytest.raises(CapacityError, match="^Network .* needs at least 39 block RAMs and 6 multipliers, but a small"):
        choose_program(lenet, Engine.SPARSE, limits(30, 0))
    program = choose_program(lenet, Engine.SPARSE, limits(30)).program
    assert 0 < spram_count(program.roms) <= 4
    assert choose_program(lenet, Engine.SPARSE, limits(40), spram=1).program.rom("weights_0").style == "spram"
    assert "spram" not in styles(choose_program(lenet, Engine.SPARSE, limits(40)).program).values()


def test_setting_overrules(lenet):
    everything = choose_program(lenet, Engine.SPARSE, limits(40), lanes=4, spram=1).program
    assert styles(everything) == {"weights_0": "spram", "index_0": "spram"}
    nothing = choose_program(lenet, Engine.SPARSE, limits(5), lanes=4, spram=0).program
    assert styles(nothing) == {"weights_0": "block", "index_0": "block"}


def test_device_without_spram_is_named(lenet):
    text = (
        "Setting 'spram' needs a device with SPRAM, but an ECP5-25F has none; leave it out, or name a board that has "
        "with --board, such as icebreaker"
    )
    with pytest.raises(CapacityError, match=f"^{text}$"):
        choose_program(lenet, Engine.SPARSE, DEFAULT_LIMITS, spram=1)


def test_parameters_too_large_for_spram_are_counted(lenet):
    text = (
        "Weights and indices of network 'lenet5-nonstructured-w4a8' need 7 SPRAMs with 8 lanes x 1 columns, but a "
        "small device has 4; prune further, store fewer bits a weight, choose fewer lanes, columns or cores, or leave "
        "out --set spram=1, which then moves only what block RAM does not hold"
    )
    with pytest.raises(CapacityError, match=f"^{text}$"):
        choose_program(lenet, Engine.SPARSE, limits(40), lanes=8, spram=1)
    dense, _ = run_passes(models.lenet5_like("dense"))
    text = (
        "Network 'lenet5-dense-w4a8' needs at least 236 block RAMs and 10 multipliers beside 4 of 4 SPRAMs (all "
        "weights and indices would take 8), but a small device has 200 and 8; prune further, use fewer weight bits or "
        "name a larger board"
    )
    with pytest.raises(CapacityError, match=f"^{re.escape(text)}$"):
        choose_program(dense, Engine.DENSE, limits(200))


def test_only_parameters_move():
    program = lower(run_passes(models.tiny("asymmetric_padding"))[0], Geometry(4), {})
    for name in ("front", "no_such_rom"):
        with pytest.raises(CompileError, match=f"^Program has no image '{name}' that SPRAM could hold; compile again$"):
            move_roms(program, [name])


def test_folder_is_read_back(tmp_path):
    write_design(models.tiny("asymmetric_padding"), tmp_path, "dense", 4)
    assert json.loads((tmp_path / "design" / "ir" / "program.json").read_text())["spram"] == []
    settings = {"lanes": "4", "columns": "2", "spram": "1"}
    compile_artifact(tmp_path / "model.safetensors", tmp_path / "design", limits=limits(30), settings=settings)
    program = load_program(tmp_path / "design")
    assert [rom.name for rom in spram_roms(program.roms)] == ["weights_0", "weights_1"]
    for name in ("weights_0", "weights_1"):
        assert json.loads((tmp_path / "design" / "rom" / f"{name}.json").read_text())["style"] == "spram"
