"""The multiplier in logic and the one of two products equal the multiplier, for all operands."""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import prove, refute
from zeroskip.compiler.target import MAX_ACTIVATION, pair_bits
from zeroskip.hw.multiplier import Multiplier, PairedMultiplier, logic_multiplier_verilog, multiplier_verilog

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


class TwoProducts(wiring.Component):
    """Two products of one multiplier beside those of two; ``largest`` is what the solver may take as a level."""

    def __init__(self, level_bits: int, level_limit: int, largest: int) -> None:
        self.pair = PairedMultiplier(level_bits, level_limit)
        self.largest = largest
        level = signed(level_bits)
        super().__init__({"a": In(signed(A_BITS)), "b_low": In(level), "b_high": In(level)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pair = pair = self.pair
        m.submodules.low = low = Multiplier(A_BITS, pair.level_bits)
        m.submodules.high = high = Multiplier(A_BITS, pair.level_bits)
        m.d.comb += [
            pair.a.eq(self.a),
            pair.b_low.eq(self.b_low),
            pair.b_high.eq(self.b_high),
            low.a.eq(self.a),
            low.b.eq(self.b_low),
            high.a.eq(self.a),
            high.b.eq(self.b_high),
            Assume(self.a >= -MAX_ACTIVATION),
        ]
        for level in (self.b_low, self.b_high):
            m.d.comb += Assume((level >= -self.largest) & (level <= self.largest))
        age = Signal(2)
        with m.If(age != 3):
            m.d.sync += age.eq(age + 1)
        with m.If(age >= PairedMultiplier.latency_cycles):
            m.d.comb += Assert((pair.p_low == low.p) & (pair.p_high + pair.borrow == high.p))
        return m


def verilog_of(harness: TwoProducts) -> list[str]:
    """Return the modules that a proof has instances of."""
    bits = pair_bits(harness.pair.level_limit)
    return [multiplier_verilog(A_BITS, harness.pair.level_bits), multiplier_verilog(A_BITS, bits, "paired_multiplier")]


@pytest.mark.parametrize(("level_bits", "level_limit"), [(2, 1), (3, 2), (3, 3)])
def test_two_products_of_one_multiplier_equal_those_of_two(level_bits, level_limit):
    harness = TwoProducts(level_bits, level_limit, level_limit)
    prove(harness, 4, verilog=verilog_of(harness))


def test_level_beyond_the_limit_is_found():
    harness = TwoProducts(3, 2, 3)
    assert "Assert failed" in refute(harness, 4, verilog=verilog_of(harness))
