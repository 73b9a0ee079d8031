"""The write-back walker: channel, row and column of every value in the order the drain delivers them."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.target import EngineConfig
from zeroskip.hw.pipeline import delay

__all__ = ["Walker"]


class Walker(wiring.Component):
    """Count through lanes x, lanes y, channels of a group, tiles x, tiles y, groups; look the address up.

    ``address = out_base + channel * channel_step + rows[y] + columns[x]``, from the ``coordinates`` ROM, in the layout
    of the tensor's consumer. Loading and unloading use the same walk with one lane, one channel a group and tiles of
    1 x 1.

    Latency 3 cycles from ``advance`` to ``address``, initiation interval 1.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the layer descriptor
    coordinates : Rom

    Members
    -------
    descriptor, start : In, as in Issue
    advance : In(1), the present value is taken
    channel, y, x : Out, of the present value
    inside : Out(1), the present value lies inside the tensor (lanes of edge tiles may not)
    done : Out(1), the present value is the last one
    address : Out(position bits), 3 cycles later
    """

    address_cycles = 3

    def __init__(self, config: EngineConfig, layout: data.StructLayout, coordinates: Rom) -> None:
        self.config = config
        bits = max(1, (coordinates.depth - 1).bit_length())
        super().__init__(
            {
                "descriptor": In(layout),
                "start": In(1),
                "advance": In(1),
                "channel": Out(_bits(layout, "channels", "channel_last") + 1),
                "y": Out(_bits(layout, "out_height", "tile_y") + 1),
                "x": Out(_bits(layout, "out_width", "tile_x") + 1),
                "inside": Out(1),
                "done": Out(1),
                "address": Out(config.position_bits),
                "coordinate_addr_0": Out(bits),
                "coordinate_addr_1": Out(bits),
                "coordinate_data_0": In(config.position_bits),
                "coordinate_data_1": In(config.position_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the counters and the address sum."""
        m = Module()
        d = self.descriptor
        lane_x, lane_y = Signal.like(d.lane_x_last), Signal.like(d.lane_y_last)
        member = Signal.like(d.channel_last)
        tile_x, tile_y, group = Signal.like(self.x), Signal.like(self.y), Signal.like(self.channel)
        base, group_base = Signal(self.config.position_bits), Signal(self.config.position_bits)
        end_x, end_y, end_member = Signal(), Signal(), Signal()
        next_x, next_y, next_group = Signal.like(self.x), Signal.like(self.y), Signal.like(self.channel)
        m.d.comb += [
            self.x.eq(tile_x + lane_x),
            self.y.eq(tile_y + lane_y),
            self.channel.eq(group + member),
            self.inside.eq((self.x < d.out_width) & (self.y < d.out_height) & (self.channel < d.channels)),
            end_x.eq(lane_x == d.lane_x_last),
            end_y.eq(lane_y == d.lane_y_last),
            end_member.eq(member == d.channel_last),
            next_x.eq(tile_x + d.tile_x),
            next_y.eq(tile_y + d.tile_y),
            next_group.eq(group + d.channel_last + 1),
        ]
        row_end, column_end, group_end = Signal(), Signal(), Signal()
        unit_end = Signal()
        m.d.comb += [
            row_end.eq(next_x >= d.out_width),
            column_end.eq(next_y >= d.out_height),
            group_end.eq(next_group >= d.channels),
            unit_end.eq(end_x & end_y & end_member),
            self.done.eq(unit_end & row_end & column_end & group_end),
        ]
        with m.If(self.advance):
            m.d.sync += lane_x.eq(lane_x + 1)
            with m.If(end_x):
                m.d.sync += [lane_x.eq(0), lane_y.eq(lane_y + 1)]
            with m.If(end_x & end_y):
                m.d.sync += [lane_y.eq(0), member.eq(member + 1), base.eq(base + d.channel_step)]
            with m.If(unit_end):
                m.d.sync += [member.eq(0), base.eq(group_base), tile_x.eq(next_x)]
                with m.If(row_end):
                    m.d.sync += [tile_x.eq(0), tile_y.eq(next_y)]
                with m.If(row_end & column_end):
                    m.d.sync += [tile_y.eq(0), group.eq(next_group)]
                    m.d.sync += [base.eq(base + d.channel_step), group_base.eq(base + d.channel_step)]
        with m.If(self.start):
            m.d.sync += [lane_x.eq(0), lane_y.eq(0), member.eq(0), tile_x.eq(0), tile_y.eq(0), group.eq(0)]
            m.d.sync += [base.eq(d.out_base), group_base.eq(d.out_base)]
        m.d.comb += [
            self.coordinate_addr_0.eq(d.row_table + self.y),
            self.coordinate_addr_1.eq(d.column_table + self.x),
        ]
        offset = Signal(self.config.position_bits)
        m.d.sync += [
            offset.eq(self.coordinate_data_0 + self.coordinate_data_1),
            self.address.eq(offset + delay(m, base, 2)),
        ]
        return m


def _bits(layout: data.StructLayout, *names: str) -> int:
    """Bits of the widest of the named fields, plus one where a field holds a count less 1."""
    return max(int(layout[name].width) + int(name.endswith("_last")) for name in names)
