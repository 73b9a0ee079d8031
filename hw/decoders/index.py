"""Decoder of index codes: relative with escapes, blocks, banks and patterns; coders in compiler.encodings."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.pipeline import FLAGS, delay

__all__ = ["IndexDecoder"]


class IndexDecoder(wiring.Component):
    """Turn index words into positions: what :func:`zeroskip.compiler.streams.decode_positions` does.

    Windowed layers: one slot of the word a cycle, through lane 0; linear: every lane decodes its own slot. Per lane
    ``position = cursor + gap + offset``. The offset is that of the element within its block (a running sum of
    ``element_step``) or pattern (a table); after the last element ``cursor' = cursor + gap + (gap != escape)``, or in a
    banked layer ``cursor + bank``. An escape multiplies nothing. After the last slot of a row, and before a layer's
    first one, the cursor is at the base. A counted (dense) layer takes every gap as 0. What a design does not use is
    not generated.

    The critical path is the loop of one sum behind one choice (that of the base), whatever the format: whether the
    last position was taken is added with the next gap.

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
    start : In(1), 4 cycles before ``positions`` are the layer's first; the descriptor is valid
    word : In(lanes * index_width), from the output register of the index ROM
    slot : In(lane bits), which slot of the word lane 0 takes: 0 in a linear layer
    flags : In(FLAGS), of ``word``
    element : In(element_bits), element_last : In(1), of ``word``, where there are blocks
    o_flags : Out(FLAGS), of ``positions``
    positions : Out(array of position_bits), tap number (lane 0, windowed) or word address (linear)
    fillers : Out(lanes), which lanes hold an escape
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout, position_bits: int) -> None:
        self.config = config
        lanes = config.geometry.lanes
        self.position_bits = position_bits
        members = {
            "descriptor": In(layout),
            "start": In(1),
            "word": In(lanes * config.index_width),
            "slot": In(config.lane_bits),
            "flags": In(FLAGS),
            "o_flags": Out(FLAGS),
            "positions": Out(data.ArrayLayout(position_bits, lanes)),
            "fillers": Out(lanes),
        }
        if config.element_bits:
            members["element"] = In(config.element_bits)
            members["element_last"] = In(1)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Build slot selection and one cursor a lane."""
        m = Module()
        config = self.config
        lanes = config.geometry.lanes
        m.d.comb += self.o_flags.eq(delay(m, self.flags, 1, FLAGS))
        self.unit_end: Value = Const(1)
        # a layer's first slot comes three cycles after its start; its base is there by now
        self.begins = delay(m, self.start, 2)
        offset: Value = Const(0)
        if config.element_bits:
            self.unit_end = delay(m, self.element_last, 1)
            offset = self._build_offset(m)
        slots = Array(self.word.word_select(i, config.index_width) for i in range(lanes))
        for lane in range(lanes if config.has_linear else 1):
            taken = Signal(config.index_width, name=f"slot_{lane}")
            if lane == 0 and config.has_windowed:
                m.d.sync += taken.eq(slots[self.slot])
            else:
                m.d.sync += taken.eq(slots[lane])
            self._build_lane(m, lane, taken, offset)
        return m

    def _build_offset(self, m: Module) -> Value:
        """The offset of the present element within its block, the same for all lanes."""
        if not self.config.has_steps:
            return Const(0)
        offset = Signal(self.position_bits)
        with m.If(self.o_flags.valid):
            m.d.sync += offset.eq(Mux(self.unit_end, 0, offset + self.descriptor.element_step))
        return offset

    def _build_lane(self, m: Module, lane: int, taken: Signal, offset: Value) -> None:
        config, d = self.config, self.descriptor
        cursor = Signal(self.position_bits, name=f"cursor_{lane}")
        first = Signal(self.position_bits, name=f"first_{lane}")
        base = Signal(self.position_bits, name=f"base_{lane}")
        # whether the position that the cursor holds is taken: the next gap begins behind it
        pending = Signal(name=f"pending_{lane}")
        escape = Signal(name=f"escape_{lane}")
        gap: Value = taken
        if config.patterns:
            gap = Mux(d.pattern != 0, taken[: config.pattern_bits], taken)
        m.d.sync += base.eq(self._base(lane))
        m.d.comb += [
            escape.eq(gap == d.escape),
            first.eq((Cat(pending, self._distance(gap, pending)) + Cat(Const(1), cursor))[1:]),
            self.positions[lane].eq(first + offset if config.has_steps else first),
            self.fillers[lane].eq(escape),
        ]
        if config.patterns and lane == 0:
            m.d.comb += self.positions[lane].eq(first + offset + self._pattern_offset(m, taken))
        following: Value = first
        more: Value = ~escape
        if config.has_banks:
            following, more = Mux(d.banked, cursor + d.bank, first), ~escape & ~d.banked
        with m.If(self.o_flags.valid & self.unit_end):
            m.d.sync += [cursor.eq(following), pending.eq(more)]
        with m.If(self.begins | (self.o_flags.valid & self.o_flags.last)):
            m.d.sync += [cursor.eq(base), pending.eq(0)]

    def _distance(self, gap: Value, pending: Value) -> Value:
        """Return the gap in positions, without the one that ``pending`` adds.

        A block of a linear layer takes several positions; so do the lanes of a dense row, which take turns.
        """
        config, d = self.config, self.descriptor
        distance = gap
        if config.linear_unit > 1 and config.has_linear:
            unit = config.linear_unit
            if unit & (unit - 1):
                units: Value = gap * unit + Mux(pending, unit - 1, 0)
            else:
                units = Cat(pending.replicate(unit.bit_length() - 1), gap)
            distance = Mux(d.in_units, units, distance)
        if config.has_counted:
            step = Mux(pending, d.position_step - 1, 0) if config.has_split else Const(0)
            distance = Mux(d.counted, step, distance)
        return distance

    def _pattern_offset(self, m: Module, taken: Signal) -> Value:
        """Look the element's offset up in the layer's table of patterns."""
        config, d = self.config, self.descriptor
        number = taken[config.pattern_bits :]
        element = delay(m, self.element, 1) if config.element_bits else Const(0, 1)
        result: Value = Const(0)
        for layer, patterns in enumerate(config.patterns, 1):
            size = 1 << len(element)
            entries = [[*pattern, *([0] * (size - len(pattern)))] for pattern in patterns]
            table = Array(Array(Const(value, self.position_bits) for value in row) for row in entries)
            result = Mux(d.pattern == layer, table[number][element] if len(number) else table[0][element], result)
        return result

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
