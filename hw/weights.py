"""Weight feeds: what brings one weight a lane to the array, in step with the activations."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.decoders.relative import weight_level
from zeroskip.hw.pipeline import FLAGS, delay

__all__ = ["DenseWeights", "SparseWeights"]


class DenseWeights(wiring.Component):
    """Read the dense parameter ROMs late, in step with the activations; column ``n`` follows at + n.

    The skew is in the address: one pointer ripples along the columns, no weight waits in a register. Convolution takes
    one slot of the word for all lanes, a linear layer the whole word.

    Latency 4 cycles from ``flags`` to column 0's weights, initiation interval 1.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the layer descriptor
    depth : int, words of a parameter ROM

    Members
    -------
    descriptor, start : In, as in Issue
    flags : In(FLAGS)
    rom_addr : Out(array), rom_data : In(array), one ROM a column
    weights : Out(array of signed(weight_width + 1)), column by column
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout, depth: int) -> None:
        self.config = config
        geometry = config.geometry
        word_bits = geometry.lanes * config.slot_bits
        address_bits = max(1, (depth - 1).bit_length())
        super().__init__(
            {
                "descriptor": In(layout),
                "start": In(1),
                "flags": In(FLAGS),
                "rom_addr": Out(data.ArrayLayout(address_bits, geometry.columns)),
                "rom_data": In(data.ArrayLayout(word_bits, geometry.columns)),
                "weights": Out(data.ArrayLayout(signed(config.weight_width + 1), geometry.products)),
            }
        )
        self.address_bits = address_bits

    def elaborate(self, platform: object) -> Module:
        """Build the pointer and one slot selection a column."""
        m = Module()
        config, d = self.config, self.descriptor
        lanes, lane_bits = config.geometry.lanes, config.lane_bits
        flags = self.flags
        pointer, row_start, following = (
            Signal(self.address_bits + lane_bits, name=n) for n in ("pointer", "row", "next")
        )
        m.d.comb += following.eq(pointer + Mux(d.linear, Const(lanes), Const(1)))
        with m.If(flags.valid):
            m.d.sync += pointer.eq(following)
            with m.If(flags.last):
                m.d.sync += pointer.eq(row_start)
            with m.If(flags.group_last & ~d.row_shared):
                m.d.sync += [pointer.eq(following), row_start.eq(following)]
        with m.If(self.start):
            m.d.sync += [pointer.eq(d.weight_base), row_start.eq(d.weight_base)]
        skewed: Value = pointer
        for column in range(config.geometry.columns):
            if column:
                skewed = delay(m, skewed, 1)
            m.d.comb += self.rom_addr[column].eq(skewed[lane_bits:])
            # the block RAM answers late in the cycle: nothing but a register behind it
            word = delay(m, self.rom_data[column], 1)
            slots = [word.word_select(lane, config.slot_bits) for lane in range(lanes)]
            chosen = Choice(slots)[delay(m, skewed[:lane_bits], 2)]
            for lane in range(lanes):
                slot = Signal(config.slot_bits, name=f"slot_{column}_{lane}")
                m.d.sync += slot.eq(Mux(d.linear, slots[lane], chosen))
                m.d.sync += self.weights[column * lanes + lane].eq(weight_level(slot, d.zero_excluded))
        return m


class SparseWeights(wiring.Component):
    """Carry decoded weights to the array: one for all lanes in a convolution, one a lane in a linear layer.

    Latency 11 cycles (convolution, the gather's length) or 4 (linear) from ``i``.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the layer descriptor

    Members
    -------
    descriptor : In(layout)
    i, weights : In, Out(array of signed(weight_width + 1)), shape (lanes,)
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout) -> None:
        self.config = config
        shape = data.ArrayLayout(signed(config.weight_width + 1), config.geometry.lanes)
        super().__init__({"descriptor": In(layout), "i": In(shape), "weights": Out(shape)})

    def elaborate(self, platform: object) -> Module:
        """Build the delay lines."""
        m = Module()
        shared = delay(m, self.i[0], 7)
        for lane in range(self.config.geometry.lanes):
            value: Value = shared
            if self.config.has_linear:
                value = Mux(self.descriptor.linear, self.i[lane], shared)
            m.d.comb += self.weights[lane].eq(delay(m, value, 4))
        return m
