"""Two products of one multiplier, for all operands at full width."""

from __future__ import annotations

import subprocess

import pytest
from amaranth.back import verilog

from zeroskip.boards.netlist_check import VERILATOR_OPTIONS
from zeroskip.boards.tools import find_tool
from zeroskip.boards.verilator_cache import build_model
from zeroskip.compiler.errors import ToolError
from zeroskip.compiler.target import MAX_ACTIVATION, pair_bits, pair_spacing
from zeroskip.hw.multiplier import ACTIVATION_BITS, PairedMultiplier, multiplier_verilog

CASES = {1: 2, 3: 3, 7: 4, 8: 5, 15: 5}
"""Largest level -> bits of a level: where the width of a product or of the packed levels changes."""

MAIN = """
#include "Vtop.h"
#include "verilated.h"
#include <cstdlib>
int main(int, char** argv) {
    VerilatedContext context;
    Vtop top(&context);
    for (long i = 0; i < 2 * atol(argv[1]); ++i) {
        top.clk = i & 1;
        top.eval();
    }
    top.final();
    return 0;
}
"""


def _modules(limit: int) -> str:
    """Return the paired multiplier and the module it is made of, named by the largest level."""
    text = verilog.convert(PairedMultiplier(CASES[limit], limit), name=f"pair_{limit}", emit_src=False)
    text += multiplier_verilog(ACTIVATION_BITS, pair_bits(limit), "paired_multiplier")
    return text.replace("paired_multiplier", f"paired_multiplier_{limit}")


def _check(limit: int) -> str:
    """Return what walks through all operands up to ``limit`` and counts them, and the products that are wrong."""
    bits, product, levels, activations = CASES[limit], pair_spacing(limit), 2 * limit + 1, 2 * MAX_ACTIVATION + 1
    return f"""
    integer seen_{limit} = 0, wrong_{limit} = 0;
    wire signed [{ACTIVATION_BITS - 1}:0] a_{limit} = cycle % {activations} - {MAX_ACTIVATION};
    wire signed [{bits - 1}:0] low_{limit} = cycle / {activations} % {levels} - {limit};
    wire signed [{bits - 1}:0] high_{limit} = cycle / {activations * levels} % {levels} - {limit};
    wire signed [{product - 1}:0] p_low_{limit}, p_high_{limit};
    wire borrow_{limit};
    integer want_low_{limit} [0:1], want_high_{limit} [0:1];
    pair_{limit} pair_{limit}(.clk(clk), .rst(1'b0), .a(a_{limit}), .b_low(low_{limit}), .b_high(high_{limit}),
        .p_low(p_low_{limit}), .p_high(p_high_{limit}), .borrow(borrow_{limit}));
    always @(posedge clk) begin
        want_low_{limit}[0] <= a_{limit} * low_{limit};
        want_high_{limit}[0] <= a_{limit} * high_{limit};
        want_low_{limit}[1] <= want_low_{limit}[0];
        want_high_{limit}[1] <= want_high_{limit}[0];
        if (cycle >= 2 && cycle < {activations * levels**2 + 2}) begin
            seen_{limit} <= seen_{limit} + 1;
            if (p_low_{limit} != want_low_{limit}[1]
                || p_high_{limit} + $signed({{1'b0, borrow_{limit}}}) != want_high_{limit}[1])
                wrong_{limit} <= wrong_{limit} + 1;
        end
    end
    final $display("{limit} %0d %0d", seen_{limit}, wrong_{limit});
"""


def test_two_products_of_one_multiplier_for_all_operands(tmp_path):
    try:
        find_tool("verilator")
    except ToolError as error:
        pytest.skip(str(error))
    checks = "".join(_check(limit) for limit in CASES)
    bench = (
        f"module bench(input clk); integer cycle = 0; always @(posedge clk) cycle <= cycle + 1;\n{checks}endmodule\n"
    )
    (tmp_path / "bench.v").write_text("".join(_modules(limit) for limit in CASES) + bench)
    (tmp_path / "main.cpp").write_text(MAIN)
    program = build_model(
        [tmp_path / "bench.v"],
        "bench",
        tmp_path,
        cpp_sources=[tmp_path / "main.cpp"],
        verilator_args=VERILATOR_OPTIONS,
        jobs=2,
    )
    operands = {limit: (2 * MAX_ACTIVATION + 1) * (2 * limit + 1) ** 2 for limit in CASES}
    done = subprocess.run([program, str(max(operands.values()) + 5)], capture_output=True, text=True, check=True)
    counts = {int(limit): (int(seen), int(wrong)) for limit, seen, wrong in map(str.split, done.stdout.splitlines())}
    assert counts == {limit: (count, 0) for limit, count in operands.items()}
