"""The gather: from a position to one activation a lane, without bank conflicts."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout, rotate_left, rotate_right

__all__ = ["WALKED", "Gather", "TileWalk"]


WALKED = ("row", "column", "window_y", "window_x", "tile", "group_word", "mask_y", "mask_x")
"""Outputs of :class:`TileWalk` that every gather takes."""


class TileWalk(wiring.Component):
    """Follow windows and tiles, in step with the stages of the gathers; all cores share it.

    Stages count from the position: 3 window, 7 tile, group and masks.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the front descriptor
    offset_bits, mask_y_bits, mask_x_bits : int, widths of the table addresses
    window_bits : int, of a window coordinate plus a tap's

    Members
    -------
    descriptor, start : In, as in Issue
    flags : In(FLAGS), stage 0
    row, column : Out(offset_bits), stage 3, where the window's offsets begin in the ``offsets`` ROM
    window_y, window_x : Out(window_bits), stage 3
    tile : Out(position bits), stage 7, address of the tile
    group_word : Out(word address bits), stage 7, word of the group's first input channel
    mask_y, mask_x : Out, stage 7, where the tile's masks begin
    o_flags : Out(FLAGS), stage 9
    """

    def __init__(
        self,
        config: EngineConfig,
        layout: data.StructLayout,
        offset_bits: int,
        window_bits: int,
        mask_y_bits: int,
        mask_x_bits: int,
    ) -> None:
        self.config = config
        super().__init__(
            {
                "descriptor": In(layout),
                "start": In(1),
                "flags": In(FLAGS),
                "row": Out(offset_bits),
                "column": Out(offset_bits),
                "window_y": Out(window_bits),
                "window_x": Out(window_bits),
                "tile": Out(config.position_bits),
                "group_word": Out(config.word_address_bits),
                "mask_y": Out(mask_y_bits),
                "mask_x": Out(mask_x_bits),
                "o_flags": Out(FLAGS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the counters of windows, tiles and groups."""
        m = Module()
        # the start of a layer sets these, so reset need not
        self.registers = {name: Signal.like(getattr(self, name), reset_less=True) for name in WALKED}
        m.d.comb += [getattr(self, name).eq(register) for name, register in self.registers.items()]
        third = delay(m, self.flags, 3, FLAGS)
        seventh = delay(m, third, 4, FLAGS)
        m.d.comb += self.o_flags.eq(delay(m, seventh, 2, FLAGS))
        self._build_windows(m, third)
        self._build_tiles(m, seventh)
        return m

    def _build_windows(self, m: Module, flags: data.View) -> None:
        d, r = self.descriptor, self.registers
        count_y, count_x = Signal.like(d.window_y_last), Signal.like(d.window_x_last)
        with m.If(flags.valid & flags.last):
            with m.If(count_x == d.window_x_last):
                m.d.sync += [count_x.eq(0), r["window_x"].eq(0), r["column"].eq(d.x_table)]
                m.d.sync += [
                    count_y.eq(count_y + 1),
                    r["window_y"].eq(r["window_y"] + d.window_step_y),
                    r["row"].eq(r["row"] + d.window_step_y),
                ]
            with m.Else():
                m.d.sync += [count_x.eq(count_x + 1), r["window_x"].eq(r["window_x"] + d.window_step_x)]
                m.d.sync += r["column"].eq(r["column"] + d.window_step_x)
        with m.If(self.start | (flags.valid & flags.unit_last)):
            m.d.sync += [count_y.eq(0), r["window_y"].eq(0), r["row"].eq(d.y_table)]
            m.d.sync += [count_x.eq(0), r["window_x"].eq(0), r["column"].eq(d.x_table)]

    def _build_tiles(self, m: Module, flags: data.View) -> None:
        config, d, r = self.config, self.descriptor, self.registers
        row_base, next_row = Signal(config.position_bits, reset_less=True), Signal(config.position_bits)
        count = Signal.like(d.tile_x_last)
        repeat = Signal.like(d.repeat_last)
        row_end = Signal()
        # copies of their own: the descriptor is far, and looked at here seven cycles after the start at the earliest
        step_y, step_x = delay(m, d.tile_step_y, 1), delay(m, d.tile_step_x, 1)
        m.d.comb += [next_row.eq(row_base + step_y), row_end.eq(count == d.tile_x_last)]
        with m.If(flags.valid & flags.unit_last):
            m.d.sync += [count.eq(count + 1), r["tile"].eq(r["tile"] + step_x)]
            with m.If(row_end):
                m.d.sync += [count.eq(0), r["tile"].eq(next_row), row_base.eq(next_row)]
        with m.If(flags.valid & flags.group_last):
            m.d.sync += repeat.eq(repeat + 1)
            with m.If(repeat == d.repeat_last):
                m.d.sync += [repeat.eq(0), r["group_word"].eq(r["group_word"] + d.group_step)]
        with m.If(self.start):
            m.d.sync += [r["group_word"].eq(d.in_base), repeat.eq(0)]
        restart = Signal()
        m.d.comb += restart.eq(self.start | (flags.valid & flags.group_last))
        with m.If(restart):
            m.d.sync += [count.eq(0), r["tile"].eq(0), row_base.eq(0)]
        if config.has_padding:
            with m.If(flags.valid & flags.unit_last):
                m.d.sync += [r["mask_y"].eq(r["mask_y"] + d.mask_y_tile), r["mask_x"].eq(r["mask_x"] + d.mask_x_tile)]
                with m.If(row_end):
                    m.d.sync += [r["mask_y"].eq(r["mask_y"] + d.mask_y_tile + d.mask_y_row), r["mask_x"].eq(d.mask_x)]
            with m.If(restart):
                m.d.sync += [r["mask_y"].eq(d.mask_y), r["mask_x"].eq(d.mask_x)]


