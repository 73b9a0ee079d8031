"""iCE40's multiplier ``SB_MAC16`` as an explicit cell with its registers."""

from __future__ import annotations

from zeroskip.boards.families.primitives import Primitives, module_text

__all__ = ["ICE40_PRIMITIVES"]

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


ICE40_PRIMITIVES = Primitives(_multiplier)
