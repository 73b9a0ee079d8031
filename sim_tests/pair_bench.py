"""Modules beside their RTL under the same random inputs, from random state: a bench that counts what differs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zeroskip.boards.families.family import Family
from zeroskip.boards.netlist_check import VERILATOR_OPTIONS, simulation_library
from zeroskip.boards.verilator_cache import build_model

__all__ = ["count_differences", "pair_text"]

CYCLES = 20_000
RESET_CYCLES = 4

MAIN = """
#include "Vtop.h"
#include "verilated.h"
#include <cstdlib>
int main(int, char** argv) {
    VerilatedContext context;
    context.randReset(2);
    context.randSeed(7);
    Vtop top(&context);
    for (long i = 0; i < 2 * atol(argv[1]); ++i) {
        top.clk = i & 1;
        top.eval();
    }
    top.final();
    return 0;
}
"""


def pair_text(
    name: str, modules: tuple[str, str], inputs: Sequence[str], outputs: Mapping[str, int], warm_up: int
) -> str:
    """Return both ``modules`` with the same ``inputs`` (connections) and a count of the cycles in which they differ.

    ``outputs`` are bits by port. The first ``warm_up`` cycles, in which memories are filled, do not count.
    """
    wires = "".join(f"wire [{bits - 1}:0] {name}_{port}_want, {name}_{port}_got;\n" for port, bits in outputs.items())
    instances = "".join(
        f"{module} {name}_{end}({', '.join([*inputs, *(f'.{port}({name}_{port}_{end})' for port in outputs)])});\n"
        for module, end in zip(modules, ("want", "got"), strict=True)
    )
    differ = " || ".join(f"{name}_{port}_want !== {name}_{port}_got" for port in outputs)
    return (
        f"{wires}{instances}integer {name}_wrong = 0;\n"
        f"always @(posedge clk) if (cycle > {warm_up} && ({differ})) {name}_wrong <= {name}_wrong + 1;\n"
        f'final $display("{name} %0d", {name}_wrong);\n'
    )


def count_differences(
    texts: Iterable[str], sources: Sequence[Path], family: Family, folder: Path, cwd: Path | None = None
) -> dict[str, int]:
    """Run the pairs in ``texts`` and return by name in how many cycles they differ.

    The texts may use ``clk``, ``rst``, ``cycle`` and 64 random bits ``in``. The program runs in ``cwd``, from where the
    paths of memory images lead.
    """
    bench, main = folder / "bench.v", folder / "main.cpp"
    bench.write_text(
        f"module bench(input clk); reg [63:0] in; integer cycle = 0; wire rst = cycle < {RESET_CYCLES};\n"
        "always @(posedge clk) begin in <= {$random, $random}; cycle <= cycle + 1; end\n"
        + "".join(texts)
        + "endmodule\n"
    )
    main.write_text(MAIN)
    files = [bench, *sources, *simulation_library(folder, family)]
    program = build_model(files, "bench", folder, cpp_sources=[main], verilator_args=VERILATOR_OPTIONS, jobs=2)
    done = subprocess.run([program, str(CYCLES)], cwd=cwd or folder, capture_output=True, text=True, check=True)
    return {name: int(count) for name, count in (line.split() for line in done.stdout.splitlines() if line)}
