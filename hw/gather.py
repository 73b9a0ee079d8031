"""The gather: from a tap to one activation a lane, without bank conflicts."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.target import Engine, EngineConfig
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout, rotate_left, rotate_right

__all__ = ["Gather"]


class Gather(wiring.Component):
    """Compute the bank addresses of a tap for all lanes, read the banks, rotate the answers to their lanes.

    Linear address of lane 0: ``A = tile + rows[window_y + tap_y] + columns[window_x + tap_x]``. Lane ``l`` lies in bank
    ``(A + l) mod L`` (the stored pitch makes that true for every lane of a tile), at word
    ``(A + l) div L + lane_word[l] + channel word``; so bank ``b`` adds a carry when ``b < A mod L``, and one rotation
    by ``A mod L`` brings every answer to its lane. A sparse linear layer gives each lane its own word instead.

    Stages (flags numbered alike): 2 tap number, 4 coordinates, 5 offsets ROM, 7 sums, 8 rotation, 9 bank addresses,
    10 banks, 12-13 rotation and padding, 14 activations out. Latency 12 cycles from the tap number (4 from a linear
    lane address), initiation interval 1, never stalls.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the layer descriptor
    taps : Rom or None
    tap_bits : int

    Members
    -------
    descriptor, start : In, as in Issue
    flags : In(FLAGS), stage 2
    tap : In(tap_bits), stage 2; number in the tap table (dense linear without a keep-list: the input word itself)
    lane_words : In(array of word address bits), stage 2; sparse linear
    tap_addr : Out, tap_data : In, the ``taps`` ROM
    offset_addr_0/1 : Out, offset_data_0/1 : In, the ``offsets`` ROM
    peek, peek_addr : In, read one position instead (unloading)
    bank_addr : Out(array), bank_data : In(array), the banks
    activations : Out(array of signed(9)), stage 14
    o_flags : Out(FLAGS), stage 14
    weight_flags : Out(FLAGS), stage 10, for the weight feed
    """

    peek_cycles = 5
    tap_to_activation_cycles = 12
    lane_word_to_activation_cycles = 5

    def __init__(
        self, config: EngineConfig, layout: data.StructLayout, taps: Rom | None, offsets: Rom, tap_bits: int
    ) -> None:
        self.config = config
        self.taps = taps
        self.sparse = config.geometry.engine is Engine.SPARSE
        lanes, word_bits = config.geometry.lanes, config.word_address_bits
        offset_bits = max(1, (offsets.depth - 1).bit_length())
        members = {
            "descriptor": In(layout),
            "start": In(1),
            "flags": In(FLAGS),
            "tap": In(tap_bits),
            "offset_addr_0": Out(offset_bits),
            "offset_addr_1": Out(offset_bits),
            "offset_data_0": In(config.position_bits),
            "offset_data_1": In(config.position_bits),
            "peek": In(1),
            "peek_addr": In(config.position_bits),
            "bank_addr": Out(data.ArrayLayout(word_bits, lanes)),
            "bank_data": In(data.ArrayLayout(8, lanes)),
            "activations": Out(data.ArrayLayout(signed(9), lanes)),
            "o_flags": Out(FLAGS),
            "weight_flags": Out(FLAGS),
        }
        if self.sparse:
            members["lane_words"] = In(data.ArrayLayout(word_bits, lanes))
        if taps is not None:
            members["tap_addr"] = Out(max(1, (taps.depth - 1).bit_length()))
            members["tap_data"] = In(taps.word_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Chain the stages."""
        m = Module()
        flags: dict[int, Value] = {2: self.flags}
        for stage in range(3, 10):
            flags[stage] = Signal(FLAGS, name=f"flags_{stage}")
            m.d.sync += flags[stage].eq(flags[stage - 1])
        tap = self._build_tap(m)
        offset, pad_y, pad_x = self._build_coordinates(m, flags[4], tap)
        word = delay(m, delay(m, tap.word, 2), 1)
        address, channel_word, tile_y, tile_x = self._build_tiles(m, flags[7], offset, word)
        rotation = self._build_bank_addresses(m, address, channel_word)
        after = Signal(FLAGS, name="flags_10")
        if self.sparse:
            m.d.sync += after.eq(Mux(self.descriptor.linear, self.flags.as_value(), flags[9]))
        else:
            m.d.sync += after.eq(flags[9])
        m.d.comb += self.weight_flags.eq(after)
        last_flags = delay(m, after, 3, FLAGS)
        outside = self._build_padding(m, pad_y, pad_x, tile_y, tile_x, last_flags)
        self._build_read(m, rotation, outside)
        m.d.sync += self.o_flags.eq(last_flags)
        return m

    def _build_tap(self, m: Module) -> data.View:
        """Stages 2-4: look the tap up; without a table the tap number is the input word."""
        identity = delay(m, self.tap, 2)
        if self.taps is None:
            layout = data.StructLayout({"word": len(self.tap), "x": 1, "y": 1})
            entry = Signal(layout)
            m.d.comb += [entry.word.eq(identity), entry.x.eq(0), entry.y.eq(0)]
            return entry
        m.d.comb += self.tap_addr.eq(self.tap)
        table = Signal(descriptor_layout(self.taps.fields))
        # the block RAM answers late in the cycle: nothing but a register behind it
        m.d.sync += table.eq(self.tap_data)
        if self.sparse or not self.config.has_linear:
            return table
        word_bits = max(len(table.word), len(self.tap))
        entry = Signal(data.StructLayout({"word": word_bits, "x": len(table.x), "y": len(table.y)}))
        use_identity = self.descriptor.identity
        m.d.comb += [
            entry.word.eq(Mux(use_identity, identity, table.word)),
            entry.x.eq(Mux(use_identity, 0, table.x)),
            entry.y.eq(Mux(use_identity, 0, table.y)),
        ]
        return entry

    def _build_coordinates(self, m: Module, flags: data.View, tap: data.View) -> tuple[Value, Value, Value]:
        """Stages 4-6: window position plus tap, looked up as an address offset."""
        d = self.descriptor
        count_y, count_x = Signal.like(d.window_y_last), Signal.like(d.window_x_last)
        bits = max(len(tap.y), len(tap.x)) + len(d.window_y_last) + len(d.window_x_last) + 4
        window_y, window_x = Signal(bits), Signal(bits)
        row, column = Signal.like(self.offset_addr_0), Signal.like(self.offset_addr_1)
        with m.If(flags.valid & flags.last):
            with m.If((count_x == d.window_x_last) | flags.unit_last):
                m.d.sync += [count_x.eq(0), window_x.eq(0), column.eq(d.x_table)]
                m.d.sync += [
                    count_y.eq(count_y + 1),
                    window_y.eq(window_y + d.window_step_y),
                    row.eq(row + d.window_step_y),
                ]
            with m.Else():
                m.d.sync += [count_x.eq(count_x + 1), window_x.eq(window_x + d.window_step_x)]
                m.d.sync += column.eq(column + d.window_step_x)
        with m.If(self.start | (flags.valid & flags.unit_last)):
            m.d.sync += [count_y.eq(0), window_y.eq(0), row.eq(d.y_table)]
            m.d.sync += [count_x.eq(0), window_x.eq(0), column.eq(d.x_table)]
        row_addr, column_addr = Signal.like(row), Signal.like(column)
        m.d.sync += [row_addr.eq(row + tap.y), column_addr.eq(column + tap.x)]
        m.d.comb += [self.offset_addr_0.eq(row_addr), self.offset_addr_1.eq(column_addr)]
        offset = Signal(self.config.position_bits)
        m.d.sync += offset.eq(self.offset_data_0 + self.offset_data_1)
        if not self.config.has_padding:
            return offset, Signal(1), Signal(1)
        pad_y, pad_x = Signal(bits), Signal(bits)
        m.d.sync += [pad_y.eq(window_y + tap.y), pad_x.eq(window_x + tap.x)]
        return offset, delay(m, pad_y, 2), delay(m, pad_x, 2)

    def _build_tiles(
        self, m: Module, flags: data.View, offset: Value, word: Value
    ) -> tuple[Signal, Signal, Signal, Signal]:
        """Stage 7: the tile's base address, its first input coordinates, and the channel of a depthwise group."""
        config, d = self.config, self.descriptor
        base, row_base = Signal(config.position_bits), Signal(config.position_bits)
        count = Signal.like(d.tile_x_last)
        group_base = Signal(config.word_address_bits)
        coordinate_bits = self._coordinate_bits()
        tile_y, tile_x = Signal(signed(coordinate_bits)), Signal(signed(coordinate_bits))
        next_row = Signal(config.position_bits)
        m.d.comb += next_row.eq(row_base + d.tile_step_y)
        with m.If(flags.valid & flags.unit_last):
            with m.If(count == d.tile_x_last):
                m.d.sync += [count.eq(0), base.eq(next_row), row_base.eq(next_row)]
            with m.Else():
                m.d.sync += [count.eq(count + 1), base.eq(base + d.tile_step_x)]
        with m.If(flags.valid & flags.group_last):
            m.d.sync += group_base.eq(group_base + d.group_step)
        with m.If(self.start):
            m.d.sync += group_base.eq(d.in_base)
        with m.If(self.start | (flags.valid & flags.group_last)):
            m.d.sync += [count.eq(0), base.eq(0), row_base.eq(0)]
        if config.has_padding:
            with m.If(flags.valid & flags.unit_last):
                with m.If(count == d.tile_x_last):
                    m.d.sync += [tile_x.eq(d.first_x), tile_y.eq(tile_y + d.pad_step_y)]
                with m.Else():
                    m.d.sync += tile_x.eq(tile_x + d.pad_step_x)
            with m.If(self.start | (flags.valid & flags.group_last)):
                m.d.sync += [tile_x.eq(d.first_x), tile_y.eq(d.first_y)]
        address, channel_word = Signal(config.position_bits), Signal(config.word_address_bits)
        m.d.sync += [address.eq(offset + base), channel_word.eq(word + group_base)]
        return address, channel_word, tile_y, tile_x

    def _coordinate_bits(self) -> int:
        d = self.descriptor
        if not self.config.has_padding:
            return 1
        return max(len(d.height), len(d.width)) + max(len(d.pad_step_y), len(d.pad_step_x)) + 3

    def _build_bank_addresses(self, m: Module, address: Value, channel_word: Value) -> Value:
        """Stages 8-10: every bank's word; returns the rotation at stage 12."""
        config, d = self.config, self.descriptor
        lanes, lane_bits = config.geometry.lanes, config.lane_bits
        rotation = address[:lane_bits]
        word = Signal(config.word_address_bits)
        carry = Signal(lanes)
        m.d.sync += word.eq(address[lane_bits:] + channel_word)
        m.d.sync += [carry[bank].eq(bank < rotation) for bank in range(lanes)]
        offsets: list[Value] = []
        if config.has_row_offsets:
            lane_words = [d[f"lane_word_{lane}"] for lane in range(lanes)]
            bits = max(len(value) for value in lane_words)
            rotated = rotate_right([Cat(value, 0)[:bits] for value in lane_words], rotation, range(lane_bits))
            offsets = [delay(m, value, 1) for value in rotated]
        peek_word, peek_rotation = self.peek_addr[lane_bits:], self.peek_addr[:lane_bits]
        for bank in range(lanes):
            computed = word + carry[bank] + (offsets[bank] if offsets else 0)
            if self.sparse and config.has_linear:
                computed = Mux(d.linear, self.lane_words[bank], computed)
            m.d.sync += self.bank_addr[bank].eq(Mux(self.peek, peek_word, computed))
        turn = Signal(lane_bits)
        before = delay(m, rotation, 1)
        if self.sparse and config.has_linear:
            before = Mux(d.linear, 0, before)
        m.d.sync += turn.eq(Mux(self.peek, peek_rotation, before))
        return delay(m, turn, 2)

    def _build_padding(
        self, m: Module, pad_y: Value, pad_x: Value, tile_y: Value, tile_x: Value, last_flags: data.View
    ) -> Value | None:
        """Stages 7-13: which lanes read outside the input, or past the end of a vector."""
        config, d = self.config, self.descriptor
        if not config.has_padding:
            return None
        lanes = config.geometry.lanes
        bits = self._coordinate_bits()
        y, x = Signal(signed(bits)), Signal(signed(bits))
        m.d.sync += [y.eq(pad_y + tile_y), x.eq(pad_x + tile_x)]
        inside = Signal(lanes)
        for lane in range(lanes):
            lane_y, lane_x = Signal(signed(bits), name=f"lane_y_{lane}"), Signal(signed(bits), name=f"lane_x_{lane}")
            m.d.sync += [lane_y.eq(y + d[f"lane_y_{lane}"]), lane_x.eq(x + d[f"lane_x_{lane}"])]
            row_inside = (lane_y >= 0) & (lane_y < d.height)
            column_inside = (lane_x >= 0) & (lane_x < d.width)
            m.d.sync += inside[lane].eq(row_inside & column_inside)
        late = delay(m, inside, 3)
        outside = Signal(lanes)
        if self.sparse:
            m.d.comb += outside.eq(Mux(d.linear, 0, ~late))
        else:
            m.d.comb += outside.eq(Mux(d.linear, Mux(last_flags.last, ~d.tail, 0), ~late))
        return outside

    def _build_read(self, m: Module, rotation: Value, outside: Value | None) -> None:
        """Stages 11-14: register the banks' answers, rotate in two steps, substitute padding, extend the sign."""
        config, d = self.config, self.descriptor
        lanes, lane_bits = config.geometry.lanes, config.lane_bits
        coarse = min(2, lane_bits)
        answers = [delay(m, self.bank_data[bank], 1) for bank in range(lanes)]
        half = [delay(m, value, 1) for value in rotate_left(answers, rotation, range(coarse))]
        turned = rotate_left(half, delay(m, rotation, 1), range(coarse, lane_bits))
        for lane, value in enumerate(turned):
            extended = Cat(value, value[-1] & d.in_signed).as_signed()
            if outside is not None:
                extended = Mux(outside[lane], d.pad_code, extended)
            m.d.sync += self.activations[lane].eq(extended)
