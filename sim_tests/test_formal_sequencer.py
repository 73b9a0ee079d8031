"""Proof: the front sequencer counts every gap exactly, runs one layer at a time and waits for input and output."""

from __future__ import annotations

import pytest
from amaranth.hdl import Array, Assert, Assume, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import hold, past, prove, refute
from zeroskip.hw import sequencer

GAP_BITS = 2


class SequencerProof(wiring.Component):
    """The sequencer against a count of the cycles since ``done``.

    The solver chooses the gaps of all layers, when each layer is done, and when input and output are ready.
    """

    def __init__(self, layers: int) -> None:
        self.layers = layers
        super().__init__({"gaps": In(GAP_BITS * layers), "done": In(1), "loaded": In(1), "output_free": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layers = self.layers
        m.submodules.dut = dut = sequencer.FrontSequencer(layers, GAP_BITS)
        hold(m, self.gaps)
        gaps = Array(self.gaps.word_select(layer, GAP_BITS) for layer in range(layers))
        m.d.comb += [
            dut.done.eq(self.done),
            dut.gap.eq(gaps[dut.index]),
            dut.loaded.eq(self.loaded),
            dut.output_free.eq(self.output_free),
        ]
        # a layer runs from the cycle after its start to its last slot
        running, waiting = Signal(), Signal(init=1)
        following, since = Signal(range(layers)), Signal(GAP_BITS + 2, init=(1 << GAP_BITS) + 1)
        first = Signal(init=1)
        m.d.comb += Assume(~self.done | running)
        gap = gaps[Mux(following == 0, layers - 1, following - 1)]
        allowed = ((following != 0) | self.loaded) & ((following != layers - 1) | self.output_free)
        may_start = past(m, allowed)
        starts = Signal()
        m.d.comb += starts.eq(waiting & (first | (since > gap)) & may_start)
        with m.If(waiting & (since <= 1 << GAP_BITS)):
            m.d.sync += since.eq(since + 1)
        with m.If(dut.start):
            m.d.sync += running.eq(1)
        with m.If(self.done):
            m.d.sync += [running.eq(0), waiting.eq(1), since.eq(1)]
        with m.If(starts):
            m.d.sync += [waiting.eq(0), first.eq(0), following.eq(Mux(following == layers - 1, 0, following + 1))]
        m.d.comb += [
            Assert(dut.en == starts),
            Assert(~dut.en | (dut.addr == following)),
            Assert(dut.start == past(m, starts)),
            Assert(~dut.start | (dut.index == past(m, following))),
            Assert(~(dut.start & running)),
            Assert(dut.ended == (waiting & ~first & (since == gap + 1))),
            self._start_is_due(m, dut, gap),
        ]
        return m

    def _start_is_due(self, m: Module, dut: sequencer.FrontSequencer, gap: Value) -> Assert:
        """With everything ready, a layer starts 2 + gap cycles after the last slot of the one before."""
        ready, age = Signal(), Signal(GAP_BITS + 2)
        with m.If(age != 0):
            m.d.sync += [age.eq(age + 1), ready.eq(ready & self.loaded & self.output_free)]
        with m.If(dut.start):
            m.d.sync += age.eq(0)
        with m.If(self.done):
            m.d.sync += [age.eq(1), ready.eq(self.loaded & self.output_free)]
        held = past(m, gap)
        return Assert(~(ready & (age != 0)) | (dut.start == (age == held + 2)))


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_gap_is_counted_exactly(layers):
    prove(SequencerProof(layers), 18)


def test_lost_wait_for_the_output_is_found(monkeypatch):
    whole = sequencer.FrontSequencer.elaborate

    def without_output(self, platform):
        self.output_free = Value.cast(1)
        return whole(self, platform)

    monkeypatch.setattr(sequencer.FrontSequencer, "elaborate", without_output)
    assert "Assert failed" in refute(SequencerProof(2), 10)
