"""The accumulator's addition as a Verilog module of its own, so that a device can give its carry chain for it."""

from __future__ import annotations

from amaranth.hdl import Instance, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["GatedAdder", "gated_adder_verilog"]


class GatedAdder(wiring.Component):
    """``s = (clear ? 0 : a) + b``, and 1 more with ``carry`` where the module has one; combinational.

    All adders of a design are instances of one Verilog module. Written as an expression, the gate would become a LUT a
    bit before the carry chain, often far from it; the cells of some carry chains take it in.

    Parameters
    ----------
    bits : int
    carry : bool, whether the module has the input

    Members
    -------
    clear : In(1); a, b : In(signed(bits)); carry : In(1); s : Out(signed(bits))
    """

    def __init__(self, bits: int, *, carry: bool) -> None:
        self.has_carry = carry
        super().__init__(
            {
                "clear": In(1),
                "a": In(signed(bits)),
                "b": In(signed(bits)),
                "carry": In(1),
                "s": Out(signed(bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Instantiate the adder's module."""
        m = Module()
        ports = {"i_clear": self.clear, "i_a": self.a, "i_b": self.b, "o_s": self.s}
        if self.has_carry:
            ports["i_carry"] = self.carry
        m.submodules.adder = Instance("gated_adder", **ports)
        return m


def gated_adder_verilog(bits: int, *, carry: bool) -> str:
    """Return the Verilog module for operands of ``bits``."""
    high = bits - 1
    # one bit more at the low end makes the carry that of the only addition
    body = (
        f"    wire [{bits}:0] sum = {{clear ? {bits}'d0 : a, 1'b1}} + {{b, carry}};\n    assign s = sum[{bits}:1];\n"
        if carry
        else f"    assign s = (clear ? {bits}'d0 : a) + b;\n"
    )
    return (
        f"// Gated adder, {bits} bits, {'with' if carry else 'without'} carry\n"
        f"module gated_adder(\n    input wire clear,\n    input wire [{high}:0] a,\n    input wire [{high}:0] b,\n"
        + ("    input wire carry,\n" if carry else "")
        + f"    output wire [{high}:0] s\n);\n{body}endmodule\n"
    )
