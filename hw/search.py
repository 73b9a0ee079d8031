"""The threshold search: how many thresholds of its channel an accumulator reaches."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.target import EngineConfig
from zeroskip.compiler.timing import search_cycles
from zeroskip.hw.pipeline import delay, descriptor_layout

__all__ = ["ThresholdSearch"]


class ThresholdSearch(wiring.Component):
    """``o = zero_point + the number of thresholds that i reaches``, a bit of the number a stage, the highest first.

    Bit-exact with :func:`zeroskip.compiler.reference.threshold_codes`. Stage ``s`` compares with one threshold, found
    by the channel and the ``s`` bits known before it (:func:`zeroskip.compiler.thresholds.search_tables`). A layer with
    fewer stages than the design leaves the later ones out; their ROMs hold nothing for it.

    Latency 2 cycles a stage, initiation interval 1, never stalls.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the back descriptor
    roms : one a stage
    channel_bits : int

    Members
    -------
    descriptor : In(layout)
    channel : In(channel_bits), the entry of the value's channel, 1 cycle before ``i``
    i : In(signed(accumulator_width))
    addr_0, addr_1 ... : Out; data_0, data_1 ... : In, of the stages' ROMs
    o : Out(8)
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout, roms: Sequence[Rom], channel_bits: int) -> None:
        self.config = config
        self.roms = roms
        self.latency_cycles = search_cycles(config) - 1
        members = {
            "descriptor": In(layout),
            "channel": In(channel_bits),
            "i": In(signed(config.accumulator_width)),
            "o": Out(8),
        }
        for stage, rom in enumerate(roms):
            members[f"addr_{stage}"] = Out(max(1, (rom.depth - 1).bit_length()))
            members[f"data_{stage}"] = In(rom.word_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Chain the stages."""
        m = Module()
        d = self.descriptor
        channel: Value = self.channel
        value = delay(m, self.i, 1)
        count: Value = Cat()
        for stage, rom in enumerate(self.roms):
            if stage:
                channel, value = delay(m, channel, 2), delay(m, value, 2)
            m.d.comb += getattr(self, f"addr_{stage}").eq(Cat(count, channel))
            entry = Signal(descriptor_layout(rom.fields), name=f"entry_{stage}")
            reached, after = Signal(name=f"reached_{stage}"), Signal(stage + 1, name=f"count_{stage}")
            m.d.comb += [entry.eq(getattr(self, f"data_{stage}")), reached.eq(value >= entry.threshold)]
            before = delay(m, count, 2) if stage else count
            # a ROM with a full set of words a channel says that every layer has the stage
            whole = rom.depth == self.roms[0].depth << stage
            found = Cat(reached, before)
            m.d.comb += after.eq(found if whole else Mux(d.search_stages > stage, found, before))
            count = after
        m.d.comb += self.o.eq(delay(m, count + d.zero_point, 1))
        return m
