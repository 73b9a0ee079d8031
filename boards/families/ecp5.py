"""Lattice ECP5: Yosys, nextpnr-ecp5 and ecppack of project Trellis."""

from __future__ import annotations

import re

from zeroskip.boards.families.ecp5_primitives import ECP5_PRIMITIVES
from zeroskip.boards.families.family import Cell, DedicatedPad, Family, without_module
from zeroskip.compiler.errors import ToolError

__all__ = ["ECP5"]

_WIDE = 18
"""From this port width on, write enables lie on the low address bits."""


def _written(cell: Cell) -> bool:
    """Whether port A or B of a ``DP16KD`` can write."""
    return any(_port_writes(cell, port) for port in "AB")


def _port_writes(cell: Cell, port: str) -> bool:
    pins = cell["connections"]
    width = int(cell["parameters"][f"DATA_WIDTH_{port}"], 2)
    gates = [pins[f"WE{port}"], pins[f"CE{port}"]]
    if any(gate == ["0"] for gate in gates):
        return False
    enables = [pins[f"AD{port}{i}"] for i in range(width // 9 if width >= _WIDE else 0)]
    return not enables or any(enable != ["0"] for enable in enables)


def _unknown_start(cell: Cell) -> None:
    """Let a memory start random: our block RAM model by its own parameter, a distributed one by unknown bits."""
    if cell["type"] == "DP16KD":
        cell["parameters"]["RANDOM_START"] = f"{1:032b}"
    else:
        cell["parameters"]["INITVAL"] = "x" * 64


def _random_start(text: str) -> str:
    """Let ``TRELLIS_FF`` start with a random value instead of the configured one."""
    # Drawn explicitly: Verilator starts output ports at zero, whatever it is told about unknown values.
    text, count = re.subn(r"^\s*initial Q = srval;$", "  initial Q = $random;", text, flags=re.MULTILINE)
    if count != 1:
        raise ToolError(
            f"Yosys' model of TRELLIS_FF must have one initial value to replace, not {count}; "
            "install the Yosys version that this release names in constraints.txt"
        )
    # Our own model of the pin replaces Yosys'; the included files hold vendor names that Yosys has mapped away.
    return re.sub(r"^`include .*$", "", without_module(text, "TRELLIS_IO"), flags=re.MULTILINE)


ECP5 = Family(
    name="ecp5",
    synthesis="synth_ecp5",
    router="nextpnr-ecp5",
    packer="ecppack",
    constraint_suffix="lpf",
    routed_suffix="config",
    bitstream_suffix="bit",
    constraint_option="--lpf=",
    routed_option="--textcfg",
    clock_constraint="FREQUENCY",
    reset_us=1.0,
    used={
        "lut": {"TRELLIS_COMB": 1},
        "ff": {"TRELLIS_FF": 1},
        "bram": {"DP16KD": 1},
        "dsp": {"MULT18X18D": 1},
    },
    lut_cost={"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
    dsp_cost={"MULT18X18D": 1},
    ff_prefix="TRELLIS_FF",
    lut=("LUT4", ("A", "B", "C", "D"), "Z", "INIT"),
    block_rams=("DP16KD",),
    distributed_ram="TRELLIS_DPR16X4",
    operand_bits=18,
    block_shapes=((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36)),
    init_prefix="INITVAL",
    written=_written,
    unknown_start=_unknown_start,
    # common_sim.vh comes before what uses it; the black box of DP16KD in cells_sim.v is replaced by our model.
    simulation_cells=("ecp5/common_sim.vh", "ecp5/ccu2c_sim.vh"),
    own_cells=("ecp5_dp16kd.v", "ecp5_mult18x18d.v", "ecp5_trellis_io.v", "ecp5_usrmclk.v"),
    random_start=_random_start,
    pack_options=("--compress",),
    primitives=ECP5_PRIMITIVES,
    # The clock must be high and low for 2359 ps (speed 6) or 1842 ps (speed 8), by project Trellis' timing data.
    block_ram_mhz={"6": 212.0, "8": 271.0},
    # Lattice FPGA-TN-02039: configuration drives MCLK, and hands it over to the design.
    flash_clock=DedicatedPad("USRMCLK", level="USRMCLKI", released="USRMCLKTS", pad="MCLK"),
)
