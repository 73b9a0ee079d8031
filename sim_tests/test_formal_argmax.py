"""Proof: the number that is taken is that of the largest code, the lowest of equal ones, whatever their order."""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Assume, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import hold, prove, refute
from zeroskip.hw import argmax
from zeroskip.hw.pipeline import delay


class ArgMaxProof(wiring.Component):
    """Any code against the one that is chosen.

    The solver chooses the codes and the cycles in which they come, when the number is taken, and one number to watch.
    """

    def __init__(self, size: int, parts: int, *, is_signed: bool, says_signed: bool | None = None) -> None:
        self.is_signed = is_signed
        self.dut = argmax.ArgMax(size, parts, is_signed=is_signed if says_signed is None else says_signed)
        bits = self.dut.index_bits
        super().__init__(
            {
                "en": In(parts),
                "word": In(bits),
                "data": In(8 * parts),
                "take": In(1),
                "watch": In(bits),
                "chosen": In(bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        part_bits = (dut.parts - 1).bit_length()
        hold(m, self.watch)
        hold(m, self.chosen)
        first = (self.word << part_bits)[: dut.index_bits]
        m.d.comb += [
            dut.en.eq(self.en),
            dut.number.eq(first),
            dut.data.eq(self.data),
            dut.take.eq(self.take),
            Assume((self.word << part_bits) < dut.size),
            Assume(self.watch < dut.size),
            # the highest and the lowest bit tell the codes of both signs apart
            *(Assume(self.data.word_select(part, 8)[1:7] == 0) for part in range(dut.parts)),
        ]
        watched, known = self._follow(m, self.watch)
        largest, found = self._follow(m, self.chosen)
        right = (largest > watched) | ((largest == watched) & (self.chosen <= self.watch))
        taken = self.take & (dut.index == self.chosen)
        m.d.comb += [Assert(~(taken & known) | (found & right))]
        return m

    def _follow(self, m: Module, number: Value) -> tuple[Value, Value]:
        """Return the code of ``number`` and whether it came since the last one taken, as late as the unit sees it."""
        dut = self.dut
        part_bits = (dut.parts - 1).bit_length()
        part = number[:part_bits]
        here = self.en.bit_select(part, 1) & (self.word == number[part_bits:])
        code = self.data.word_select(part, 8)
        late, late_code = (delay(m, value, 1 + part_bits) for value in (here, code))
        came, value = Signal(), Signal(8)
        m.d.sync += came.eq(late | (came & ~self.take))
        with m.If(late):
            m.d.sync += value.eq(late_code)
        # each code comes once
        m.d.comb += Assume(~(late & came & ~self.take))
        return value.as_signed() if self.is_signed else value, came


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize(("size", "parts"), [(3, 1), (3, 2), pytest.param(6, 4, marks=pytest.mark.slow)])
def test_the_lowest_number_of_the_largest_code_is_taken(size, parts, is_signed):
    prove(ArgMaxProof(size, parts, is_signed=is_signed), 6 if parts < 4 else 7)


def test_codes_in_the_wrong_order_are_found():
    assert "Assert failed" in refute(ArgMaxProof(5, 1, is_signed=True, says_signed=False), 6)


def test_the_highest_number_of_equal_codes_is_found(monkeypatch):
    whole = argmax.ArgMax._key

    def upside_down(self, m, part):
        key = whole(self, m, part)
        return (key ^ ((1 << self.index_bits) - 1))[: len(key)]

    monkeypatch.setattr(argmax.ArgMax, "_key", upside_down)
    assert "Assert failed" in refute(ArgMaxProof(5, 1, is_signed=False), 6)
