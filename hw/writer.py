"""The writer: where every drained value goes, and which output channel it belongs to."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Rom
from zeroskip.compiler.target import EngineConfig
from zeroskip.compiler.timing import ADDRESS
from zeroskip.hw.pipeline import delay, descriptor_layout

__all__ = ["Writer"]

COUNTED = ("place_last", "member_last", "tile_last", "group_last")
"""Fields of the nested counters, the fastest first."""


class Writer(wiring.Component):
    """Follow the drain: words of a member, members of a group, tiles, groups; look the address up.

    ``address[r] = channel base + place[r]``: the channel's base moves by ``channel_step``, the place of a lane comes
    from the ``places`` ROM, which lists the lanes of every tile in drain order. No division, no comparison with the
    edges of the map: the table knows. Where the lanes of a member are summed up they count as one value, the last of
    them.

    Latency 4 cycles from ``advance`` to ``address``, initiation interval 1.

    Parameters
    ----------
    config : EngineConfig
    layout : StructLayout of the back descriptor
    places : Rom

    Members
    -------
    descriptor : In(layout); start : In(1), one cycle, the descriptor is valid
    advance : In(1), a word of values is drained in this cycle
    channel : Out, of the present word
    bias_addr : Out(bias_bits), its entry in the ``bias`` ROM, or in those of thresholds
    first : Out(1), the present value begins a sum
    position : Out, number of the present value (word) among the places of its map
    done : Out(1), the present word is the layer's last one
    address : Out(array), 4 cycles later
    inside : Out(results), 4 cycles later: which values are written
    place_addr : Out, place_data : In, the ``places`` ROM
    """

    address_cycles = ADDRESS

    def __init__(self, config: EngineConfig, layout: data.StructLayout, places: Rom, bias_bits: int) -> None:
        self.config = config
        self.places = places
        results = config.geometry.results
        bits = max(1, (places.depth - 1).bit_length())
        self.address_bits = places.fields[1].bits
        super().__init__(
            {
                "descriptor": In(layout),
                "start": In(1),
                "advance": In(1),
                "channel": Out(_bits(layout, "channels", "member_last") + 1),
                "bias_addr": Out(bias_bits),
                "first": Out(1),
                "position": Out(bits + (results - 1).bit_length()),
                "done": Out(1),
                "address": Out(data.ArrayLayout(self.address_bits, results)),
                "inside": Out(results),
                "place_addr": Out(bits),
                "place_data": In(places.word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the counters and the address sums."""
        m = Module()
        config, d = self.config, self.descriptor
        counts = [(Signal.like(d[field], name=field), d[field]) for field in COUNTED]
        # whether each counter has arrived at 0, known with the count itself: what follows must not wait for comparisons
        ends = [Signal(name=f"{field}_end") for field in COUNTED]
        base, group_base = Signal(self.address_bits), Signal(self.address_bits)
        next_base = Signal(self.address_bits)
        member_end, unit_end, group_end = Signal(), Signal(), Signal()
        begins = Signal()
        next_channel, group_channel = Signal.like(self.channel), Signal.like(self.channel)
        next_bias, group_bias = Signal.like(self.bias_addr), Signal.like(self.bias_addr)
        m.d.comb += [
            self.first.eq(begins | ~d.sums if config.has_sums else 1),
            member_end.eq(ends[0]),
            unit_end.eq(member_end & ends[1]),
            group_end.eq(unit_end & ends[2]),
            self.done.eq(group_end & ends[3]),
            next_base.eq(base + d.channel_step),
            next_channel.eq(self.channel + 1),
            next_bias.eq(self.bias_addr + 1),
        ]
        with m.If(self.advance):
            m.d.sync += begins.eq(member_end)
            with m.If(member_end):
                m.d.sync += base.eq(next_base)
                m.d.sync += [self.channel.eq(next_channel), self.bias_addr.eq(next_bias)]
            with m.If(unit_end):
                m.d.sync += base.eq(group_base)
                m.d.sync += [self.channel.eq(group_channel), self.bias_addr.eq(group_bias)]
            with m.If(group_end):
                m.d.sync += [base.eq(next_base), group_base.eq(next_base)]
                m.d.sync += [self.channel.eq(next_channel), group_channel.eq(next_channel)]
                m.d.sync += [self.bias_addr.eq(next_bias), group_bias.eq(next_bias)]
        with m.If(self.start):
            m.d.sync += [begins.eq(1), self.channel.eq(0), group_channel.eq(0)]
            m.d.sync += [base.eq(d.out_base), group_base.eq(d.out_base)]
            m.d.sync += [self.bias_addr.eq(d.bias_base), group_bias.eq(d.bias_base)]
        steps = [self.advance, self.advance & member_end, self.advance & unit_end, self.advance & group_end]
        for (count, last), end, step in zip(counts, ends, steps, strict=True):
            with m.If(step):
                m.d.sync += [count.eq(count - 1), end.eq(count == 1)]
            with m.If(self.start | (step & end)):
                m.d.sync += [count.eq(last), end.eq(last == 0)]
        lane = self._build_place(m, member_end, unit_end, group_end)
        self._build_address(m, base, member_end, lane)
        return m

    def _build_place(self, m: Module, member_end: Value, unit_end: Value, group_end: Value) -> Value | None:
        """Walk the place words of a tile once a member; return the lane of a slow layer's value in its word."""
        config, d = self.config, self.descriptor
        pointer, tile_start, step = Signal.like(self.place_addr), Signal.like(self.place_addr), Signal()
        lane = None
        m.d.comb += self.place_addr.eq(pointer)
        # copies of their own: the descriptor is far, and nothing advances before the cycle behind the start
        moves: Value = ~delay(m, d.sums, 1) if config.has_sums else Const(1)
        if not config.has_slow:
            m.d.comb += step.eq(moves)
        else:
            lane = Signal(range(config.geometry.results))
            slow = delay(m, d.slow, 1)
            m.d.comb += step.eq(moves & (~slow | lane.all()))
            with m.If(self.advance):
                m.d.sync += lane.eq(Mux(slow, lane + 1, 0))
            with m.If(self.start):
                m.d.sync += lane.eq(0)
        bits = (config.geometry.results - 1).bit_length()
        m.d.comb += self.position.eq((pointer << bits) + (lane if lane is not None else 0))
        following = Signal.like(pointer)
        m.d.comb += following.eq(pointer + step)
        with m.If(self.advance):
            m.d.sync += pointer.eq(following)
            with m.If(member_end):
                m.d.sync += pointer.eq(tile_start)
            with m.If(unit_end):
                m.d.sync += [pointer.eq(following), tile_start.eq(following)]
            with m.If(group_end):
                m.d.sync += [pointer.eq(d.place_base), tile_start.eq(d.place_base)]
        with m.If(self.start):
            m.d.sync += [pointer.eq(d.place_base), tile_start.eq(d.place_base)]
        return lane

    def _build_address(self, m: Module, base: Value, member_end: Value, lane: Value | None) -> None:
        config, d = self.config, self.descriptor
        results = config.geometry.results
        shape = data.ArrayLayout(descriptor_layout(self.places.fields), results)
        places = Signal(shape)
        m.d.comb += places.as_value().eq(self.place_data)
        wanted: Value = self.advance & (self.channel < d.channels)
        if config.has_sums:
            wanted = wanted & (~d.sums | member_end)
        early_base, valid = delay(m, base, 3), delay(m, wanted, 3)
        slow = d.slow if config.has_slow else 0
        for index in range(results):
            entry = places[index]
            place, inside = entry.offset, entry.inside
            if index == 0 and lane is not None:
                late = delay(m, lane, 2)
                place, inside = Signal.like(entry.offset), Signal()
                with m.Switch(late):
                    for number in range(results):
                        with m.Case(number):
                            m.d.comb += [place.eq(places[number].offset), inside.eq(places[number].inside)]
            m.d.comb += self.address[index].eq(delay(m, early_base + delay(m, place, 1), 1))
            alone = ~slow if index and config.has_slow else 1
            m.d.sync += self.inside[index].eq(valid & delay(m, inside & alone, 1))


def _bits(layout: data.StructLayout, *names: str) -> int:
    """Bits of the widest of the named fields, plus one where a field holds a count less 1."""
    return max(int(layout[name].width) + int(name.endswith("_last")) for name in names)
