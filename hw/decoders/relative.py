"""Decoder of the relative index with escapes; coder and format: :mod:`zeroskip.compiler.encodings.relative`."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.pipeline import FLAGS, delay

__all__ = ["RelativeDecoder"]


class RelativeDecoder(wiring.Component):
    """Turn index words into positions.

    Windowed layers: one slot of the word a cycle, through lane 0; linear: every lane decodes its own slot. Per lane
    ``position = cursor + index``; ``cursor' = position + (index != escape)``; an escape multiplies nothing. The cursor
    restarts at the base with the first slot of a row. A counted (dense) layer takes every index as 0.

    Latency 1 cycle from ``word`` to ``positions``, which are combinational, to feed a ROM address; initiation
    interval 1.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the front descriptor
    position_bits : int

    Members
    -------
    descriptor : In(layout)
    word : In(lanes * index_width), from the output register of the index ROM
    slot : In(lane bits), which slot of the word a windowed layer takes
    flags : In(FLAGS), of ``word``
    o_flags : Out(FLAGS), of ``positions``
    positions : Out(array of position_bits), tap number (lane 0, windowed) or word address (linear)
    fillers : Out(lanes), which lanes hold an escape
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout, position_bits: int) -> None:
        self.config = config
        lanes = config.geometry.lanes
        self.position_bits = position_bits
        super().__init__(
            {
                "descriptor": In(layout),
                "word": In(lanes * config.index_width),
                "slot": In(config.lane_bits),
                "flags": In(FLAGS),
                "o_flags": Out(FLAGS),
                "positions": Out(data.ArrayLayout(position_bits, lanes)),
                "fillers": Out(lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build slot selection and one cursor a lane."""
        m = Module()
        config, d = self.config, self.descriptor
        lanes = config.geometry.lanes
        m.d.comb += self.o_flags.eq(delay(m, self.flags, 1, FLAGS))
        slots = Array(self.word.word_select(i, config.index_width) for i in range(lanes))
        for lane in range(lanes if config.has_linear else 1):
            taken = Signal(config.index_width, name=f"slot_{lane}")
            cursor = Signal(self.position_bits, name=f"cursor_{lane}")
            origin = Signal(self.position_bits, name=f"origin_{lane}")
            escape = Signal(name=f"escape_{lane}")
            if lane == 0 and config.has_windowed:
                chosen = slots[self.slot]
                m.d.sync += taken.eq(Mux(d.linear, slots[0], chosen) if config.has_linear else chosen)
            else:
                m.d.sync += taken.eq(slots[lane])
            index = Mux(d.counted, 0, taken) if config.has_counted else taken
            m.d.comb += [
                origin.eq(Mux(self.o_flags.first, self._base(lane), cursor)),
                self.positions[lane].eq(origin + index),
                escape.eq(taken == d.escape),
                self.fillers[lane].eq(escape),
            ]
            with m.If(self.o_flags.valid):
                m.d.sync += cursor.eq(origin + index + self._advance(escape))
        return m

    def _base(self, lane: int) -> Value:
        """Return where a row begins: at its first tap, or at the lane's first input."""
        config, d = self.config, self.descriptor
        if not config.has_linear:
            return d.tap_base
        lane_base = d[f"lane_base_{lane if config.has_split else 0}"]
        if lane > 0:
            return lane_base
        by_table: Value | int = ~d.linear if config.has_windowed else 0
        if config.has_keep:
            by_table = by_table | d.keep
        return Mux(by_table, d.tap_base, lane_base)

    def _advance(self, escape: Value) -> Value:
        """Return how far the next index begins behind this position; the lanes of a dense row take turns."""
        config, d = self.config, self.descriptor
        if config.has_counted and config.has_split:
            return Mux(d.counted, d.position_step, ~escape)
        return ~escape
