"""Proof: no word is lost, doubled or moved between the streams and the memories."""

from __future__ import annotations

import pytest
from amaranth.hdl import Array, Assert, Assume, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal import hold, past, prove, refute
from zeroskip.compiler.program import FieldSpec, Rom, Storage, TensorLayout
from zeroskip.hw import stream_ports
from zeroskip.hw.pipeline import delay

SIZE = 3
ROWS = 2
COLUMNS = 2
CHANNELS = 2
LANES = 4
ADDRESS_BITS = 5


class OutputProof(wiring.Component):
    """The buffer against the words last written: they leave in order, each once, by the rules of a stream.

    The solver chooses the writes, which address is watched, and when the host is ready.
    """

    def __init__(self, size: int, parts: int = 1) -> None:
        self.size = size
        self.parts = parts
        self.part_bits = (parts - 1).bit_length()
        depth = max(-(-size // parts), 2)
        bits = max(1, (size - 1).bit_length())
        super().__init__(
            {
                "write_en": In(parts),
                "write_addr": In((depth - 1).bit_length()),
                "write_data": In(8 * parts),
                "start": In(1),
                "ready": In(1),
                "watch": In(bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = stream_ports.OutputBuffer(self.size, self.parts)
        hold(m, self.watch)
        m.d.comb += [
            dut.write_en.eq(self.write_en),
            dut.write_addr.eq(self.write_addr),
            dut.write_data.eq(self.write_data),
            dut.start.eq(self.start),
            dut.o.ready.eq(self.ready),
            # what the sequencers guarantee
            Assume(~(self.write_en.any() | self.start) | dut.free),
            Assume(self.watch < self.size),
            # the buffer does not look at its words: two kinds of them are enough to tell them apart
            *(Assume(self.write_data.word_select(part, 8) < 2) for part in range(self.parts)),
        ]
        watched, sent, owed = Signal(8), Signal(range(self.size + 1)), Signal()
        part = self.watch[: self.part_bits]
        with m.If(self.write_en.bit_select(part, 1) & (self.write_addr == self.watch[self.part_bits :])):
            m.d.sync += watched.eq(self.write_data.word_select(part, 8))
        accepted = dut.o.valid & self.ready
        with m.If(accepted):
            m.d.sync += [sent.eq(sent + 1), owed.eq(sent != self.size - 1)]
        with m.If(self.start):
            m.d.sync += [sent.eq(0), owed.eq(1)]
        waiting = past(m, dut.o.valid & ~self.ready)
        m.d.comb += [
            Assert(dut.free == ~owed),
            Assert(~dut.o.valid | owed),
            Assert(~(dut.o.valid & (sent == self.watch)) | (dut.o.payload == watched)),
            Assert(~waiting | (dut.o.valid & (dut.o.payload == past(m, dut.o.payload)))),
            # the first word is there two cycles after the start, the next one without a pause
            Assert(~owed | dut.o.valid | past(m, self.start)),
        ]
        return m


class LoaderProof(wiring.Component):
    """The loader against a count of the words accepted: each is written once, at its place, when nothing else is.

    The solver chooses the words, the tables of places, the cycles in which results are written, and when the first
    layer starts and the input's memory is free again.
    """

    def __init__(self) -> None:
        self.layout = TensorLayout(Storage.BANKED, 2, 4, 5, tuple(range(ROWS)), tuple(range(COLUMNS)))
        super().__init__(
            {
                "payload": In(8),
                "valid": In(1),
                "busy": In(1),
                "take": In(1),
                "release": In(1),
                "rows": In(ROWS * ADDRESS_BITS),
                "columns": In(COLUMNS * ADDRESS_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = FieldSpec("offset", 0, ADDRESS_BITS)
        tables = {
            name: Rom(name, ADDRESS_BITS, (0,) * depth, 1, ADDRESS_BITS, (spec,), (), 1, "logic", "table")
            for name, depth in (("arrival_rows", ROWS), ("arrival_columns", COLUMNS))
        }
        m.submodules.dut = dut = stream_ports.Loader(self.layout, CHANNELS, LANES, ADDRESS_BITS, tables)
        hold(m, self.rows, self.columns)
        rows, columns = (
            Array(words.word_select(number, ADDRESS_BITS) for number in range(count))
            for words, count in ((self.rows, ROWS), (self.columns, COLUMNS))
        )
        m.d.comb += [
            dut.i.payload.eq(self.payload),
            dut.i.valid.eq(self.valid),
            dut.busy.eq(self.busy),
            dut.take.eq(self.take),
            dut.release.eq(self.release),
            dut.arrival_rows_data.eq(delay(m, rows[dut.arrival_rows_addr], 2)),
            dut.arrival_columns_data.eq(delay(m, columns[dut.arrival_columns_addr], 2)),
        ]
        # one inference: words, complete, taken by the first layer, its memory released
        number = Signal(range(ROWS * COLUMNS * CHANNELS))
        column, row, channel = number[0], number[1], number[2]
        filling, taken = Signal(init=1), Signal()
        accepted = Signal()
        m.d.comb += accepted.eq(self.valid & dut.i.ready)
        m.d.comb += [Assume(~self.take | dut.loaded), Assume(~self.release | taken)]
        last = accepted & number.all()
        with m.If(accepted):
            m.d.sync += number.eq(number + 1)
        with m.If(last):
            m.d.sync += filling.eq(0)
        with m.If(self.take):
            m.d.sync += taken.eq(1)
        with m.If(self.release):
            m.d.sync += [taken.eq(0), filling.eq(1)]
        place = Signal(ADDRESS_BITS)
        base = self.layout.base * LANES
        m.d.comb += place.eq(base + channel * self.layout.channel_step + rows[row] + columns[column])
        loaded = Signal()
        with m.If(delay(m, last, 1)):
            m.d.sync += loaded.eq(1)
        with m.If(self.take):
            m.d.sync += loaded.eq(0)
        m.d.comb += [
            Assert(dut.i.ready == (filling & ~self.busy)),
            Assert(dut.valid == delay(m, accepted, 3)),
            Assert(~dut.valid | (dut.address == delay(m, place, 3))),
            Assert(~dut.valid | (dut.data == delay(m, self.payload, 3))),
            Assert(~(dut.valid & delay(m, self.busy, 3))),
            Assert(dut.loaded == loaded),
        ]
        return m


@pytest.mark.slow
def test_output_leaves_once_and_in_order():
    prove(OutputProof(SIZE), 12)


@pytest.mark.parametrize(("size", "parts"), [(2, 2), (4, 2), pytest.param(5, 4, marks=pytest.mark.slow)])
def test_output_of_several_words_a_write_leaves_in_order(size, parts):
    prove(OutputProof(size, parts), 12)


def test_single_output_leaves_once():
    prove(OutputProof(1), 12)


def test_input_is_written_once_at_its_place():
    prove(LoaderProof(), 16)


def test_output_that_does_not_wait_for_the_host_is_found(monkeypatch):
    whole = stream_ports.OutputBuffer.elaborate

    def hurried(self, platform):
        outside = self.o
        self.o = type("Stream", (), {"valid": outside.valid, "payload": outside.payload, "ready": Const(1)})
        return whole(self, platform)

    monkeypatch.setattr(stream_ports.OutputBuffer, "elaborate", hurried)
    assert "Assert failed" in refute(OutputProof(SIZE), 10)


def test_input_that_meets_a_result_is_found(monkeypatch):
    whole = stream_ports.Loader.elaborate

    def careless(self, platform):
        self.busy = Value.cast(0)
        return whole(self, platform)

    monkeypatch.setattr(stream_ports.Loader, "elaborate", careless)
    assert "Assert failed" in refute(LoaderProof(), 8)
