"""ROMs in SPRAM: the behavioural twin and the device's own cells, loaded and read side by side."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from zeroskip.boards import find_board
from zeroskip.boards.netlist_check import VERILATOR_OPTIONS, simulation_library
from zeroskip.boards.primitives import Spram, find_modules, replace_modules
from zeroskip.boards.tools import find_tool
from zeroskip.boards.verilator_cache import build_model
from zeroskip.compiler.errors import ToolError
from zeroskip.compiler.spram import SPRAM_DEPTH, spram_grid
from zeroskip.hw.memory import spram_module

ICE40 = find_board("icebreaker")

ROMS = {"small": (300, 20), "one": (1, 3), "full": (16384, 16), "deep": (17000, 7), "large": (16385, 40)}
"""Name -> depth and width: one block, several side by side, several rows, both."""

READS = 20_000

MAIN = """
#include "Vtop.h"
#include "verilated.h"
#include <cstdlib>
int main(int, char** argv) {
    VerilatedContext context;
    context.randReset(2);
    context.randSeed(3);
    Vtop top(&context);
    for (long i = 0; i < 2 * atol(argv[1]); ++i) {
        top.clk = i & 1;
        top.eval();
    }
    top.final();
    return 0;
}
"""


def write_roms(directory):
    for folder in ("rtl", "rom"):
        (directory / folder).mkdir()
    generator = np.random.default_rng(1)
    for name, (depth, width) in ROMS.items():
        (directory / "rtl" / f"rom_{name}.v").write_text(spram_module(name, depth, width, "raw"))
        words = generator.integers(0, 1 << width, depth).tolist()
        (directory / "rom" / f"{name}.mem").write_text("".join(f"{word:x}\n" for word in words))
    return directory


def bench(name: str) -> str:
    """Return both versions of a ROM: before boot the twin must read its image, behind it both what was written."""
    depth, width = ROMS[name]
    rows, columns = spram_grid(depth, width)
    last = depth - (rows - 1) * SPRAM_DEPTH
    booted = READS + rows * columns * SPRAM_DEPTH
    ports = f".clk(clk), .addr_0(addr_{name}), .boot_en(en_{name}), .boot_addr(place_{name}), .boot_data(in[15:0])"
    return f"""
  reg [{width - 1}:0] image_{name} [0:{depth - 1}];
  initial $readmemh("rom/{name}.mem", image_{name});
  wire [31:0] addr_{name} = in[63:32] % {depth};
  wire [31:0] step_{name} = cycle - {READS};
  wire [31:0] block_{name} = step_{name} / {SPRAM_DEPTH};
  wire [31:0] place_{name} = step_{name} % {SPRAM_DEPTH};
  wire loads_{name} = cycle >= {READS} && cycle < {booted}
      && (block_{name} / {columns} < {rows - 1} || place_{name} < {last});
  wire [{rows * columns - 1}:0] en_{name} = loads_{name} ? 1 << block_{name} : 0;
  reg [{width - 1}:0] first_{name}, second_{name};
  always @(posedge clk) begin first_{name} <= image_{name}[addr_{name}]; second_{name} <= first_{name}; end
  wire [{width - 1}:0] twin_{name}, own_{name};
  rom_{name}_rtl twin_of_{name}({ports}, .data_0(twin_{name}));
  rom_{name} own_of_{name}({ports}, .data_0(own_{name}));
  integer before_{name} = 0, after_{name} = 0, changed_{name} = 0;
  always @(posedge clk) begin
    if (cycle > 2 && cycle < {READS} && twin_{name} !== second_{name}) before_{name} <= before_{name} + 1;
    if (cycle > {booted + 2} && twin_{name} !== own_{name}) after_{name} <= after_{name} + 1;
    if (cycle > {booted + 2} && twin_{name} !== second_{name}) changed_{name} <= changed_{name} + 1;
  end
  final $display("{name} %0d %0d %0d", before_{name}, after_{name}, changed_{name});
"""


@pytest.mark.slow
def test_twin_and_cells_are_loaded_and_read_alike(tmp_path):
    try:
        find_tool("yosys"), find_tool("verilator")
    except ToolError as error:
        pytest.skip(str(error))
    directory = write_roms(tmp_path)
    replacement = replace_modules(directory, ICE40, portable=True)
    assert sorted(replacement.modules) == sorted(f"rom_{name}" for name in ROMS) and not replacement.cells
    assert replacement.wrappers.count("SB_SPRAM256KA block_") == sum(
        np.prod(spram_grid(*size)) for size in ROMS.values()
    )
    twins = "".join(
        (directory / "rtl" / f"rom_{name}.v").read_text().replace(f"module rom_{name}(", f"module rom_{name}_rtl(")
        for name in ROMS
    )
    body = "".join(bench(name) for name in ROMS)
    head = "module bench(input clk);\n  reg [63:0] in; integer cycle = 0;\n"
    head += "  always @(posedge clk) begin in <= {$random, $random}; cycle <= cycle + 1; end\n"
    files = {"bench.v": f"{head}{body}endmodule\n", "rtl.v": twins, "own.v": replacement.wrappers, "main.cpp": MAIN}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    sources = [*(tmp_path / name for name in files if name.endswith(".v")), *simulation_library(tmp_path, ICE40.family)]
    main = [tmp_path / "main.cpp"]
    program = build_model(sources, "bench", tmp_path, cpp_sources=main, verilator_args=VERILATOR_OPTIONS, jobs=2)
    cycles = 2 * READS + 6 * SPRAM_DEPTH
    done = subprocess.run([program, str(cycles)], cwd=directory, capture_output=True, text=True, check=True)
    results = {name: tuple(map(int, counts)) for name, *counts in (line.split() for line in done.stdout.splitlines())}
    assert {name: result[:2] for name, result in results.items()} == dict.fromkeys(ROMS, (0, 0))
    # what boot wrote is not the image that the twin began with
    assert all(results[name][2] > 1000 for name in ROMS if name != "one")


def test_modules_written_otherwise_are_left_alone(tmp_path):
    directory = write_roms(tmp_path)
    assert sorted(find_modules(directory), key=lambda rom: rom.module) == [
        Spram(f"rom_{name}", *ROMS[name]) for name in sorted(ROMS)
    ]
    path = directory / "rtl" / "rom_small.v"
    path.write_text(path.read_text().replace("word_0 <=", "word_0 <= ~"))
    assert Spram("rom_small", *ROMS["small"]) not in find_modules(directory)
