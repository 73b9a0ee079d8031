"""The weight feed: what brings one weight a lane to the array, in step with the activations."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.sign_add import RunCode
from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.codebook import CodebookTable
from zeroskip.hw.pipeline import FLAGS, delay
from zeroskip.hw.row_pointer import RowPointer
from zeroskip.hw.sign_add import run_signs

__all__ = ["WeightFeed", "weight_level"]


TABLE_BITS = 4
"""Zero-excluded codes up to this width become levels by a table, a LUT a bit, instead of an adder."""


def weight_level(code: Value, zero_excluded: Value | None) -> Value:
    """Return the level of a stored weight code: zero-excluded codes from 0 up mean one more."""
    natural, bits = code.as_signed(), len(code)
    if zero_excluded is None:
        return natural
    if bits > TABLE_BITS:
        return natural + (zero_excluded & ~code[-1])
    half = 1 << (bits - 1)
    table = Choice(Const(n + 1 if n < half else n - 2 * half, signed(bits + 1)) for n in range(2 * half))
    return Mux(zero_excluded, table[code], natural)


class WeightFeed(wiring.Component):
    """Read the weight ROMs late, in step with the activations; columns follow at their skew, cores go together.

    The skew is in the address: one pointer ripples along the columns, no weight waits in a register. Windowed layers
    take one slot of the word for all lanes, a linear layer the whole word. A lane whose index is an escape gets 0. The
    word has a register of its own between the ROM and the choice of the slot, for the ROM may lie far away.

    Latency 5 cycles from ``flags`` to the weights of column 0, initiation interval 1.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the front descriptor
    depth : int, words of a weight ROM

    Members
    -------
    descriptor, start : In, as in Issue
    late_linear, late_zero_excluded, late_codebook : In, these fields as the last stages see them
    flags : In(FLAGS), a cycle before the bank address
    fillers : In(array of lanes bits), one core each, 4 cycles after ``flags``
    rom_addr : Out(array), rom_data : In(array), one ROM a column or core
    weights : Out(array of signed(operand_bits)), column by column; where lanes share multipliers the weights' signs
    magnitudes : Out(array of signed(level_bits)), one a multiplier, where lanes share them: of the runs, in step with
        the signs as :class:`zeroskip.compiler.sign_add.RunCode` says
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout, depth: int) -> None:
        self.config = config
        geometry = config.geometry
        code = config.run_code
        word_bits = geometry.lanes * config.weight_width if code is None else geometry.lanes // code.adds * code.bits
        address_bits = max(1, (depth - 1).bit_length())
        super().__init__(
            {
                "descriptor": In(layout),
                "start": In(1),
                "late_linear": In(1),
                "late_zero_excluded": In(1),
                "late_codebook": In(max(1, len(config.codebooks).bit_length())),
                "flags": In(FLAGS),
                "fillers": In(data.ArrayLayout(geometry.lanes, geometry.cores)),
                "rom_addr": Out(data.ArrayLayout(address_bits, geometry.units)),
                "rom_data": In(data.ArrayLayout(word_bits, geometry.units)),
                "weights": Out(data.ArrayLayout(signed(config.operand_bits), geometry.products)),
                **(
                    {"magnitudes": Out(data.ArrayLayout(signed(config.level_bits), geometry.multipliers))}
                    if code is not None
                    else {}
                ),
            }
        )
        self.address_bits = address_bits

    def elaborate(self, platform: object) -> Module:
        """Build the pointer and one slot selection a column or core."""
        m = Module()
        config, geometry = self.config, self.config.geometry
        pointer = self._build_pointer(m)
        slot = delay(m, pointer[: config.lane_bits], 3)
        skewed: Value = pointer
        linear: Value = self.late_linear
        excluded: Value = self.late_zero_excluded if config.has_plain_levels else Const(1)
        book: Value = self.late_codebook
        fillers: list[Value] = [self.fillers[core] for core in range(geometry.cores)]
        for unit in range(geometry.units):
            if unit and geometry.skew(unit) > geometry.skew(unit - 1):
                skewed, slot = delay(m, skewed, 1), delay(m, slot, 1)
                linear, book = delay(m, linear, 1), delay(m, book, 1)
                excluded = delay(m, excluded, 1) if config.has_plain_levels else excluded
                fillers = [delay(m, fillers[0], 1)] if config.indexed else fillers
            idle = fillers[0 if geometry.columns > 1 else unit]
            m.d.comb += self.rom_addr[unit].eq(skewed[config.lane_bits :])
            if config.run_code is None:
                self._build_unit(m, unit, idle, slot, linear, excluded, book)
            else:
                self._build_runs(m, unit, idle, slot, linear, config.run_code)
        return m

    def _build_pointer(self, m: Module) -> Value:
        """Walk the slots: a pass walks its row again until the group ends."""
        config, d, flags = self.config, self.descriptor, self.flags
        m.submodules.walk = walk = RowPointer(self.address_bits + config.lane_bits, config.lane_bits)
        m.d.comb += [
            walk.start.eq(self.start),
            walk.base.eq(d.weight_base),
            walk.step.eq(flags.valid),
            walk.last.eq(flags.last),
            walk.next_row.eq(flags.group_last & ~d.row_shared),
            walk.whole_words.eq(d.linear if config.has_windowed else 1),
        ]
        return walk.pointer

    def _build_unit(
        self, m: Module, unit: int, idle: Value, slot: Value, linear: Value, excluded: Value, book: Value
    ) -> None:
        config = self.config
        lanes = config.geometry.lanes
        word = delay(m, self.rom_data[unit], 1)
        slots = [word.word_select(lane, config.weight_width) for lane in range(lanes)]
        shared = Signal(config.weight_width, name=f"shared_{unit}", reset_less=True)
        if config.has_windowed:
            m.d.sync += shared.eq(Choice(slots)[slot])
        # without linear layers all lanes take the shared slot: its level is looked up once
        common = None if config.has_linear else self._level(m, f"{unit}", shared, excluded, book)
        for lane in range(lanes):
            level = common
            if level is None:
                mine = Signal(config.weight_width, name=f"slot_{unit}_{lane}", reset_less=True)
                m.d.sync += mine.eq(slots[lane])
                # chosen behind the registers: the shared slot comes out of a wide selection
                code = Mux(linear, mine, shared) if config.has_windowed else mine
                level = self._level(m, f"{unit}_{lane}", code, excluded, book)
            if config.indexed:
                level = Mux(idle[lane], 0, level)
            m.d.comb += self.weights[unit * lanes + lane].eq(delay(m, level, 1, signed(config.operand_bits)))

    def _level(self, m: Module, place: str, code: Value, excluded: Value, book: Value) -> Value:
        """Return the level of a weight's code, on the grid or in the codebook of its layer."""
        config = self.config
        level: Value = weight_level(code, excluded if config.has_zero_excluded else None)
        if not config.codebooks:
            return level
        table = CodebookTable(len(config.codebooks), config.weight_width, config.level_bits)
        m.submodules[f"codebook_{place}"] = table
        m.d.comb += [table.book.eq(book), table.code.eq(code)]
        return Mux(book == 0, level, table.level)

    def _build_runs(self, m: Module, unit: int, idle: Value, slot: Value, linear: Value, code: RunCode) -> None:
        """Signs and magnitudes: a windowed layer takes those of one slot for all lanes, a linear one the whole word."""
        config = self.config
        lanes, adds = config.geometry.lanes, code.adds
        signs, magnitudes = run_signs(delay(m, self.rom_data[unit], 1), code)
        shared = Signal(signed(2), name=f"shared_{unit}", reset_less=True)
        magnitude = Signal(code.magnitude_bits, name=f"run_{unit}", reset_less=True)
        if config.has_windowed:
            run = slot[(adds - 1).bit_length() :]
            m.d.sync += [shared.eq(Choice(signs)[slot]), magnitude.eq(Choice(magnitudes)[run])]
        for lane in range(lanes):
            sign: Value = shared
            if config.has_linear:
                mine = Signal(signed(2), name=f"slot_{unit}_{lane}", reset_less=True)
                m.d.sync += mine.eq(signs[lane])
                sign = Mux(linear, mine, shared) if config.has_windowed else mine
            taken = Mux(idle[lane], 0, sign) if config.indexed else sign
            m.d.comb += self.weights[unit * lanes + lane].eq(delay(m, taken, 1, signed(config.operand_bits)))
        for number in range(lanes // adds):
            stored: Value = magnitude
            if config.has_linear:
                own = Signal(code.magnitude_bits, name=f"run_{unit}_{number}", reset_less=True)
                m.d.sync += own.eq(magnitudes[number])
                stored = Mux(linear, own, magnitude) if config.has_windowed else own
            present = delay(m, stored + code.base, 1, signed(config.level_bits))
            m.d.comb += self.magnitudes[unit * lanes // adds + number].eq(present)
