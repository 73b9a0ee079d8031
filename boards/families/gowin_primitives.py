"""Gowin's multipliers ``MULT9X9`` and ``MULT18X18`` as explicit cells with their registers."""

from __future__ import annotations

from zeroskip.boards.families.primitives import Primitives, module_text

__all__ = ["GOWIN_PRIMITIVES"]

_SIZES = (9, 18)

_SETTINGS = {
    **dict.fromkeys(("AREG", "BREG", "OUT_REG"), "1'b1"),
    **dict.fromkeys(("PIPE_REG", "ASIGN_REG", "BSIGN_REG", "SOA_REG"), "1'b0"),
    "MULT_RESET_MODE": '"SYNC"',
}


def _multiplier(name: str, a_bits: int, b_bits: int) -> str:
    """Return the smaller multiplier that takes both operands, with registers at them and at the product."""
    size = next((size for size in _SIZES if max(a_bits, b_bits) <= size), None)
    if size is None:
        raise ValueError(f"Operands of MULT18X18 must have at most {_SIZES[-1]} bits, not {a_bits} and {b_bits}")
    product_bits = a_bits + b_bits
    ports = [
        "input wire clk",
        f"input wire signed [{a_bits - 1}:0] a",
        f"input wire signed [{b_bits - 1}:0] b",
        f"output wire signed [{product_bits - 1}:0] p",
    ]
    pins = {"CLK": "clk", "CE": "1'b1", "RESET": "1'b0", "ASIGN": "1'b1", "BSIGN": "1'b1"}
    pins |= {"ASEL": "1'b0", "BSEL": "1'b0", "SIA": f"{size}'b0", "SIB": f"{size}'b0"}
    pins |= {"A": _extended("a", a_bits, size), "B": _extended("b", b_bits, size), "DOUT": "product"}
    settings = ", ".join(f".{key}({value})" for key, value in _SETTINGS.items())
    wires = ", ".join(f".{key}({value})" for key, value in pins.items())
    body = (
        f"  wire [{2 * size - 1}:0] product;\n  assign p = product[{product_bits - 1}:0];\n"
        f"  MULT{size}X{size} #({settings}) _TECHMAP_REPLACE_ ({wires});\n"
    )
    return module_text(name, ports, body)


def _extended(name: str, bits: int, size: int) -> str:
    return f"{{{{{size - bits}{{{name}[{bits - 1}]}}}}, {name}}}" if bits < size else name


GOWIN_PRIMITIVES = Primitives(_multiplier)
"""No block RAM: nextpnr turns the output register of the GW1N-9C's into flip-flops, since it does not work."""
