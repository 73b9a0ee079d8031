"""The two ends of the accelerator: the loader of the input tensor and the buffer of the output tensor."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom, Storage, TensorLayout
from zeroskip.hw.pipeline import delay

__all__ = ["Loader", "OutputBuffer"]


class Loader(wiring.Component):
    """Write the input words into the activation memory while the layers run, once its place there is free.

    A word is accepted in every cycle in which the memory's write port will be free three cycles later. The place of a
    word is its channel's base plus that of its row and of its column, from two small ROMs.

    Latency 3 cycles from a word to ``address``; ``loaded`` rises two cycles after the last word.

    Parameters
    ----------
    layout : TensorLayout of the input
    channels, lanes, position_bits : int
    tables : the ROMs ``arrival_rows`` and ``arrival_columns``, where the input has more than one row or column

    Members
    -------
    i : In(stream of 8 bits)
    release : In(1), one cycle: the input is no longer needed
    take : In(1), one cycle: the first layer starts
    busy : In(1), a result will be written three cycles from now
    loaded : Out(1), the input is complete
    valid : Out(1), address : Out(position_bits), data : Out(8), the write
    """

    def __init__(
        self, layout: TensorLayout, channels: int, lanes: int, position_bits: int, tables: Mapping[str, Rom]
    ) -> None:
        self.layout = layout
        self.channels = channels
        self.lanes = lanes
        self.tables = tables
        members = {
            "i": In(stream.Signature(unsigned(8))),
            "release": In(1),
            "take": In(1),
            "busy": In(1),
            "loaded": Out(1),
            "valid": Out(1),
            "address": Out(position_bits),
            "data": Out(8),
        }
        for name, rom in tables.items():
            members[f"{name}_addr"] = Out(max(1, (rom.depth - 1).bit_length()))
            members[f"{name}_data"] = In(rom.word_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Build the counters and the address."""
        m = Module()
        counts = [len(self.layout.columns), len(self.layout.rows), self.channels]
        first = self.layout.base * (self.lanes if self.layout.storage is Storage.BANKED else 1)
        column, row, channel = (Signal(range(max(count, 2))) for count in counts)
        base = Signal(len(self.address), init=first)
        free, complete, accepted, last = Signal(init=1), Signal(), Signal(), Signal()
        m.d.comb += [self.i.ready.eq(free & ~self.busy), accepted.eq(self.i.valid & self.i.ready)]
        with m.If(accepted):
            m.d.sync += column.eq(column + 1)
            with m.If(column == counts[0] - 1):
                m.d.sync += [column.eq(0), row.eq(row + 1)]
                with m.If(row == counts[1] - 1):
                    m.d.sync += [row.eq(0), channel.eq(channel + 1), base.eq(base + self.layout.channel_step)]
                    with m.If(channel == counts[2] - 1):
                        m.d.comb += last.eq(1)
                        m.d.sync += [channel.eq(0), base.eq(first), free.eq(0)]
        m.d.comb += complete.eq(delay(m, last, 1))
        with m.If(complete):
            m.d.sync += self.loaded.eq(1)
        with m.If(self.take):
            m.d.sync += self.loaded.eq(0)
        with m.If(self.release):
            m.d.sync += free.eq(1)
        address: Value = delay(m, base, 2)
        for name, counter in (("arrival_rows", row), ("arrival_columns", column)):
            if name in self.tables:
                m.d.comb += getattr(self, f"{name}_addr").eq(counter)
                address = address + getattr(self, f"{name}_data")
        m.d.sync += self.address.eq(address)
        m.d.comb += [self.valid.eq(delay(m, accepted, 3)), self.data.eq(delay(m, self.i.payload, 3))]
        return m


class OutputBuffer(wiring.Component):
    """Take the output tensor in the order the lanes deliver it and send it in C, H, W order.

    The first word leaves one cycle after ``start``, then one a cycle while the host is ready.

    Parameters
    ----------
    size : int, words of 8 bits
    parts : int, a power of two: so many words are written at once, from a multiple of it on

    Members
    -------
    write_en : In(parts); write_addr : In(address bits), ``parts`` words each; write_data : In(8 * parts)
    start : In(1), one cycle: the tensor is complete
    free : Out(1), the tensor has left
    o : Out(stream of 8 bits)
    """

    def __init__(self, size: int, parts: int = 1) -> None:
        self.size = size
        self.parts = parts
        self.depth = max(-(-size // parts), 2)
        super().__init__(
            {
                "write_en": In(parts),
                "write_addr": In((self.depth - 1).bit_length()),
                "write_data": In(8 * parts),
                "start": In(1),
                "free": Out(1),
                "o": Out(stream.Signature(unsigned(8))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the memory and its reader."""
        m = Module()
        part_bits = (self.parts - 1).bit_length()
        m.submodules.memory = memory = Memory(shape=unsigned(8 * self.parts), depth=self.depth, init=[])
        write, read = memory.write_port(granularity=8), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.write_addr),
            write.data.eq(self.write_data),
            write.en.eq(self.write_en),
        ]
        sending, address, advance = Signal(), Signal(range(self.depth * self.parts)), Signal()
        part = Signal(part_bits)
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            read.addr.eq(address[part_bits:]),
            read.en.eq(advance),
            self.o.payload.eq(read.data.word_select(part, 8)),
            self.free.eq(~sending & ~self.o.valid),
        ]
        with m.If(advance):
            m.d.sync += [self.o.valid.eq(sending), part.eq(address[:part_bits])]
            with m.If(sending):
                m.d.sync += address.eq(Mux(address == self.size - 1, 0, address + 1))
                m.d.sync += sending.eq(address != self.size - 1)
        with m.If(self.start):
            m.d.sync += sending.eq(1)
        return m
