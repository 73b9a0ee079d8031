"""Decoder of the relative index with escapes; coder and format: :mod:`zeroskip.compiler.encodings.relative`."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.pipeline import FLAGS, delay

__all__ = ["RelativeDecoder", "weight_level"]


def weight_level(code: Signal, zero_excluded: Signal | int) -> object:
    """Return the level of a stored weight code: zero-excluded codes from 0 up mean one more."""
    return code.as_signed() + (zero_excluded & ~code[-1])


class RelativeDecoder(wiring.Component):
    """Turn parameter words into positions and weights.

    Convolution: one slot of the word a cycle, through lane 0; linear: every lane decodes its own slot. Per lane
    ``position = cursor + index``; ``cursor' = position + (index != escape)``; an escape has weight 0. The cursor
    restarts at the base with the first slot of a row.

    Latency 2 cycles from ``word`` to ``positions`` (combinational there, to feed a ROM address), 3 to ``weights``;
    initiation interval 1.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the layer descriptor
    position_bits : int

    Members
    -------
    descriptor : In(layout)
    word : In(lanes * slot_bits)
    slot : In(lane bits), which slot of the word a convolution takes
    flags : In(FLAGS), of ``word``
    o_flags : Out(FLAGS), of ``positions``
    positions : Out(array of position_bits), tap number (lane 0, convolution) or word address (linear)
    weights : Out(array of signed(weight_width + 1)), one cycle after ``positions``
    """

    def __init__(self, config: EngineConfig, layout: data.StructLayout, position_bits: int) -> None:
        self.config = config
        lanes = config.geometry.lanes
        self.position_bits = position_bits
        super().__init__(
            {
                "descriptor": In(layout),
                "word": In(lanes * config.slot_bits),
                "slot": In(config.lane_bits),
                "flags": In(FLAGS),
                "o_flags": Out(FLAGS),
                "positions": Out(data.ArrayLayout(position_bits, lanes)),
                "weights": Out(data.ArrayLayout(signed(config.weight_width + 1), lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build slot selection and one cursor a lane."""
        m = Module()
        config, d = self.config, self.descriptor
        lanes = config.geometry.lanes
        # the block RAM answers late in the cycle: nothing but a register behind it
        word, chosen = delay(m, self.word, 1), delay(m, self.slot, 1)
        m.d.comb += self.o_flags.eq(delay(m, self.flags, 2, FLAGS))
        slots = Array(word.word_select(i, config.slot_bits) for i in range(lanes))
        for lane in range(lanes if config.has_linear else 1):
            taken = Signal(config.slot_bits, name=f"slot_{lane}")
            cursor = Signal(self.position_bits, name=f"cursor_{lane}")
            origin = Signal(self.position_bits, name=f"origin_{lane}")
            level = Signal(signed(config.weight_width + 1), name=f"level_{lane}")
            escape = Signal(name=f"escape_{lane}")
            if lane == 0:
                m.d.sync += taken.eq(Mux(d.linear, slots[0], slots[chosen]))
                base = Mux(d.linear, d.in_base, d.tap_base)
            else:
                m.d.sync += taken.eq(slots[lane])
                base = d.in_base
            index, code = taken[: config.index_width], taken[config.index_width :]
            m.d.comb += [
                origin.eq(Mux(self.o_flags.first, base, cursor)),
                self.positions[lane].eq(origin + index),
                escape.eq(index == d.escape),
                level.eq(weight_level(code, d.zero_excluded)),
            ]
            with m.If(self.o_flags.valid):
                m.d.sync += cursor.eq(origin + index + ~escape)
            m.d.sync += self.weights[lane].eq(Mux(escape, 0, level))
        return m
