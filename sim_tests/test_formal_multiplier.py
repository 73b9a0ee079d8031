"""The multiplier in logic equals the multiplier, for every pair of operands."""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import prove
from zeroskip.hw.multiplier import Multiplier, logic_multiplier_verilog, multiplier_verilog

A_BITS = 9


class SameProducts(wiring.Component):
    """Both multipliers on the same operands, which the solver chooses in every cycle."""

    def __init__(self, b_bits: int) -> None:
        self.b_bits = b_bits
        super().__init__({"a": In(signed(A_BITS)), "b": In(signed(b_bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.hard = hard = Multiplier(A_BITS, self.b_bits)
        m.submodules.logic = logic = Multiplier(A_BITS, self.b_bits, "logic_multiplier")
        for multiplier in (hard, logic):
            m.d.comb += [multiplier.a.eq(self.a), multiplier.b.eq(self.b)]
        age = Signal(2)
        with m.If(age != 3):
            m.d.sync += age.eq(age + 1)
        if self.b_bits == 2:
            # levels of 2 bits are -1, 0 and 1
            m.d.comb += Assume(self.b != -2)
        with m.If(age >= Multiplier.latency_cycles):
            m.d.comb += Assert(hard.p == logic.p)
        return m


@pytest.mark.parametrize("b_bits", [2, 3, 4, 5])
def test_logic_multiplier_equals_multiplier(b_bits):
    sources = [multiplier_verilog(A_BITS, b_bits), logic_multiplier_verilog(A_BITS, b_bits)]
    prove(SameProducts(b_bits), 4, verilog=sources)
