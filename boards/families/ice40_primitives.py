"""iCE40's multiplier ``SB_MAC16`` and single-port RAM ``SB_SPRAM256KA`` as explicit cells."""

from __future__ import annotations

from zeroskip.boards.families.primitives import Primitives, address_bits, module_text
from zeroskip.compiler.spram import SPRAM_BITS, SPRAM_DEPTH, spram_grid

__all__ = ["ICE40_PRIMITIVES", "SPRAM_CELL"]

SPRAM_CELL = "SB_SPRAM256KA"

_OPERAND_BITS = 16

_SETTINGS = {
    **dict.fromkeys(("A_REG", "B_REG", "PIPELINE_16x16_MULT_REG2", "A_SIGNED", "B_SIGNED"), "1'b1"),
    **dict.fromkeys(("C_REG", "D_REG", "TOP_8x8_MULT_REG", "BOT_8x8_MULT_REG", "PIPELINE_16x16_MULT_REG1"), "1'b0"),
    **dict.fromkeys(("MODE_8x8", "NEG_TRIGGER", "TOPADDSUB_UPPERINPUT", "BOTADDSUB_UPPERINPUT"), "1'b0"),
    **dict.fromkeys(("TOPADDSUB_LOWERINPUT", "TOPADDSUB_CARRYSELECT"), "2'b00"),
    **dict.fromkeys(("BOTADDSUB_LOWERINPUT", "BOTADDSUB_CARRYSELECT"), "2'b00"),
    **dict.fromkeys(("TOPOUTPUT_SELECT", "BOTOUTPUT_SELECT"), "2'b11"),
}
"""Registered operands, one product of 16 x 16 bits in its register, and that on the output."""

_LOW = ("C", "D")
_OFF = (
    "AHOLD", "BHOLD", "CHOLD", "DHOLD", "IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT", "OLOADTOP", "OLOADBOT",
    "ADDSUBTOP", "ADDSUBBOT", "OHOLDTOP", "OHOLDBOT", "CI", "ACCUMCI", "SIGNEXTIN",
)  # fmt: skip


def _multiplier(name: str, a_bits: int, b_bits: int) -> str:
    """Return a multiplier with registers at its operands and its product."""
    if max(a_bits, b_bits) > _OPERAND_BITS:
        raise ValueError(f"Operands of SB_MAC16 must have at most {_OPERAND_BITS} bits, not {a_bits} and {b_bits}")
    product_bits = a_bits + b_bits
    ports = [
        "input wire clk",
        f"input wire signed [{a_bits - 1}:0] a",
        f"input wire signed [{b_bits - 1}:0] b",
        f"output wire signed [{product_bits - 1}:0] p",
    ]
    pins = {"CLK": "clk", "CE": "1'b1", "A": _extended("a", a_bits), "B": _extended("b", b_bits), "O": "product"}
    pins |= {pin: "16'b0" for pin in _LOW} | {pin: "1'b0" for pin in _OFF}
    settings = ", ".join(f".{key}({value})" for key, value in _SETTINGS.items())
    wires = ", ".join(f".{key}({value})" for key, value in pins.items())
    body = (
        f"  wire [31:0] product;\n  assign p = product[{product_bits - 1}:0];\n"
        f"  SB_MAC16 #({settings}) _TECHMAP_REPLACE_ ({wires});\n"
    )
    return module_text(name, ports, body)


def _extended(name: str, bits: int) -> str:
    return f"{{{{{_OPERAND_BITS - bits}{{{name}[{bits - 1}]}}}}, {name}}}" if bits < _OPERAND_BITS else name


def _spram(name: str, depth: int, width: int) -> str:
    """Return a ROM in SPRAM: its blocks, the choice of the row, and the output register, which the blocks lack."""
    rows, columns = spram_grid(depth, width)
    bits, low = address_bits(depth), address_bits(SPRAM_DEPTH)
    ports = [
        "input wire clk",
        f"input wire [{bits - 1}:0] addr_0",
        f"output reg [{width - 1}:0] data_0",
        f"input wire [{rows * columns - 1}:0] boot_en",
        f"input wire [{low - 1}:0] boot_addr",
        f"input wire [{SPRAM_BITS - 1}:0] boot_data",
    ]
    inside = f"addr_0[{low - 1}:0]" if bits >= low else f"{{{low - bits}'b0, addr_0}}"
    body = f"  wire [{low - 1}:0] address = |boot_en ? boot_addr : {inside};\n"
    for row in range(rows):
        body += f"  wire [{SPRAM_BITS * columns - 1}:0] row_{row};\n"
        for column in range(columns):
            pins = {
                "ADDRESS": "address", "DATAIN": "boot_data", "MASKWREN": "4'b1111",
                "WREN": f"boot_en[{row * columns + column}]", "CHIPSELECT": "1'b1", "CLOCK": "clk",
                "STANDBY": "1'b0", "SLEEP": "1'b0", "POWEROFF": "1'b1",
                "DATAOUT": f"row_{row}[{SPRAM_BITS * (column + 1) - 1}:{SPRAM_BITS * column}]",
            }  # fmt: skip
            wires = ", ".join(f".{pin}({value})" for pin, value in pins.items())
            body += f"  {SPRAM_CELL} block_{row}_{column} ({wires});\n"
    value = "row_0"
    if rows > 1:
        body += f"  reg [{bits - low - 1}:0] row;\n  always @(posedge clk) row <= addr_0[{bits - 1}:{low}];\n"
        value = " : ".join([*(f"row == {number} ? row_{number}" for number in range(rows - 1)), f"row_{rows - 1}"])
    return module_text(name, ports, f"{body}  always @(posedge clk) data_0 <= {value};\n")


ICE40_PRIMITIVES = Primitives(_multiplier, spram=_spram)
