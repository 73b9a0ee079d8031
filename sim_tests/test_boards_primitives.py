"""The device's own multipliers and memories: found, cut into tiles, filled, and equal to the RTL cycle by cycle."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from designs import write_design
from lane_sample import write_lanes
from models import tiny
from pair_bench import count_differences, pair_text
from zeroskip.boards import find_board, primitives
from zeroskip.boards.primitives import Memory, Multiplier, choose_shapes, find_modules, replace_modules
from zeroskip.boards.synthesis import synthesize
from zeroskip.boards.tools import find_tool
from zeroskip.compiler.errors import CapacityError, InputError, ToolError, VerificationError
from zeroskip.compiler.target import pair_bits
from zeroskip.hw.adder import gated_adder_verilog
from zeroskip.hw.memory import bank_verilog, rom_module
from zeroskip.hw.multiplier import multiplier_verilog

ECP5 = find_board("ulx3s-25f")
ICE40 = find_board("icebreaker")
GOWIN = find_board("tangnano9k")

ROMS = {
    "one": (1, 3, 1), "narrow": (16384, 1, 1), "pairs": (5000, 2, 2), "nibbles": (4096, 3, 1), "bytes": (2048, 9, 1),
    "wide": (700, 40, 2), "halves": (512, 36, 1), "words": (300, 70, 1), "deep": (17000, 2, 1),
}  # fmt: skip
"""Name -> depth, width, read ports: every shape of a block RAM, and one that must be cut by depth."""

PAIR_BITS = {ECP5.name: pair_bits(15), ICE40.name: pair_bits(7), GOWIN.name: pair_bits(15)}
"""The widest operand of two levels that the multiplier of a board takes."""

WARM_UP = 2_100


def write_modules(directory, roms, *, bank=None, multiplier=None, paired=None, adder=None):
    """Write a folder with nothing but modules that may be replaced."""
    for folder in ("rtl", "rom"):
        (directory / folder).mkdir()
    generator = np.random.default_rng(8)
    for name, (depth, width, ports) in roms.items():
        (directory / "rtl" / f"rom_{name}.v").write_text(rom_module(name, depth, width, ports, "block", "raw"))
        words = [int.from_bytes(generator.bytes(16), "big") >> (128 - width) for _ in range(depth)]
        (directory / "rom" / f"{name}.mem").write_text("".join(f"{word:x}\n" for word in words))
    if bank:
        (directory / "rtl" / "activation_bank.v").write_text(bank_verilog(*bank))
    if multiplier:
        (directory / "rtl" / "multiplier.v").write_text(multiplier_verilog(*multiplier))
    if paired:
        text = multiplier_verilog(*paired, "paired_multiplier")
        (directory / "rtl" / "paired_multiplier.v").write_text(text)
    if adder:
        (directory / "rtl" / "gated_adder.v").write_text(gated_adder_verilog(adder[0], carry=adder[1]))
    return directory


def test_generated_modules_are_found_and_others_left_alone(tmp_path):
    directory = write_modules(tmp_path, {"a": (4, 5, 2), "b": (3, 2, 1)}, bank=(100, 1), multiplier=(9, 4))
    found = find_modules(directory)
    words = tuple(int(word, 16) for word in (directory / "rom" / "a.mem").read_text().split())
    assert found[:2] == [Memory("activation_bank", 100, 8, 1, ()), Multiplier("multiplier", 9, 4)]
    assert found[2] == Memory("rom_a", 4, 5, 2, words)
    for name in ("activation_bank", "multiplier", "rom_a"):
        path = directory / "rtl" / f"{name}.v"
        path.write_text(path.read_text().replace("<= a_r * b_r", "<= a_r + b_r").replace("word", "other"))
    (directory / "rtl" / "rom_b.v").write_text(rom_module("b", 3, 2, 1, "logic", "raw"))
    assert find_modules(directory) == []
    assert replace_modules(directory, ECP5) is None


def test_family_without_block_ram_registers_replaces_the_multiplier_only(tmp_path):
    directory = write_modules(tmp_path, {"a": (4, 5, 1)}, bank=(100, 1), multiplier=(9, 4))
    assert replace_modules(directory, ICE40).modules == replace_modules(directory, GOWIN).modules == ("multiplier",)
    assert replace_modules(directory, ECP5).modules == ("multiplier", "activation_bank", "rom_a")
    plain = dataclasses.replace(ICE40, family=dataclasses.replace(ICE40.family, primitives=None))
    assert replace_modules(directory, plain) is None


def test_image_that_does_not_fit_the_rom(tmp_path):
    directory = write_modules(tmp_path, {"a": (4, 5, 1)})
    image = directory / "rom" / "a.mem"
    image.write_text("1\n2\n3\n20\n")
    with pytest.raises(
        InputError, match="a.mem' has 4 words of up to 6 bits, but module 'rom_a' has 4 words of 5 bits$"
    ):
        find_modules(directory)
    image.write_text("1\n")
    with pytest.raises(InputError, match="has 1 words of up to 1 bits, but module 'rom_a' has 4 words of 5 bits$"):
        find_modules(directory)
    image.write_text("x\n")
    with pytest.raises(InputError, match="a.mem' must hold one hexadecimal word a line: invalid literal"):
        find_modules(directory)


def test_memories_are_cut_by_bits_while_block_ram_lasts():
    block_ram = ECP5.family.primitives.block_ram
    deep, bank = Memory("rom_deep", 3000, 9, 1, (0,) * 3000), Memory("activation_bank", 5000, 8, 1, ())
    instances = {"rom_deep": 1, "activation_bank": 4}
    assert choose_shapes([deep, bank], instances, block_ram, 19) == {
        "rom_deep": (4096, 4),
        "activation_bank": (8192, 2),
    }
    # Five thousand words of eight bits are four block RAMs by bits, but three by depth, four times over.
    assert choose_shapes([deep, bank], instances, block_ram, 18) == {
        "rom_deep": (4096, 4),
        "activation_bank": (2048, 9),
    }
    assert choose_shapes([deep, bank], instances, block_ram, 2) == {"rom_deep": (2048, 9), "activation_bank": (2048, 9)}


@pytest.mark.parametrize("name", ROMS)
def test_tiles_hold_the_image(tmp_path, name):
    directory = write_modules(tmp_path, {name: ROMS[name]})
    (memory,) = find_modules(directory)
    replacement = replace_modules(directory, ECP5)
    tiles = replacement.tiles[memory.module]
    depth, width = next((tile.depth, tile.width) for tile, _ in tiles.values())
    columns = -(-memory.width // width)
    for address, word in enumerate(memory.words):
        row, offset = divmod(address, depth)
        parts = (tiles[f"tile_{row}_{column}"][1][offset] << (width * column) for column in range(columns))
        assert sum(parts) == word
    assert len(tiles) == replacement.cells.count("DP16KD #(")


def test_wrongly_generated_content_is_refused(tmp_path, monkeypatch):
    directory = write_modules(tmp_path, {"a": (600, 16, 1)})
    family = ECP5.family
    block_ram = family.primitives.block_ram

    def spoiled(name, tile, words):
        return block_ram.cell(name, tile, [words[0] ^ 4, *words[1:]])

    bad = dataclasses.replace(family.primitives, block_ram=dataclasses.replace(block_ram, cell=spoiled))
    board = dataclasses.replace(ECP5, family=dataclasses.replace(family, primitives=bad))
    with pytest.raises(
        VerificationError, match="^Block RAM 'rom_a_tile_0_0' as generated does not hold its part of the ROM image$"
    ):
        replace_modules(directory, board)


def test_operands_too_wide_for_the_device():
    with pytest.raises(ValueError, match="^Operands of MULT18X18D must have at most 18 bits, not 9 and 19$"):
        ECP5.family.primitives.multiplier("m", 9, 19)
    with pytest.raises(ValueError, match="^Operands of SB_MAC16 must have at most 16 bits, not 17 and 9$"):
        ICE40.family.primitives.multiplier("m", 17, 9)
    with pytest.raises(ValueError, match="^Operands of MULT18X18 must have at most 18 bits, not 9 and 19$"):
        GOWIN.family.primitives.multiplier("m", 9, 19)


@pytest.mark.parametrize(("bits", "kind"), [((9, 9), "MULT9X9"), ((10, 3), "MULT18X18"), ((18, 18), "MULT18X18")])
def test_gowin_multiplier_is_the_smaller_that_fits(bits, kind):
    assert f"  {kind} #(" in GOWIN.family.primitives.multiplier("m", *bits)


@pytest.mark.parametrize(
    ("bits", "boards"),
    [((16, 16), {"ulx3s-25f", "icebreaker", "tangnano9k"}), ((18, 17), {"ulx3s-25f", "tangnano9k"})],
)
def test_multiplier_too_wide_for_the_device_is_left_to_synthesis(tmp_path, bits, boards):
    directory = write_modules(tmp_path, {}, multiplier=bits)
    assert {board.name for board in (ECP5, ICE40, GOWIN) if replace_modules(directory, board)} == boards


def compare(directory, board, bank, multiplier, paired=None, adder=None):
    """Run the replaced modules beside the RTL under random stimuli from random state; return the differences."""
    checks, portable = [], []
    folder = directory / board.name
    folder.mkdir()
    replacement = replace_modules(directory, board)
    text = re.sub(r"^\(\* blackbox \*\)\nmodule .*?^endmodule\n", "", replacement.wrappers, flags=re.M | re.S)
    for module in replacement.modules:
        portable.append(
            (directory / "rtl" / f"{module}.v").read_text().replace(f"module {module}(", f"module {module}_rtl(")
        )
        text = text.replace(f"module {module}(", f"module {module}_own(")
        numbers = {"paired_multiplier": paired, "gated_adder": adder}.get(module, multiplier)
        checks.append(_check(module, bank, numbers))
    sources = [folder / "rtl.v", folder / "own.v"]
    for path, content in zip(sources, ("".join(portable), text + replacement.cells), strict=True):
        path.write_text(content)
    return count_differences(checks, sources, board.family, folder, cwd=directory)


def _check(module, bank, multiplier):
    """Return both versions of a module under the same inputs, and a count of what differs."""
    if module.endswith("multiplier"):
        a_bits, b_bits = multiplier
        outputs = {"p": a_bits + b_bits}
        inputs = [f".a(in[{a_bits - 1}:0])", f".b(in[{31 + b_bits}:32])"]
        extra = ""
    elif module == "gated_adder":
        bits, carry = multiplier
        outputs = {"s": bits}
        inputs = [".clear(in[63])", f".a(in[{bits - 1}:0])", f".b(in[{30 + bits}:31])"]
        inputs += [".carry(in[62])"] if carry else []
        extra = ""
    elif module == "activation_bank":
        outputs = {"read_data": 8}
        depth, parts = bank
        bits, words = (depth - 1).bit_length(), depth // parts
        write_bits = (words - 1).bit_length()
        inputs = [".read_addr(read)", ".write_addr(write)", ".write_data(value)", ".write_en(write_en)"]
        extra = (
            f"wire [{bits - 1}:0] read = in[{bits - 1}:0] % {depth};\n"
            f"wire [{write_bits - 1}:0] write = cycle < {words} ? cycle : in[{write_bits + 19}:20] % {words};\n"
            f"reg [{8 * parts - 1}:0] value; always @(posedge clk) value <= $random;\n"
            f"wire [{parts - 1}:0] write_en = cycle < {words} ? -1 : read / {parts} != write ? in[63:60] : 0;\n"
        )
    else:
        depth, width, ports = ROMS[module.removeprefix("rom_")]
        outputs = {f"data_{port}": width for port in range(ports)}
        inputs = [f".addr_{port}(in[{20 * port}+:20] % {depth})" for port in range(ports)]
        extra = ""
    clocked = [] if module == "gated_adder" else [".clk(clk)"]
    versions = (f"{module}_rtl", f"{module}_own")
    return extra + pair_text(module, versions, [*clocked, *inputs], outputs, WARM_UP)


@pytest.fixture
def tools():
    try:
        for name in ("yosys", "verilator", "nextpnr-ecp5", "ecppack", "nextpnr-ice40", "icepack"):
            find_tool(name)
    except ToolError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_ecp5_cells_behave_like_the_rtl(tmp_path, tools):
    directory = write_modules(tmp_path, ROMS, bank=(2000, 1), multiplier=(9, 9))
    modules = ("multiplier", "activation_bank", *sorted(f"rom_{name}" for name in ROMS))
    assert compare(directory, ECP5, (2000, 1), (9, 9)) == dict.fromkeys(modules, 0)


@pytest.mark.slow
@pytest.mark.parametrize("bank", [(2100, 1), (2000, 2), (2000, 4), (2100, 4)], ids=str)
def test_bank_of_bytes_behaves_like_the_rtl(tmp_path, tools, monkeypatch, bank):
    directory = write_modules(tmp_path, {}, bank=bank)
    monkeypatch.setattr(primitives, "choose_shapes", lambda *_: {"activation_bank": (2048, 9)})
    assert compare(directory, ECP5, bank, None) == {"activation_bank": 0}


def test_bank_with_byte_enables_is_not_cut_by_bits(tmp_path):
    directory = write_modules(tmp_path, {}, bank=(4000, 2))
    tiles = replace_modules(directory, ECP5).tiles["activation_bank"]
    assert sorted(tiles) == ["tile_0_0", "tile_1_0"]
    assert {(tile.width, tile.parts) for tile, _ in tiles.values()} == {(9, 2)}


@pytest.mark.parametrize("board", [ECP5, ICE40, GOWIN], ids=lambda board: board.name)
def test_multiplier_behaves_like_the_rtl(tmp_path, tools, board):
    directory = write_modules(tmp_path, {}, multiplier=(9, 2), paired=(9, PAIR_BITS[board.name]))
    differences = compare(directory, board, None, (9, 2), (9, PAIR_BITS[board.name]))
    assert differences == {"multiplier": 0, "paired_multiplier": 0}


@pytest.mark.parametrize("adder", [(20, False), (21, False), (20, True), (5, True)], ids=str)
def test_gated_adder_behaves_like_the_rtl(tmp_path, tools, adder):
    directory = write_modules(tmp_path, {}, adder=adder)
    assert compare(directory, ECP5, None, None, adder=adder) == {"gated_adder": 0}


def test_two_levels_too_wide_for_the_device_are_refused(tmp_path):
    directory = write_modules(tmp_path, {}, paired=(9, pair_bits(8)))
    assert replace_modules(directory, ECP5).modules == ("paired_multiplier",)
    with pytest.raises(
        CapacityError,
        match="^Module 'paired_multiplier' needs a multiplier with operands of 17 bits, but those of board "
        "'icebreaker' have 16; compile without --set paired_products=1$",
    ):
        replace_modules(directory, ICE40)


@pytest.mark.slow
def test_netlist_of_paired_products(tmp_path, tools):
    write_design(tiny("asymmetric_padding"), tmp_path, "dense", 4, columns=3, paired_products=1)
    result = synthesize(tmp_path / "design", ECP5)
    assert result.check.mismatches == 0 and result.check.values > 0
    # a pair and the column left over, and the two halves of the scaling
    assert result.to_report()["resources"]["dsp"]["used"] == 4 + 4 + 2


@pytest.mark.slow
@pytest.mark.parametrize("board", [ECP5, ICE40], ids=lambda board: board.name)
def test_flow_with_and_without_own_cells(tmp_path, tools, board):
    directory = write_lanes(tmp_path / "lanes", 2, bits=4)
    plain = synthesize(directory, board, portable=True)
    own = synthesize(directory, board)
    assert [step.reused for step in own.steps] == [False] * 3
    assert plain.check.mismatches == own.check.mismatches == 0
    assert plain.check.values == own.check.values == 6
    report, other = own.to_report()["resources"], plain.to_report()["resources"]
    assert report["primitives"] is True and other["primitives"] is False
    assert report["dsp"]["used"] == 2
    netlist = json.loads((own.folder / "top.json").read_text())["modules"]["top"]["cells"]
    kinds = {cell["type"] for cell in netlist.values()}
    assert not any("tile" in kind or kind.startswith("multiplier") for kind in kinds)
    if board is ECP5:
        assert report["bram"]["used"] == 3
        assert report["ff"]["used"] < other["ff"]["used"]
        _spoil(netlist, directory, board)


def _spoil(cells, directory, board):
    """Change one bit of the ROM in the mapped netlist."""
    replacement = replace_modules(directory, board)
    replacement.refuse_wrong_images(cells, board.family)
    parameters = cells["accelerator.weights.tile_0_0"]["parameters"]
    bits = parameters["INITVAL_00"]
    parameters["INITVAL_00"] = bits[:-1] + ("0" if bits[-1] == "1" else "1")
    with pytest.raises(
        VerificationError,
        match="^Block RAM 'accelerator.weights.tile_0_0' of the netlist holds other words than the image of module "
        "'rom_weights'$",
    ):
        replacement.refuse_wrong_images(cells, board.family)
