"""Decoder of index codes: relative with escapes, blocks, banks, patterns, bitmaps; coders in compiler.encodings."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.decoders.bitmap import BitmapDecoder
from zeroskip.hw.pipeline import FLAGS, delay

__all__ = ["IndexDecoder"]


class IndexDecoder(wiring.Component):
    """Turn index words into positions: what :func:`zeroskip.compiler.streams.decode_positions` does.

    Windowed layers: one slot of the word a cycle, through lane 0; linear: every lane decodes its own slot. Per lane
    ``position = cursor + gap + offset``. The offset is that of the element within its block (a running sum of
    ``element_step``) or pattern (a table); after the last element ``cursor' = cursor + gap + (gap != escape)``, or in a
    banked layer ``cursor + bank``. An escape multiplies nothing. After the last slot of a row, and before a layer's
    first one, the cursor is at the base. A counted (dense) layer takes every gap as 0. What a design does not use is
    not generated. In a bitmap layer a mask word is a bank, and :class:`zeroskip.hw.decoders.bitmap.BitmapDecoder` says
    which of its positions are taken and when it ends.

    The critical path is the loop of one sum behind one choice (that of the base), whatever the format: whether the
    last position was taken is added with the next gap.

    Latency ``latency_cycles`` from ``word`` to ``positions``, which are combinational, to feed a ROM address: 1, and 2
    in a design with bitmap layers; initiation interval 1.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the front descriptor
    position_bits : int
    pointer_bits : int, width of an index slot address: designs with bitmap layers

    Members
    -------
    descriptor : In(layout)
    start : In(1), as in Issue
    mask_pointer : Out(pointer_bits), slot address of a bitmap layer's next mask word, where there are such layers
    word : In(lanes * index_width), from the output register of the index ROM
    slot : In(lane bits), which slot of ``word`` lane 0 takes: 0 in a linear layer
    flags : In(FLAGS), of ``word``
    element : In(element_bits), element_last : In(1), of ``word``, where there are blocks
    o_flags : Out(FLAGS), of ``positions``
    positions : Out(array of position_bits), tap number (lane 0, windowed) or word address (linear)
    fillers : Out(lanes), which lanes hold an escape
    """

    def __init__(
        self, config: EngineConfig, layout: data.StructLayout, position_bits: int, pointer_bits: int = 0
    ) -> None:
        self.config = config
        lanes = config.geometry.lanes
        self.position_bits = position_bits
        self.pointer_bits = pointer_bits
        self.latency_cycles = 2 if config.mask_bits else 1
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
        if config.mask_bits:
            members["mask_pointer"] = Out(pointer_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Build slot selection and one cursor a lane."""
        m = Module()
        config = self.config
        lanes = config.geometry.lanes
        m.d.comb += self.o_flags.eq(delay(m, self.flags, self.latency_cycles, FLAGS))
        self.unit_end: Value = Const(1)
        # just before a layer's first slot, when its base is there, and with a row's last one: known a cycle before, for
        # many registers wait for it
        self.begins = Signal()
        early = delay(m, self.flags, self.latency_cycles - 1, FLAGS)
        m.d.sync += self.begins.eq(delay(m, self.start, self.latency_cycles) | (early.valid & early.last))
        if config.element_bits:
            self.unit_end = delay(m, self.element_last, self.latency_cycles)
        self.word_end = Signal()
        if config.mask_bits:
            self.unit_end = Mux(self.descriptor.masked, self.word_end, self.unit_end)
        offset = self._build_offset(m)
        slots = Array(self.word.word_select(i, config.index_width) for i in range(lanes))
        for lane in range(lanes if config.has_linear else 1):
            taken = Signal(config.index_width, name=f"slot_{lane}")
            if lane == 0 and config.has_windowed:
                m.d.sync += taken.eq(slots[self.slot])
            else:
                m.d.sync += taken.eq(slots[lane])
            code: Value = taken
            if config.mask_bits:
                code = delay(m, taken, 1) if lane else self._build_bitmap(m, taken)
            self._build_lane(m, lane, code, offset)
        return m

    def _build_bitmap(self, m: Module, taken: Signal) -> Signal:
        """Return lane 0's code one cycle later; in a bitmap layer it is the number of the lowest bit in its mask word.

        The words of such a layer come out of the ROM ahead of their slots; ``taken`` is where they arrive.
        """
        d = self.descriptor
        m.submodules.bitmap = bitmap = BitmapDecoder(
            self.config.mask_bits, self.pointer_bits, len(d.mask_last), len(d.pass_last)
        )
        flags = delay(m, self.flags, 1, FLAGS)
        m.d.comb += [
            bitmap.start.eq(self.start),
            bitmap.base.eq(d.index_base),
            bitmap.mask_last.eq(d.mask_last),
            bitmap.pass_last.eq(d.pass_last),
            bitmap.mask.eq(taken),
            bitmap.enable.eq(flags.valid),
            bitmap.last.eq(flags.last),
            self.mask_pointer.eq(bitmap.pointer),
        ]
        code = Signal.like(taken)
        escape = (1 << len(code)) - 1
        m.d.sync += [
            code.eq(Mux(d.masked, Mux(bitmap.filler, escape, bitmap.bit), taken)),
            self.word_end.eq(bitmap.word_end),
        ]
        return code

    def _build_offset(self, m: Module) -> Value:
        """The offset of the present element within its block, the same for all lanes."""
        if not self.config.has_steps:
            return Const(0)
        offset = Signal(self.position_bits)
        with m.If(self.o_flags.valid):
            m.d.sync += offset.eq(Mux(self.unit_end, 0, offset + self.descriptor.element_step))
        return offset

    def _build_lane(self, m: Module, lane: int, taken: Value, offset: Value) -> None:
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
        with m.If(self.begins):
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

    def _pattern_offset(self, m: Module, taken: Value) -> Value:
        """Look the element's offset up in the layer's table of patterns."""
        config, d = self.config, self.descriptor
        number = taken[config.pattern_bits :]
        element = delay(m, self.element, self.latency_cycles) if config.element_bits else Const(0, 1)
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
