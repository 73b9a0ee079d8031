"""Proof: the relative decoder undoes the coder, for every row, pause between slots and base at reduced widths."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from formal import Method, hold, prove, refute
from zeroskip.compiler.encodings.relative import encode_row
from zeroskip.compiler.program import FieldSpec
from zeroskip.compiler.target import Engine, EngineConfig, Geometry
from zeroskip.hw.decoders import relative
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout

LANES = 4
WEIGHT_BITS = 2
BASE_BITS = 2
POSITION_BITS = 6


class RowCoder(wiring.Component):
    """Encode a row of ``length`` positions slot by slot, as :func:`zeroskip.compiler.encodings.relative.encode_row`.

    ``mask`` is read with the first slot of a row, ``weight`` with every slot.
    """

    def __init__(self, length: int, index_bits: int) -> None:
        self.length = length
        self.index_bits = index_bits
        super().__init__(
            {
                "mask": In(length),
                "weight": In(WEIGHT_BITS),
                "en": In(1),
                "index": Out(index_bits),
                "code": Out(WEIGHT_BITS),
                "escape": Out(1),
                "position": Out(range(length + (1 << index_bits))),
                "cursor": Out(range(length + (1 << index_bits))),
                "first": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        escape = (1 << self.index_bits) - 1
        running, rest, cursor = Signal(), Signal(self.length), self.cursor
        kept, start, target = Signal(self.length), Signal.like(self.position), Signal.like(self.position)
        m.d.comb += [
            self.first.eq(~running),
            kept.eq(Mux(self.first, self.mask, rest)),
            start.eq(Mux(self.first, 0, cursor)),
            self.escape.eq((kept == 0) | (target - start >= escape)),
            self.index.eq(Mux(self.escape, escape, target - start)),
            self.code.eq(Mux(self.escape, 0, self.weight)),
            self.position.eq(start + self.index),
            self.last.eq((kept == 0) | (~self.escape & ((kept & (kept - 1)) == 0))),
        ]
        for position in reversed(range(self.length)):  # the last assignment counts: the lowest kept position
            with m.If(kept[position]):
                m.d.comb += target.eq(position)
        # what is left to encode lies at or behind the cursor
        m.d.comb += Assert(~running | ((rest != 0) & ((rest & ((1 << cursor) - 1)[: self.length]) == 0)))
        with m.If(self.en):
            m.d.sync += [
                running.eq(~self.last),
                rest.eq(Mux(self.escape, kept, kept & (kept - 1))),
                cursor.eq(self.position + ~self.escape),
            ]
        return m


@dataclass(frozen=True)
class Case:
    """One proof: positions a row, index width, linear (in which lane) or convolution, zero-excluded weights."""

    length: int
    index_bits: int
    linear: bool = False
    lane: int = 0
    zero_excluded: bool = False

    def engine(self) -> EngineConfig:
        """Return the configuration of the hardware."""
        return EngineConfig(
            geometry=Geometry(Engine.SPARSE, LANES),
            activation_depth=1 << POSITION_BITS,
            accumulator_width=8,
            weight_width=WEIGHT_BITS,
            index_width=self.index_bits,
            bias_width=4,
            multiplier_width=0,
            shift_width=0,
            shift_min=1,
            per_channel=False,
            has_padding=False,
            has_pooling=False,
            has_half_away=False,
            has_zero_excluded=self.zero_excluded,
            has_row_offsets=False,
            has_linear=True,
        )


class DecoderProof(wiring.Component):
    """A coder in front of the decoder; every slot must come out as the position and the weight that went in.

    Convolution: the slots go through the chosen slot of the word. Linear: they are one lane's. What other slots of the
    word hold, the solver chooses.
    """

    layout = descriptor_layout(
        [
            FieldSpec("linear", 0, 1),
            FieldSpec("tap_base", 1, BASE_BITS),
            FieldSpec("in_base", 3, BASE_BITS),
            FieldSpec("escape", 5, 4),
            FieldSpec("zero_excluded", 9, 1),
        ]
    )

    def __init__(self, case: Case) -> None:
        self.case = case
        super().__init__(
            {
                "valid": In(1),
                "mask": In(case.length),
                "weight": In(WEIGHT_BITS),
                "slot": In(2),
                "noise": In(LANES * case.engine().slot_bits),
                "base": In(BASE_BITS),
                "other_base": In(BASE_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case = self.case
        m.submodules.dut = dut = relative.RelativeDecoder(case.engine(), self.layout, POSITION_BITS)
        m.submodules.coder = coder = RowCoder(case.length, case.index_bits)
        hold(m, self.base, self.other_base)
        d = dut.descriptor
        m.d.comb += [
            coder.mask.eq(self.mask),
            coder.weight.eq(self.weight),
            coder.en.eq(self.valid),
            d.linear.eq(case.linear),
            d.tap_base.eq(self.other_base if case.linear else self.base),
            d.in_base.eq(self.base if case.linear else self.other_base),
            d.escape.eq((1 << case.index_bits) - 1),
            d.zero_excluded.eq(case.zero_excluded),
        ]
        # word and flags come together; the other slots of the word are noise
        bits = case.engine().slot_bits
        chosen = Const(case.lane, 2) if case.linear else self.slot
        word = Signal(LANES * bits)
        m.d.comb += word.eq(self.noise)
        for slot in range(LANES):
            with m.If(self.valid & (chosen == slot)):
                m.d.comb += word.word_select(slot, bits).eq(Cat(coder.index, coder.code))
        m.d.comb += [
            dut.word.eq(word),
            dut.slot.eq(self.slot),
            dut.flags.valid.eq(self.valid),
            dut.flags.first.eq(self.valid & coder.first),
            dut.flags.last.eq(self.valid & coder.last),
        ]
        self._check(m, dut, coder, word.word_select(chosen, bits)[: case.index_bits])
        return m

    def _check(self, m: Module, dut: relative.RelativeDecoder, coder: RowCoder, index: Value) -> None:
        """Compare position, weight and flags of every slot; within a row positions ascend.

        The position also shows the decoder's cursor while no slot is present, which makes the proof inductive.
        """
        case = self.case
        flags = delay(m, dut.flags, 2, FLAGS)
        present = delay(m, self.valid, 2)
        position = delay(m, coder.position, 2)
        level = Signal(signed(WEIGHT_BITS + 1))
        # zero-excluded codes from 0 up mean one more
        m.d.comb += level.eq(coder.code.as_signed() + (~coder.code[-1] if case.zero_excluded else 0))
        weight = delay(m, Mux(coder.escape, 0, level), 3)
        cursor, started = delay(m, coder.cursor, 2), Signal()
        with m.If(present):
            m.d.sync += started.eq(1)
        last_kept, seen = Signal(POSITION_BITS), Signal()
        kept = present & ~delay(m, coder.escape, 2)
        with m.If(present):
            m.d.sync += [seen.eq((seen & ~flags.first | kept) & ~flags.last)]
        with m.If(kept):
            m.d.sync += last_kept.eq(dut.positions[case.lane])
        m.d.comb += [
            Assert(dut.o_flags.as_value() == flags.as_value()),
            Assert(~present | (dut.positions[case.lane] == self.base + position)),
            Assert(present | ~started | (dut.positions[case.lane] == self.base + cursor + delay(m, index, 2))),
            Assert(delay(m, coder.first, 2, unsigned(1)) | started | ~delay(m, Const(1), 2)),
            Assert(~seen | started & (last_kept < self.base + cursor)),
            Assert(~delay(m, present, 1) | (dut.weights[case.lane] == weight)),
            Assert(~(kept & seen & ~flags.first) | (dut.positions[case.lane] > last_kept)),
            Assert(~kept | (dut.positions[case.lane] - self.base < case.length)),
        ]


CASES = {
    "narrow": Case(length=6, index_bits=1),
    "middle": Case(length=8, index_bits=2),
    "no_escape_but_empty": Case(length=7, index_bits=3),
    "linear_first_lane": Case(length=8, index_bits=2, linear=True),
    "linear_last_lane": Case(length=8, index_bits=2, linear=True, lane=LANES - 1),
    "zero_excluded": Case(length=6, index_bits=2, zero_excluded=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_decoder_undoes_the_coder(case):
    prove(DecoderProof(case), 6, Method.INDUCTION)


def test_broken_cursor_is_found(monkeypatch):
    """A decoder that does not restart at a row's first slot is refuted."""
    whole = relative.RelativeDecoder.elaborate

    def without_restart(self, platform):
        flags = self.flags
        self.flags = FLAGS(Signal(FLAGS))
        m = whole(self, platform)
        m.d.comb += [self.flags.eq(flags.as_value() & ~FLAGS.const({"first": 1}).as_value())]
        return m

    monkeypatch.setattr(relative.RelativeDecoder, "elaborate", without_restart)
    assert "Assert failed" in refute(DecoderProof(CASES["middle"]), 12)


@pytest.mark.parametrize("index_bits", [1, 2, 3])
def test_coder_of_the_proof_is_the_coder(index_bits):
    generator = random.Random(index_bits)
    length = 9
    dut = RowCoder(length, index_bits)
    slots: list[tuple[int, int]] = []
    expected: list[tuple[int, int]] = []

    async def bench(ctx) -> None:
        ctx.set(dut.en, 1)
        for _ in range(60):
            kept = [position for position in range(length) if generator.random() < generator.choice([0, 0.2, 0.9])]
            expected.extend(encode_row(kept, [1] * len(kept), index_bits))
            ctx.set(dut.mask, sum(1 << position for position in kept))
            ctx.set(dut.weight, 1)
            last = 0
            while not last:
                slots.append((ctx.get(dut.index), ctx.get(dut.code)))
                last = ctx.get(dut.last)
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert slots == expected
