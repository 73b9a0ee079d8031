"""The signed multiplier as a Verilog module of its own, so that a device can give its own multiplier for it."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Instance, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier", "multiplier_verilog"]


class Multiplier(wiring.Component):
    """Multiply two signed numbers exactly: registers at the inputs and at the product.

    All multipliers of one ``module`` are instances of one Verilog module, hence of one size.

    Latency 2 cycles, initiation interval 1. No reset: the product is undefined until two cycles after the first inputs.

    Parameters
    ----------
    a_bits, b_bits : int
    module : str, name of the Verilog module

    Members
    -------
    a : In(signed(a_bits))
    b : In(signed(b_bits))
    p : Out(signed(a_bits + b_bits))

    Raises
    ------
    ValueError
        If an operand has fewer than 2 bits.
    """

    latency_cycles = 2

    def __init__(self, a_bits: int, b_bits: int, module: str = "multiplier") -> None:
        _check(a_bits, b_bits)
        self.module = module
        self.a_bits = a_bits
        self.b_bits = b_bits
        super().__init__(
            {"a": In(signed(a_bits)), "b": In(signed(b_bits)), "p": Out(signed(a_bits + b_bits))},
        )

    def elaborate(self, platform: object) -> Module:
        """Instantiate the multiplier's module."""
        m = Module()
        m.submodules.multiplier = Instance(self.module, i_clk=ClockSignal(), i_a=self.a, i_b=self.b, o_p=self.p)
        return m


def multiplier_verilog(a_bits: int, b_bits: int, module: str = "multiplier") -> str:
    """Return the Verilog module ``module`` for signed operands of ``a_bits`` and ``b_bits``."""
    _check(a_bits, b_bits)
    return (
        f"// Signed multiplier, {a_bits} x {b_bits} bits, with registered operands and product\n"
        f"module {module}(\n    input wire clk,\n"
        f"    input wire signed [{a_bits - 1}:0] a,\n    input wire signed [{b_bits - 1}:0] b,\n"
        f"    output reg signed [{a_bits + b_bits - 1}:0] p\n);\n"
        f"    reg signed [{a_bits - 1}:0] a_r;\n    reg signed [{b_bits - 1}:0] b_r;\n"
        "    always @(posedge clk) begin\n        a_r <= a;\n        b_r <= b;\n        p <= a_r * b_r;\n    end\n"
        "endmodule\n"
    )


def _check(a_bits: int, b_bits: int) -> None:
    for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
        if bits < 2:
            raise ValueError(f"Operand width {name!r} must be at least 2, not {bits!r}")
