"""Gowin LittleBee (GW1N, GW1NR): Yosys, nextpnr-himbaechel-gowin and gowin_pack of project Apicula."""

from __future__ import annotations

import re

from zeroskip.boards.families.family import Cell, CellDelays, Family, without_module
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


_BLOCK_RAM = CellDelays(setup={"ADB": 43}, launch={"DOB": 3460})
_MULTIPLIER = CellDelays(setup={"A": 399, "B": 399}, launch={"DOUT": 458})
_C6_DELAYS = {
    "LUT4": CellDelays(through={"I0": 1031, "I1": 1098, "I2": 822, "I3": 625}),
    **dict.fromkeys(("DP", "DPX9"), _BLOCK_RAM),
    "RAM16SDP4": CellDelays(setup={"DI": 43}),
    **dict.fromkeys(("MULT9X9", "MULT18X18", "MULT36X36"), _MULTIPLIER),
}
"""What nextpnr leaves out: the LUTs that it adds to lead a wire into a flip-flop, port B of a block RAM, the data of a
distributed one, and all of the multipliers. The numbers are those of project Apicula's data base, which has none of the
multipliers: their registers are taken for flip-flops."""

_LUT_INPUTS = ("I0", "I1", "I2", "I3")


def _wider_lut(inputs: int) -> str:
    """Return a LUT of one to three inputs as one of four: nextpnr follows no path through the others."""
    given = _LUT_INPUTS[:inputs]
    pins = [f".{pin}({pin})" if pin in given else f".{pin}(1'b0)" for pin in _LUT_INPUTS]
    return (
        f"module LUT{inputs}(input {', '.join(given)}, output F);\n"
        f"  parameter [{2**inputs - 1}:0] INIT = 0;\n"
        f"  LUT4 #(.INIT({{{16 >> inputs}{{INIT}}}})) _TECHMAP_REPLACE_ ({', '.join(pins)}, .F(F));\n"
        "endmodule\n"
    )


GOWIN = Family(
    name="gowin",
    synthesis="synth_gowin -family gw1n",
    remap="".join(map(_wider_lut, (1, 2, 3))),
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
        "lut": {"LUT4": 1, "ALU": 1},
        "ff": {"DFF": 1},
        "bram": {"BSRAM": 1},
        "dsp": {"MULT9X9": 0.5, "MULT18X18": 1, "MULT36X36": 4},
    },
    lut_cost={"LUT4": 1, "ALU": 1, "RAM16SDP4": 4},
    dsp_cost={"MULT9X9": 0.5, "MULT18X18": 1, "MULT36X36": 4},
    ff_prefix="DFF",
    lut=("LUT4", _LUT_INPUTS, "F", "INIT"),
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
    missing_delays={"C6/I5": _C6_DELAYS},
    sources=("IBUF", "GOWIN_VCC", "GOWIN_GND"),
    spare_lut="_passthrough_lut$",
    primitives=GOWIN_PRIMITIVES,
)
