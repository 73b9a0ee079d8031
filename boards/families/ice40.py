"""Lattice iCE40 UltraPlus: Yosys, nextpnr-ice40 and icepack of project IceStorm."""

from __future__ import annotations

import re

from zeroskip.boards.families.family import Cell, Family, without_module
from zeroskip.boards.families.ice40_primitives import ICE40_PRIMITIVES, SPRAM_CELL
from zeroskip.compiler.errors import ToolError

__all__ = ["ICE40"]


def _written(cell: Cell) -> bool:
    """Whether the write port of an ``SB_RAM40_4K`` can write."""
    pins = cell["connections"]
    return all(pins.get(pin) != ["0"] for pin in ("WE", "WCLKE"))


def _unknown_start(cell: Cell) -> None:
    """Let a memory start random: unknown initial bits, which the simulator draws."""
    for digit in "0123456789ABCDEF":
        cell["parameters"][f"INIT_{digit}"] = "x" * 256


def _random_start(text: str) -> str:
    """Let flip-flops start with a random value instead of the configured one."""
    # Drawn explicitly: Verilator starts output ports at zero, whatever it is told about unknown values.
    line = r"^(`define SB_DFF_INIT) initial Q = 0;$"
    text, count = re.subn(line, r"\1 initial Q = $random;", text, flags=re.MULTILINE)
    if count != 1:
        raise ToolError(
            f"Yosys' models of iCE40 flip-flops must share one initial value to replace, not {count}; "
            "install the Yosys version that this release names in constraints.txt"
        )
    # Our own models of the pins replace Yosys'; no other file states a time scale.
    text = without_module(without_module(text, "SB_IO"), "SB_GB_IO")
    return re.sub(r"^`timescale .*$", "", text, flags=re.MULTILINE)


ICE40 = Family(
    name="ice40",
    synthesis="synth_ice40 -device u -dsp",
    router="nextpnr-ice40",
    packer="icepack",
    constraint_suffix="pcf",
    routed_suffix="asc",
    bitstream_suffix="bin",
    constraint_option="--pcf=",
    routed_option="--asc",
    clock_constraint="set_frequency",
    reset_us=15.0,
    used={
        "lut": {"ICESTORM_LC": 1},
        "bram": {"ICESTORM_RAM": 1},
        "dsp": {"ICESTORM_DSP": 1},
        "spram": {"ICESTORM_SPRAM": 1},
    },
    lut_cost={"SB_LUT4": 1},
    dsp_cost={"SB_MAC16": 1},
    ff_prefix="SB_DFF",
    lut=("SB_LUT4", ("I0", "I1", "I2", "I3"), "O", "LUT_INIT"),
    block_rams=("SB_RAM40_4K",),
    distributed_ram="",
    operand_bits=16,
    block_shapes=((2048, 2), (1024, 4), (512, 8), (256, 16)),
    init_prefix="INIT_",
    written=_written,
    unknown_start=_unknown_start,
    simulation_cells=("ice40/cells_sim.v",),
    own_cells=("ice40_sb_io.v",),
    random_start=_random_start,
    primitives=ICE40_PRIMITIVES,
    spram=SPRAM_CELL,
)
