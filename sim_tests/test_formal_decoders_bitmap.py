"""Proof: the bitmap decoder emits what the masks say, without a bubble, for every mask, pass, pause and restart."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from amaranth.hdl import Array, Assert, Assume, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from designs import engine_config
from formal import hold, prove, refute
from zeroskip.compiler.encodings.bitmap import encode_row
from zeroskip.compiler.program import FieldSpec
from zeroskip.compiler.target import Geometry
from zeroskip.hw.decoders import bitmap
from zeroskip.hw.decoders.index import IndexDecoder
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout

POINTER_BITS = 3
POSITION_BITS = 5
LANES = 4
ROM_CYCLES = bitmap.ARRIVAL_CYCLES - 1


@dataclass(frozen=True)
class Case:
    """One proof: bits a mask word, mask words a row, passes a row, cycles from reset, whether it starts again.

    A start and its latency take 5 cycles. With 13 there are 8 emissions, or a restart between them; with 16 a pause
    fills every place for words fetched ahead, and all of them are emitted.
    """

    width: int
    row_words: int
    passes: int = 1
    depth: int = 13
    restarts: bool = True


class MaskWalk(wiring.Component):
    """Walk the masks bit by bit, as :func:`zeroskip.compiler.streams.decode_positions`; the solver chooses them.

    What it says is of the present emission, which ``take`` takes. A pass ends with ``last``, at the row's last emission
    or later.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        super().__init__(
            {
                "start": In(1),
                "base": In(POINTER_BITS),
                "take": In(1),
                "last": In(1),
                "words": In(case.width << POINTER_BITS),
                "number": Out(range(case.row_words + 1)),
                "bit": Out(range(case.width + 1)),
                "filler": Out(1),
                "word_end": Out(1),
                "first": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case = self.case
        words = Array(self.words.word_select(i, case.width) for i in range(1 << POINTER_BITS))
        row, number, passes = Signal(POINTER_BITS), self.number, Signal(range(case.passes + 1))
        rest, left, lowest = (Signal(case.width, name=name) for name in ("rest", "left", "lowest"))
        fresh, idle, row_end, word_ends = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            rest.eq(Mux(fresh, words[(row + number)[:POINTER_BITS]], left)),
            lowest.eq(rest & -rest),
            word_ends.eq((rest & ~lowest) == 0),
            row_end.eq(idle | (word_ends & (number == case.row_words - 1))),
            self.filler.eq(idle | (rest == 0)),
            self.word_end.eq(idle | word_ends),
            Assume(~(self.take & self.last) | row_end),
        ]
        for bit in range(case.width):
            with m.If(lowest[bit]):
                m.d.comb += self.bit.eq(bit)
        with m.If(self.take):
            m.d.sync += [left.eq(rest & ~lowest), fresh.eq(0), self.first.eq(self.last)]
            with m.If(self.last):
                m.d.sync += [idle.eq(0), fresh.eq(1), number.eq(0), passes.eq(passes + 1)]
                with m.If(passes == case.passes - 1):
                    m.d.sync += [passes.eq(0), row.eq(row + case.row_words)]
            with m.Elif(row_end):
                m.d.sync += idle.eq(1)
            with m.Elif(word_ends):
                m.d.sync += [number.eq(number + 1), fresh.eq(1)]
        with m.If(self.start):
            m.d.sync += [row.eq(self.base), number.eq(0), passes.eq(0), fresh.eq(1), idle.eq(0), self.first.eq(1)]
        return m


class DecoderProof(wiring.Component):
    """The decoder against the walk; the solver chooses masks, starts, and when an emission is taken or a pass ends."""

    def __init__(self, case: Case) -> None:
        self.case = case
        super().__init__(
            {
                "masks": In(case.width << POINTER_BITS),
                "start": In(1),
                "base": In(POINTER_BITS),
                "enable": In(1),
                "last": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case = self.case
        m.submodules.dut = dut = bitmap.BitmapDecoder(case.width, POINTER_BITS, 2, 2)
        m.submodules.walk = walk = MaskWalk(case)
        hold(m, self.masks)
        if not case.restarts:
            m.d.comb += Assume(self.start == ~delay(m, Const(1), 1))
        words = Array(self.masks.word_select(i, case.width) for i in range(1 << POINTER_BITS))
        age = Signal(range(dut.latency_cycles + 1))
        due = age == dut.latency_cycles
        with m.If((age != 0) & ~due):
            m.d.sync += age.eq(age + 1)
        with m.If(self.start):
            m.d.sync += age.eq(1)
        m.d.comb += [
            dut.start.eq(self.start),
            dut.base.eq(self.base),
            dut.mask_last.eq(case.row_words - 1),
            dut.pass_last.eq(case.passes - 1),
            dut.mask.eq(delay(m, words[dut.pointer], bitmap.ARRIVAL_CYCLES)),
            dut.enable.eq(self.enable & due),
            dut.last.eq(self.last),
            walk.start.eq(self.start),
            walk.base.eq(self.base),
            walk.words.eq(self.masks),
            walk.take.eq(self.enable & due),
            walk.last.eq(self.last),
            Assert(dut.valid == due),
            Assert(~due | (dut.filler == walk.filler)),
            Assert(~due | dut.filler | (dut.bit == walk.bit)),
            Assert(~due | (dut.word_end == walk.word_end)),
        ]
        return m


class PositionProof(wiring.Component):
    """The whole decoder of a core against the walk: positions and fillers, from slots of the index ROM."""

    layout = descriptor_layout(
        [
            FieldSpec("bank", 0, 2),
            FieldSpec("banked", 2, 1),
            FieldSpec("escape", 3, 2),
            FieldSpec("index_base", 5, POINTER_BITS),
            FieldSpec("mask_last", 8, 2),
            FieldSpec("masked", 10, 1),
            FieldSpec("pass_last", 11, 2),
            FieldSpec("tap_base", 13, 2),
        ]
    )

    def __init__(self, case: Case) -> None:
        self.case = case
        self.config = engine_config(
            Geometry(LANES),
            activation_depth=8,
            index_width=case.width,
            mask_bits=case.width,
            has_windowed=True,
            has_banks=True,
        )
        super().__init__(
            {"masks": In(case.width << POINTER_BITS), "base": In(POINTER_BITS), "first_tap": In(2), "valid": In(1)}
            | {"last": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case = self.case
        m.submodules.dut = dut = IndexDecoder(self.config, self.layout, POSITION_BITS, POINTER_BITS)
        m.submodules.walk = walk = MaskWalk(case)
        hold(m, self.masks, self.base, self.first_tap)
        d = dut.descriptor
        start = ~delay(m, Const(1), 1)
        # slots reach the word's stage no sooner than the first mask word's
        ready = delay(m, Const(1), bitmap.BitmapDecoder.latency_cycles - 1)
        words = Array(self.masks.word_select(i, LANES * case.width) for i in range((1 << POINTER_BITS) // LANES))
        pointer = dut.mask_pointer
        m.d.comb += [
            d.bank.eq(case.width),
            d.banked.eq(1),
            d.masked.eq(1),
            d.escape.eq((1 << case.width) - 1),
            d.index_base.eq(self.base),
            d.mask_last.eq(case.row_words - 1),
            d.pass_last.eq(case.passes - 1),
            d.tap_base.eq(self.first_tap),
            dut.start.eq(start),
            dut.word.eq(delay(m, words[pointer >> 2], ROM_CYCLES)),
            dut.slot.eq(delay(m, pointer[:2], ROM_CYCLES)),
            walk.start.eq(start),
            walk.base.eq(self.base),
            walk.words.eq(self.masks),
            walk.take.eq(self.valid & ready),
            walk.last.eq(self.last),
            dut.flags.valid.eq(self.valid & ready),
            dut.flags.first.eq(walk.first),
            dut.flags.last.eq(self.last),
        ]
        cycles = dut.latency_cycles
        flags, filler = delay(m, dut.flags, cycles, FLAGS), delay(m, walk.filler, cycles)
        position = delay(m, (self.first_tap + walk.number * case.width + walk.bit)[:POSITION_BITS], cycles)
        m.d.comb += [
            Assert(dut.o_flags.as_value() == flags.as_value()),
            Assert(~flags.valid | (dut.fillers[0] == filler)),
            Assert(~flags.valid | filler | (dut.positions[0] == position)),
        ]
        return m


CASES = {
    "one_word_a_row": Case(width=3, row_words=1),
    "rows_of_two_words": Case(width=2, row_words=2, depth=12),
    "two_passes": Case(width=2, row_words=2, passes=2, depth=12),
    "one_word_three_passes": Case(width=2, row_words=1, passes=3, depth=12),
    "one_bit_a_word": Case(width=1, row_words=4),
    "long_pause": Case(width=1, row_words=3, passes=2, depth=16, restarts=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_decoder_emits_the_masks(case):
    prove(DecoderProof(case), case.depth)


@pytest.mark.slow
def test_positions_are_those_of_the_masks():
    prove(PositionProof(Case(width=2, row_words=2, passes=2)), 14)


def test_fetching_too_little_ahead_is_found(monkeypatch):
    """With one place less a bubble follows from mask words of one emission each."""
    monkeypatch.setattr(bitmap, "FIFO_WORDS", bitmap.FIFO_WORDS - 1)
    case = CASES["one_bit_a_word"]
    assert "Assert failed" in refute(DecoderProof(case), case.depth)


def test_walking_a_row_once_too_often_is_found(monkeypatch):
    whole = bitmap.BitmapDecoder.elaborate

    def with_one_pass_more(self, platform):
        pass_last = self.pass_last
        self.pass_last = Signal.like(pass_last)
        m = whole(self, platform)
        m.d.comb += self.pass_last.eq(pass_last + 1)
        return m

    monkeypatch.setattr(bitmap.BitmapDecoder, "elaborate", with_one_pass_more)
    case = CASES["rows_of_two_words"]
    assert "Assert failed" in refute(DecoderProof(case), case.depth)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_walk_of_the_proof_undoes_the_coder(width):
    generator = random.Random(width)
    words = 1 << POINTER_BITS
    length = width * words
    walk = MaskWalk(Case(width, words))

    async def bench(ctx) -> None:
        for density in (0, 0.1, 0.5, 0.9, 1):
            kept = [position for position in range(length) if generator.random() < density]
            masks = encode_row(kept, length, width)
            ctx.set(walk.words, sum(mask << number * width for number, mask in enumerate(masks)))
            ctx.set(walk.start, 1)
            await ctx.tick()
            ctx.set(walk.start, 0)
            ctx.set(walk.take, 1)
            walked, ends = [], 0
            while ends < words:
                if not ctx.get(walk.filler):
                    walked.append(ctx.get(walk.number) * width + ctx.get(walk.bit))
                ends += ctx.get(walk.word_end)
                await ctx.tick()
            assert walked == kept

    simulator = Simulator(walk)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
