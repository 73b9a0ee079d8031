"""Proof: bytes that go over the serial line come out once, unchanged and in order, and the stream rules hold."""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from formal import Method, past, prove, refute
from zeroskip.hw.host import uart
from zeroskip.hw.pipeline import delay

DIVISOR = 2
"""Fewer cycles a bit than allowed: sender and receiver share a clock here, and short frames are proved sooner."""

FRAME_CYCLES = 10 * DIVISOR


@pytest.fixture(autouse=True)
def allow_fast_bits(monkeypatch):
    """Let the blocks run at ``DIVISOR``."""
    monkeypatch.setattr(uart, "MIN_DIVISOR", DIVISOR)


class ReceiverRules(wiring.Component):
    """Whatever the line does: a byte that is offered stays, and a byte is lost only with ``overrun``."""

    def __init__(self) -> None:
        super().__init__({"rx": In(1, init=1), "ready": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = uart.UartReceiver(DIVISOR)
        m.d.comb += [dut.rx.eq(self.rx), dut.o.ready.eq(self.ready)]
        waiting = past(m, dut.o.valid & ~dut.o.ready)
        payload = past(m, dut.o.payload)
        m.d.comb += [
            Assert(~waiting | (dut.o.valid & (dut.o.payload == payload))),
            Assert(~dut.overrun | waiting),
            Assert(~(dut.overrun & dut.framing)),
        ]
        return m


class TransmitterRules(wiring.Component):
    """``ready`` does not wait for ``valid``; the line idles high."""

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = uart.UartTransmitter(DIVISOR)
        wiring.connect(m, wiring.flipped(self.i), dut.i)
        # a byte is taken at most once a frame
        taken = Signal()
        m.d.comb += taken.eq(self.i.valid & dut.i.ready)
        since = Signal(range(FRAME_CYCLES + 1), init=FRAME_CYCLES)
        m.d.sync += since.eq(Mux(taken, 1, Mux(since == FRAME_CYCLES, since, since + 1)))
        m.d.comb += [
            Assert(dut.i.ready == (since == FRAME_CYCLES)),
            Assert(~((since == FRAME_CYCLES) & past(m, since == FRAME_CYCLES)) | dut.tx),
        ]
        return m


class LoopbackProof(wiring.Component):
    """A transmitter wired to a receiver: every byte arrives once, unchanged, ``latency_cycles`` after it was taken.

    It arrives on the stream, or is lost with ``overrun`` because the one before was not fetched. The solver chooses
    when bytes are offered and fetched, and which byte is compared.
    """

    latency_cycles = 9 * DIVISOR + (DIVISOR - 1) // 2 + 5

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(8)), "ready": In(1), "watch": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.transmitter = transmitter = uart.UartTransmitter(DIVISOR)
        m.submodules.receiver = receiver = uart.UartReceiver(DIVISOR)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        m.d.comb += [receiver.rx.eq(transmitter.tx), receiver.o.ready.eq(self.ready)]

        taken, watching = Signal(), Signal()
        age, watched = Signal(range(self.latency_cycles + 2)), Signal(8)
        m.d.comb += taken.eq(transmitter.i.valid & transmitter.i.ready)
        with m.If(watching & (age <= self.latency_cycles)):
            m.d.sync += age.eq(age + 1)
        with m.If(taken & self.watch & ~watching):
            m.d.sync += [watching.eq(1), age.eq(1), watched.eq(transmitter.i.payload)]

        offered = receiver.o.valid & ~past(m, receiver.o.valid & ~receiver.o.ready)
        due = watching & (age == self.latency_cycles)
        m.d.comb += [
            Assert((offered | receiver.overrun) == delay(m, taken, self.latency_cycles)),
            Assert(~(offered & receiver.overrun)),
            Assert(~receiver.framing),
            Assert(~due | receiver.overrun | (receiver.o.payload == watched)),
        ]
        return m


def test_receiver_keeps_the_stream_rules():
    prove(ReceiverRules(), 2, Method.INDUCTION)


def test_transmitter_takes_a_byte_a_frame():
    prove(TransmitterRules(), 2 * FRAME_CYCLES + 4)


@pytest.mark.slow
def test_no_byte_is_lost_doubled_or_changed():
    prove(LoopbackProof(), 2 * FRAME_CYCLES + 8)


def test_late_sampling_is_found(monkeypatch):
    """A receiver that counts bits one cycle too long is refuted."""
    whole = uart.UartReceiver.elaborate

    def longer_bits(self, platform):
        self.divisor += 1
        return whole(self, platform)

    monkeypatch.setattr(uart.UartReceiver, "elaborate", longer_bits)
    assert "Assert failed" in refute(LoopbackProof(), LoopbackProof.latency_cycles + 4)
