"""Proof: the bitmap decoder emits what the mask says, without a bubble, for every mask, pause and restart."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from amaranth.hdl import Array, Assert, Assume, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import hold, prove, refute
from zeroskip.hw.decoders import bitmap
from zeroskip.hw.pipeline import delay

ADDRESS_BITS = 3
POSITION_BITS = 5


@dataclass(frozen=True)
class Case:
    """One proof: bits a mask word, mask words a row, cycles from reset, and whether there are starts after the first.

    A start and its latency take 5 cycles. With 13 there are 8 emissions, or a restart between them; with 16 a pause
    fills every place for words fetched ahead, and all of them are emitted.
    """

    width: int
    row_words: int
    depth: int = 13
    restarts: bool = True


class DecoderProof(wiring.Component):
    """The decoder against one that reads its mask without delay.

    The solver chooses the mask ROM, the starts, and the cycles in which an emission is taken.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        super().__init__(
            {
                "mask": In(case.width << ADDRESS_BITS),
                "start": In(1),
                "address": In(ADDRESS_BITS),
                "base": In(2),
                "enable": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case = self.case
        m.submodules.dut = dut = bitmap.BitmapDecoder(case.width, ADDRESS_BITS, 2, POSITION_BITS)
        hold(m, self.mask, self.base)
        if not case.restarts:
            m.d.comb += Assume(self.start == ~delay(m, Const(1), 1))
        words = Array(self.mask.word_select(i, case.width) for i in range(1 << ADDRESS_BITS))
        m.d.comb += [
            dut.start.eq(self.start),
            dut.address.eq(self.address),
            dut.row_words.eq(case.row_words - 1),
            dut.base.eq(self.base),
            dut.enable.eq(self.enable),
            dut.mask_data.eq(delay(m, words[dut.mask_addr], bitmap.ROM_CYCLES)),
        ]
        self._check(m, dut, words)
        return m

    def _check(self, m: Module, dut: bitmap.BitmapDecoder, words: Array) -> None:
        """Walk the mask bit by bit, one emission a taken cycle."""
        case = self.case
        # the place of the last emission: word address, word of the row, and the bits not yet emitted
        address, number, fresh = Signal(ADDRESS_BITS), Signal(range(case.row_words + 1)), Signal()
        rest, left = Signal(case.width), Signal(case.width)
        first = Signal()
        age = Signal(range(dut.latency_cycles + 1))
        expected_bit = Signal(range(case.width + 1))
        m.d.comb += rest.eq(Mux(fresh, words[address], left))
        lowest = Signal(case.width)
        m.d.comb += lowest.eq(rest & -rest)
        for bit in range(case.width):
            with m.If(lowest[bit]):
                m.d.comb += expected_bit.eq(bit)
        word_ends = (rest & ~lowest) == 0
        row_ends = word_ends & (number == case.row_words - 1)

        due = age == dut.latency_cycles
        with m.If((age != 0) & ~due):
            m.d.sync += age.eq(age + 1)
        with m.If(due & self.enable):
            m.d.sync += [left.eq(rest & ~lowest), fresh.eq(word_ends), first.eq(row_ends)]
            with m.If(word_ends):
                m.d.sync += [address.eq(address + 1), number.eq(Mux(row_ends, 0, number + 1))]
        with m.If(self.start):
            m.d.sync += [age.eq(1), address.eq(self.address), number.eq(0), fresh.eq(1), first.eq(1)]

        position = self.base + number * case.width + expected_bit
        m.d.comb += [
            Assert(dut.valid == due),
            Assert(~due | (dut.filler == (rest == 0))),
            Assert(~due | dut.filler | (dut.position == position)),
            Assert(~due | (dut.row_first == first)),
            Assert(~due | (dut.row_last == row_ends)),
        ]


CASES = {
    "one_word_a_row": Case(width=3, row_words=1),
    "rows_of_two_words": Case(width=2, row_words=2, depth=12),
    "one_bit_a_word": Case(width=1, row_words=4),
    "long_pause": Case(width=1, row_words=3, depth=16, restarts=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_decoder_emits_the_mask(case):
    prove(DecoderProof(case), case.depth)


def test_fetching_too_little_ahead_is_found(monkeypatch):
    """With one place less a bubble follows from mask words of one emission each."""
    monkeypatch.setattr(bitmap, "FIFO_WORDS", bitmap.FIFO_WORDS - 1)
    case = CASES["one_bit_a_word"]
    assert "Assert failed" in refute(DecoderProof(case), case.depth)
