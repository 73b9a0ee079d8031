"""Gowin LittleBee (GW1N, GW1NR): Yosys, nextpnr-himbaechel-gowin and gowin_pack of project Apicula."""

from __future__ import annotations

import re

from zeroskip.boards.families.family import Cell, Family, without_module
from zeroskip.boards.families.gowin_primitives import GOWIN_PRIMITIVES
from zeroskip.compiler.errors import ToolError

__all__ = ["GOWIN"]

_WRITE_PINS = {
    "SP": ("CE", "WRE"),
    "SPX9": ("CE", "WRE"),
    "SDPB": ("CEA",),
    "SDPX9B": ("CEA",),
    "DPB": ("WREA", "WREB"),
    "DPX9B": ("WREA", "WREB"),
}
"""Block RAM -> pins without which it is never written: all of those of a single port, one of those of two ports."""

_OWN_MODULES = ("SP", "SPX9", "TBUF")
"""Modules of Yosys' file that ours replace: two without a body, and one with a tristate net."""


def _written(cell: Cell) -> bool:
    """Whether a port of a block RAM can write."""
    pins = [cell["connections"][pin] != ["0"] for pin in _WRITE_PINS[cell["type"]]]
    return any(pins) if cell["type"].startswith("DP") else all(pins)


def _unknown_start(cell: Cell) -> None:
    """Let a memory start random: our block RAM models by their parameter, a distributed one by unknown bits."""
    if cell["type"] in _WRITE_PINS:
        cell["parameters"]["RANDOM_START"] = f"{1:032b}"
    else:
        for column in range(4):
            cell["parameters"][f"INIT_{column}"] = "x" * 16


def _random_start(text: str) -> str:
    """Let flip-flops start with a random value instead of the configured one."""
    # Drawn explicitly: Verilator starts output ports at zero, whatever it is told about unknown values.
    text, count = re.subn(r"^\s*initial Q = INIT;$", "  initial Q = $random;", text, flags=re.MULTILINE)
    if count != text.count("initial Q =") or not count:
        raise ToolError(
            "Yosys' models of Gowin flip-flops must all take their initial value from INIT; "
            "install the Yosys version that this release names in constraints.txt"
        )
    for name in _OWN_MODULES:
        text = without_module(text, name)
    return text


GOWIN = Family(
    name="gowin",
    synthesis="synth_gowin -family gw1n",
    router="nextpnr-himbaechel-gowin",
    packer="gowin_pack",
    constraint_suffix="cst",
    routed_suffix="routed.json",
    bitstream_suffix="fs",
    constraint_option="--vopt=cst=",
    routed_option="--write",
    clock_constraint="",
    reset_us=1.0,
    used={
        "lut": {"LUT4": 1, "ALU": 1, "RAM16SDP4": 4},
        "ff": {"DFF": 1},
        "bram": {"BSRAM": 1},
        "dsp": {"MULT9X9": 0.5, "MULT18X18": 1, "MULT36X36": 4},
    },
    lut_cost={"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "ALU": 1, "RAM16SDP4": 4},
    dsp_cost={"MULT9X9": 0.5, "MULT18X18": 1, "MULT36X36": 4},
    ff_prefix="DFF",
    luts={f"LUT{inputs}": tuple(f"I{number}" for number in range(inputs)) for inputs in range(1, 5)},
    lut_output="F",
    lut_table="INIT",
    block_rams=tuple(_WRITE_PINS),
    distributed_ram="RAM16SDP4",
    operand_bits=18,
    block_shapes=((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36)),
    init_prefix="INIT_",
    written=_written,
    unknown_start=_unknown_start,
    simulation_cells=("gowin/cells_sim.v",),
    own_cells=("gowin_bsram.v", "gowin_mult.v", "gowin_tbuf.v"),
    random_start=_random_start,
    ties={"GND": "0", "VCC": "1"},
    package_option="",
    speed_option="",
    packed_option="-o",
    untimed="nextpnr has no delays for the multipliers of Gowin devices and for one port of their dual-port block RAM",
    primitives=GOWIN_PRIMITIVES,
)
