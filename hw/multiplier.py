"""The signed multipliers as Verilog modules of their own, so that a device can give its own multiplier for them."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import pair_bits, pair_spacing

__all__ = ["ACTIVATION_BITS", "Multiplier", "PairedMultiplier", "logic_multiplier_verilog", "multiplier_verilog"]

ACTIVATION_BITS = 9
"""Signed: codes of 8 bits, with or without a sign."""


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


class PairedMultiplier(wiring.Component):
    """Multiply an activation with two levels in one multiplier.

    ``a * (b_high * 2**k + b_low) = a * b_high * 2**k + a * b_low``, where ``k`` bits hold the lower product and its
    sign. A negative lower product has borrowed one from the upper: ``a * b_low = p_low``,
    ``a * b_high = p_high + borrow``. The sum that takes ``p_high`` takes ``borrow`` as its carry, so that it costs no
    addition of its own.

    Latency 2 cycles, initiation interval 1, no reset, as :class:`Multiplier`, whose Verilog module it is with operands
    of ``ACTIVATION_BITS`` and ``pair_bits(level_limit)`` bits and the name ``paired_multiplier``.

    Parameters
    ----------
    level_bits : int
    level_limit : int, largest magnitude of a level

    Members
    -------
    a : In(signed(9)), not -256
    b_low, b_high : In(signed(level_bits)), -level_limit to level_limit
    p_low, p_high : Out(signed(pair_spacing(level_limit)))
    borrow : Out(1)
    """

    latency_cycles = Multiplier.latency_cycles

    def __init__(self, level_bits: int, level_limit: int) -> None:
        self.level_bits = level_bits
        self.level_limit = level_limit
        level, product = signed(level_bits), signed(pair_spacing(level_limit))
        super().__init__(
            {
                "a": In(signed(ACTIVATION_BITS)),
                "b_low": In(level),
                "b_high": In(level),
                "p_low": Out(product),
                "p_high": Out(product),
                "borrow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Pack the levels and cut the product."""
        m = Module()
        spacing, bits = pair_spacing(self.level_limit), pair_bits(self.level_limit)
        low = Signal(signed(spacing))
        high = Signal(signed(bits - spacing))
        m.d.comb += [low.eq(self.b_low), high.eq(self.b_high)]
        # bit by bit: look-up tables are faster than a carry chain this short
        borrow: Value = low[-1]
        upper = []
        for bit in high:
            upper.append(bit ^ borrow)
            borrow = borrow & ~bit
        product = Signal(ACTIVATION_BITS + bits)
        m.submodules.multiplier = Instance(
            "paired_multiplier", i_clk=ClockSignal(), i_a=self.a, i_b=Cat(low, *upper), o_p=product
        )
        m.d.comb += [
            self.p_low.eq(product[:spacing]),
            self.p_high.eq(product[spacing : 2 * spacing]),
            self.borrow.eq(self.p_low[-1]),
        ]
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


def logic_multiplier_verilog(a_bits: int, b_bits: int, module: str = "logic_multiplier") -> str:
    """Return a Verilog module that multiplies as that of :func:`multiplier_verilog`, in logic cells, as fast.

    First cycle: two bits of ``b`` at a time select 0, a, 2a, 3a (the sum of two gated operands); second cycle: their
    sum, the sign bit's part subtracted. With ``b`` of 2 bits, which must be -1, 0 or 1, nothing is multiplied: ``a`` is
    passed, negated or dropped.
    """
    _check(a_bits, b_bits)
    p_bits = a_bits + b_bits
    head = (
        f"// Signed multiplier in logic, {a_bits} x {b_bits} bits, with two registers on the way\n"
        f"module {module}(\n    input wire clk,\n"
        f"    input wire signed [{a_bits - 1}:0] a,\n    input wire signed [{b_bits - 1}:0] b,\n"
        f"    output reg signed [{p_bits - 1}:0] p\n);\n"
    )
    if b_bits == 2:
        return head + (
            f"    reg signed [{a_bits - 1}:0] t;\n    reg negative;\n    always @(posedge clk) begin\n"
            f"        negative <= b[1];\n        t <= b[0] ? (b[1] ? ~a : a) : {{{a_bits}{{b[1]}}}};\n"
            "        p <= t + $signed({1'b0, negative});\n    end\nendmodule\n"
        )
    registers, first = [], []
    for low in range(0, b_bits - 1, 2):
        name = f"part_{low}"
        registers.append(f"    reg signed [{a_bits + 1}:0] {name};\n")
        operand = f"(b[{low}] ? a : {a_bits}'sd0)"
        if low + 1 < b_bits - 1:
            operand = f"{operand} + $signed({{(b[{low + 1}] ? a : {a_bits}'sd0), 1'b0}})"
        first.append(f"        {name} <= {operand};\n")
    registers.append(
        f"    reg signed [{a_bits - 1}:0] sign_part;\n    wire signed [{p_bits - 1}:0] wide = sign_part;\n"
    )
    first.append(f"        sign_part <= b[{b_bits - 1}] ? a : {a_bits}'sd0;\n")
    wires = "".join(f"    wire signed [{p_bits - 1}:0] wide_{low} = part_{low};\n" for low in range(0, b_bits - 1, 2))
    sums = " + ".join(f"(wide_{low} <<< {low})" for low in range(0, b_bits - 1, 2))
    return (
        head
        + "".join(registers)
        + wires
        + "    always @(posedge clk) begin\n"
        + "".join(first)
        + f"        p <= {sums} - (wide <<< {b_bits - 1});\n    end\nendmodule\n"
    )


def _check(a_bits: int, b_bits: int) -> None:
    for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
        if bits < 2:
            raise ValueError(f"Operand width {name!r} must be at least 2, not {bits!r}")