class Gather(wiring.Component):
    """Compute the bank addresses of a position for all lanes, read the banks, rotate the answers to their lanes.

    Linear address of lane 0: ``A = tile + rows[window_y + tap_y] + columns[window_x + tap_x]``. Lane ``l`` lies in bank
    ``(A + l) mod L`` (the stored pitch makes that true for every lane of a tile), at word
    ``(A + l) div L + lane_word[l] + channel word``; so bank ``b`` adds a carry when ``b < A mod L``, and one rotation
    by ``A mod L`` brings every answer to its lane. In a linear layer every lane reads a word of its own bank.

    Windowed stages: 0 position, 2 tap, 3 the tap again, for its ROM may lie far away, 4 coordinates, 6 offsets, 7 their
    sum, 8 address, 9 rotation, 10 bank addresses, 12 banks, 13-14 rotation and padding. A linear position meets the
    bank address stage directly. Initiation interval 1, never stalls.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the front descriptor
    core : int
    taps, offsets, mask_y, mask_x : Rom or None
    position_bits : int

    Members
    -------
    descriptor : In(layout)
    walk_... : In, the outputs of :class:`TileWalk`
    position : In(position_bits), stage 0, windowed
    words : In(array of word address bits), stage 0, linear
    late_linear, late_signed, late_pad : In, fields as the last stages see them
    tap_addr, offset_addr_0/1, mask_addr_y/x : Out, and ..._data : In, the ROMs
    bank_addr : Out(array), bank_data : In(array), the banks
    activations : Out(array of signed(9))
    """

    def __init__(
        self,
        config: EngineConfig,
        layout: data.StructLayout,
        core: int,
        roms: dict[str, Rom],
        walk: TileWalk | None,
        position_bits: int,
    ) -> None:
        self.config = config
        self.core = core
        self.roms = roms
        lanes, word_bits = config.geometry.lanes, config.word_address_bits
        members = {
            "descriptor": In(layout),
            "position": In(position_bits),
            "words": In(data.ArrayLayout(word_bits, lanes)),
            "late_linear": In(1),
            "late_signed": In(1),
            "late_pad": In(signed(9)),
            "bank_addr": Out(data.ArrayLayout(word_bits, lanes)),
            "bank_data": In(data.ArrayLayout(8, lanes)),
            "activations": Out(data.ArrayLayout(signed(9), lanes)),
        }
        if walk is not None:
            members.update({f"walk_{name}": In(getattr(walk, name).shape()) for name in WALKED})
        for name in ("taps", "mask_y", "mask_x"):
            if name in roms:
                members[f"{name}_addr"] = Out(_address_bits(roms[name]))
                members[f"{name}_data"] = In(roms[name].word_bits)
        if "offsets" in roms:
            for port in range(2):
                members[f"offsets_addr_{port}"] = Out(_address_bits(roms["offsets"]))
                members[f"offsets_data_{port}"] = In(config.position_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Chain the stages."""
        m = Module()
        config = self.config
        tap = None
        if "taps" in self.roms:
            tap = Signal(descriptor_layout(self.roms["taps"].fields))
            m.d.comb += [self.taps_addr.eq(self.position), tap.eq(self.taps_data)]
        windowed: list[Value] | None = None
        rotation: Value = Const(0)
        outside: Value | None = None
        if config.has_windowed and tap is not None:
            late_tap = Signal.like(tap, reset_less=True)
            m.d.sync += late_tap.eq(tap)
            windowed, rotation, outside = self._build_windowed(m, late_tap)
        linear = self._build_words(m, tap) if config.has_linear else None
        d = self.descriptor
        for bank in range(config.geometry.lanes):
            address = windowed[bank] if windowed is not None else None
            if linear is not None:
                address = linear[bank] if address is None else Mux(d.linear, linear[bank], address)
            m.d.comb += self.bank_addr[bank].eq(delay(m, address, 1))
        self._build_read(m, rotation, outside)
        return m

    def _build_words(self, m: Module, tap: data.View | None) -> list[Value]:
        """A linear layer's words at the bank address stage; a keep-list looks them up, for all lanes alike."""
        lanes = self.config.geometry.lanes
        if not self.config.has_keep or tap is None:
            return [self.words[lane] for lane in range(lanes)]
        if not self.config.has_split and not self.config.indexed:
            shared = Mux(self.descriptor.keep, tap.word, delay(m, self.words[0], 2))
            return [shared] * lanes
        return [Mux(self.descriptor.keep, tap.word, delay(m, self.words[lane], 2)) for lane in range(lanes)]

    def _build_windowed(self, m: Module, tap: data.View) -> tuple[list[Value], Value, Value | None]:
        """Stages 3-9: every bank's word; returns them with the rotation at stage 9 and the lanes outside at 13."""
        config = self.config
        row_addr, column_addr = (Signal.like(a, reset_less=True) for a in (self.offsets_addr_0, self.offsets_addr_1))
        m.d.sync += [row_addr.eq(self.walk_row + tap.y), column_addr.eq(self.walk_column + tap.x)]
        m.d.comb += [self.offsets_addr_0.eq(row_addr), self.offsets_addr_1.eq(column_addr)]
        offset, word = Signal(config.position_bits, reset_less=True), Signal(config.word_address_bits)
        m.d.sync += offset.eq(self.offsets_data_0 + self.offsets_data_1)
        m.d.comb += word.eq(delay(m, tap.word, 4))
        group_word: Value = self.walk_group_word
        if config.has_core_words:
            word = delay(m, delay(m, tap.word, 3) + self.descriptor[f"core_word_{self.core}"], 1)
        address = Signal(config.position_bits, reset_less=True)
        channel_word = Signal(config.word_address_bits, reset_less=True)
        m.d.sync += [address.eq(offset + self.walk_tile), channel_word.eq(word + group_word)]
        outside = self._build_masks(m, tap) if config.has_padding else None
        return *self._build_banks(m, address, channel_word), outside

    def _build_banks(self, m: Module, address: Value, channel_word: Value) -> tuple[list[Value], Value]:
        """Stages 8-9."""
        config, d = self.config, self.descriptor
        lanes, lane_bits = config.geometry.lanes, config.lane_bits
        rotation = address[:lane_bits]
        word = Signal(config.word_address_bits, reset_less=True)
        carry = Signal(lanes, reset_less=True)
        m.d.sync += word.eq(address[lane_bits:] + channel_word)
        m.d.sync += [carry[bank].eq(bank < rotation) for bank in range(lanes)]
        offsets: list[Value] = [Const(0)] * lanes
        if config.has_row_offsets:
            lane_words = [d[f"lane_word_{lane}"] for lane in range(lanes)]
            bits = max(len(value) for value in lane_words)
            rotated = rotate_right([Cat(value, 0)[:bits] for value in lane_words], rotation, range(lane_bits))
            offsets = [delay(m, value, 1) for value in rotated]
        words = [word + carry[bank] + offsets[bank] for bank in range(lanes)]
        return [value[: config.word_address_bits] for value in words], delay(m, rotation, 1)

    def _build_masks(self, m: Module, tap: data.View) -> Value:
        """Stages 3-13: which lanes read outside the input."""
        outside: list[Value] = []
        for axis in ("y", "x"):
            coordinate = Signal.like(getattr(self, f"walk_window_{axis}"), name=f"coordinate_{axis}", reset_less=True)
            m.d.sync += coordinate.eq(getattr(self, f"walk_window_{axis}") + tap[axis])
            address = Signal.like(getattr(self, f"mask_{axis}_addr"), name=f"mask_address_{axis}", reset_less=True)
            m.d.sync += address.eq(getattr(self, f"walk_mask_{axis}") + delay(m, coordinate, 3))
            m.d.comb += getattr(self, f"mask_{axis}_addr").eq(delay(m, address, 2))
            outside.append(getattr(self, f"mask_{axis}_data"))
        inside = Signal(self.config.geometry.lanes, reset_less=True)
        m.d.sync += inside.eq(outside[0] & outside[1])
        return ~inside

    def _build_read(self, m: Module, rotation: Value, outside: Value | None) -> None:
        """From the bank address stage: the banks, rotation in two steps, padding, the sign."""
        config = self.config
        lanes, lane_bits = config.geometry.lanes, config.lane_bits
        answers = [self.bank_data[bank] for bank in range(lanes)]
        if config.has_windowed:
            turn = Signal(lane_bits, reset_less=True)
            m.d.sync += turn.eq(Mux(self.descriptor.linear, 0, rotation) if config.has_linear else rotation)
            turn = delay(m, turn, 2)
            coarse = min(2, lane_bits)
            half = [delay(m, value, 1) for value in rotate_left(answers, turn, range(coarse))]
            turned = rotate_left(half, delay(m, turn, 1), range(coarse, lane_bits))
        else:
            turned = [delay(m, value, 1) for value in answers]
        for lane, value in enumerate(turned):
            extended = Cat(value, value[-1] & self.late_signed).as_signed()
            if outside is not None:
                out = outside[lane] & ~self.late_linear if config.has_linear else outside[lane]
                extended = Mux(out, self.late_pad, extended)
            m.d.comb += self.activations[lane].eq(delay(m, extended, 1))


def _address_bits(rom: Rom) -> int:
    return max(1, (rom.depth - 1).bit_length())
