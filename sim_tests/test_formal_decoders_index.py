"""Proof: the decoder undoes the relative coder, for every row, pause between slots and base at reduced widths."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from amaranth.hdl import Assert, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from designs import engine_config
from formal import Method, hold, prove, refute
from zeroskip.compiler.encodings.relative import encode_row
from zeroskip.compiler.program import FieldSpec
from zeroskip.compiler.target import EngineConfig, Geometry
from zeroskip.hw.decoders.index import IndexDecoder
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout

LANES = 4
BASE_BITS = 2
POSITION_BITS = 6


class RowCoder(wiring.Component):
    """Encode a row of ``length`` positions slot by slot, as :func:`zeroskip.compiler.encodings.relative.encode_row`.

    ``mask`` is read with the first slot of a row.
    """

    def __init__(self, length: int, index_bits: int) -> None:
        self.length = length
        self.index_bits = index_bits
        super().__init__(
            {
                "mask": In(length),
                "en": In(1),
                "index": Out(index_bits),
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
    """One proof: positions a row, index width of the layer and of the design, linear (in which lane) or convolution.

    ``split``: each lane of a linear layer begins at a position of its own; ``keep``: dense layers have keep-lists,
    ``counted``: there are dense layers.
    """

    length: int
    index_bits: int
    wider: int = 0
    linear: bool = False
    lane: int = 0
    split: bool = False
    keep: bool = False
    counted: bool = False

    def engine(self) -> EngineConfig:
        """Return the configuration of the hardware."""
        return engine_config(
            Geometry(LANES),
            activation_depth=1 << POSITION_BITS,
            index_width=self.index_bits + self.wider,
            has_linear=True,
            has_windowed=True,
            has_split=self.split,
            has_keep=self.keep,
            has_counted=self.counted,
        )


class DecoderProof(wiring.Component):
    """A coder in front of the decoder; every slot must come out as the position that went in, or as an escape.

    Convolution: the slots go through the chosen slot of the word. Linear: they are one lane's. What other slots of the
    word hold, the solver chooses.
    """

    layout = descriptor_layout(
        [
            FieldSpec("linear", 0, 1),
            FieldSpec("tap_base", 1, BASE_BITS),
            *(FieldSpec(f"lane_base_{lane}", 3 + BASE_BITS * lane, BASE_BITS) for lane in range(LANES)),
            FieldSpec("escape", 11, 5),
            FieldSpec("keep", 16, 1),
            FieldSpec("counted", 17, 1),
            FieldSpec("position_step", 18, 1),
        ]
    )

    def __init__(self, case: Case) -> None:
        self.case = case
        super().__init__(
            {
                "valid": In(1),
                "mask": In(case.length),
                "slot": In(2),
                "noise": In(LANES * case.engine().index_width),
                "base": In(BASE_BITS),
                "other_base": In(BASE_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        case = self.case
        m.submodules.dut = dut = IndexDecoder(case.engine(), self.layout, POSITION_BITS)
        m.submodules.coder = coder = RowCoder(case.length, case.index_bits)
        hold(m, self.base, self.other_base)
        # the layer starts in the first cycle, its first slot comes three cycles later
        age, valid = Signal(2), Signal()
        with m.If(age != 3):
            m.d.sync += age.eq(age + 1)
        m.d.comb += [dut.start.eq(age == 0), valid.eq(self.valid & (age == 3))]
        d = dut.descriptor
        lane_base = f"lane_base_{case.lane if case.split else 0}"
        m.d.comb += [
            coder.mask.eq(self.mask),
            coder.en.eq(valid),
            d.as_value().eq(Const(0)),
            d.linear.eq(case.linear),
            d.escape.eq((1 << case.index_bits) - 1),
            d.tap_base.eq(self.other_base if case.linear else self.base),
        ]
        for lane in range(LANES):
            name = f"lane_base_{lane}"
            m.d.comb += d[name].eq(self.base if case.linear and name == lane_base else self.other_base)
        # word and flags come together; the other slots of the word are noise
        bits = case.engine().index_width
        chosen = Const(case.lane, 2) if case.linear else self.slot
        word = Signal(LANES * bits)
        m.d.comb += word.eq(self.noise)
        for slot in range(LANES):
            with m.If(valid & (chosen == slot)):
                m.d.comb += word.word_select(slot, bits).eq(coder.index)
        m.d.comb += [
            dut.word.eq(word),
            # a linear layer's words begin at lane 0
            dut.slot.eq(0 if case.linear else self.slot),
            dut.flags.valid.eq(valid),
            dut.flags.first.eq(valid & coder.first),
            dut.flags.last.eq(valid & coder.last),
        ]
        self._check(m, dut, coder, word.word_select(chosen, bits), valid, age == 3)
        return m

    def _check(self, m: Module, dut: IndexDecoder, coder: RowCoder, index: Value, valid: Value, loaded: Value) -> None:
        """Compare position, escape and flags of every slot; within a row positions ascend.

        The position also shows the decoder's cursor while no slot is present, which makes the proof inductive.
        """
        case = self.case
        flags = delay(m, dut.flags, 1, FLAGS)
        present = delay(m, valid, 1)
        position = delay(m, coder.position, 1)
        escape = delay(m, coder.escape, 1)
        cursor = delay(m, Mux(coder.first, 0, coder.cursor), 1)
        last_kept, seen = Signal(POSITION_BITS), Signal()
        kept = present & ~escape
        with m.If(present):
            m.d.sync += [seen.eq((seen & ~flags.first | kept) & ~flags.last)]
        with m.If(kept):
            m.d.sync += last_kept.eq(dut.positions[case.lane])
        m.d.comb += [
            Assert(dut.o_flags.as_value() == flags.as_value()),
            Assert(~present | (dut.positions[case.lane] == self.base + position)),
            Assert(~present | (dut.fillers[case.lane] == escape)),
            Assert(
                present
                | ~loaded
                | (dut.positions[case.lane] == (self.base + cursor + delay(m, index, 1))[:POSITION_BITS])
            ),
            Assert(loaded | coder.first & ~present & ~seen),
            Assert(~seen | (last_kept < self.base + cursor)),
            Assert(~(kept & seen & ~flags.first) | (dut.positions[case.lane] > last_kept)),
            Assert(~kept | (dut.positions[case.lane] - self.base < case.length)),
        ]


CASES = {
    "narrow": Case(length=6, index_bits=1),
    "middle": Case(length=8, index_bits=2),
    "no_escape_but_empty": Case(length=7, index_bits=3),
    "linear_first_lane": Case(length=8, index_bits=2, linear=True),
    "linear_last_lane": Case(length=8, index_bits=2, linear=True, lane=LANES - 1),
    "linear_parts": Case(length=8, index_bits=2, linear=True, lane=1, split=True),
    "wider_index_in_another_layer": Case(length=8, index_bits=2, wider=2),
    "beside_dense_layers": Case(length=8, index_bits=2, counted=True, keep=True, split=True),
    "linear_beside_dense_layers": Case(length=8, index_bits=2, linear=True, counted=True, keep=True, split=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_decoder_undoes_the_coder(case):
    prove(DecoderProof(case), 6, Method.INDUCTION)


def test_broken_cursor_is_found(monkeypatch):
    """A decoder that does not restart after a row's last slot is refuted."""
    whole = IndexDecoder.elaborate

    def without_restart(self, platform):
        flags = self.flags
        self.flags = FLAGS(Signal(FLAGS))
        m = whole(self, platform)
        m.d.comb += [self.flags.eq(flags.as_value() & ~FLAGS.const({"last": 1}).as_value())]
        return m

    monkeypatch.setattr(IndexDecoder, "elaborate", without_restart)
    assert "Assert failed" in refute(DecoderProof(CASES["middle"]), 12)


@pytest.mark.parametrize("index_bits", [1, 2, 3])
def test_coder_of_the_proof_is_the_coder(index_bits):
    generator = random.Random(index_bits)
    length = 9
    dut = RowCoder(length, index_bits)
    slots: list[int] = []
    expected: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.en, 1)
        for _ in range(60):
            kept = [position for position in range(length) if generator.random() < generator.choice([0, 0.2, 0.9])]
            expected.extend(encode_row(kept, index_bits))
            ctx.set(dut.mask, sum(1 << position for position in kept))
            last = 0
            while not last:
                slots.append(ctx.get(dut.index))
                last = ctx.get(dut.last)
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert slots == expected
