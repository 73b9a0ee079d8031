"""The accelerator: one array, a weight feed, the gather, the post-processor and the sequencer, between two streams."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Program
from zeroskip.compiler.target import Engine
from zeroskip.hw.array import Array
from zeroskip.hw.decoders.relative import RelativeDecoder
from zeroskip.hw.gather import Gather
from zeroskip.hw.issue import Issue
from zeroskip.hw.memory import ActivationBank, RomReader
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout
from zeroskip.hw.postprocess import PostProcessor
from zeroskip.hw.sequencer import Sequencer
from zeroskip.hw.walker import Walker
from zeroskip.hw.weights import DenseWeights, SparseWeights

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """A network in hardware: codes in, codes out, one inference after the other.

    Input codes arrive in C, H, W order, output codes leave in C, H, W order, one a transfer. What is generated follows
    from ``program.config`` and the ROM images; nothing else is specific to the network.

    Parameters
    ----------
    program : Program

    Members
    -------
    i : In(stream.Signature(8)); o : Out(stream.Signature(8))
    trace : every value written to the activation memory (for simulation; unconnected in synthesis)
    state : Out, 0 loading, 1 + layer, layers + 1 unloading
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.layout = descriptor_layout(program.descriptors)
        steps = len(program.layers) + 2
        coordinates = program.rom("coordinates")
        self.walker = Walker(program.config, self.layout, coordinates)
        self.sequencer = Sequencer(steps, PostProcessor.latency_cycles)
        trace = wiring.Signature(
            {
                "valid": Out(1),
                "layer": Out(range(steps)),
                "channel": Out(self.walker.channel.shape()),
                "y": Out(self.walker.y.shape()),
                "x": Out(self.walker.x.shape()),
                "data": Out(8),
            }
        )
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(8))),
                "o": Out(stream.Signature(unsigned(8))),
                "trace": Out(trace),
                "state": Out(range(steps)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Connect the blocks."""
        m = Module()
        sequencer, walker = self.sequencer, self.walker
        m.submodules.sequencer, m.submodules.walker = sequencer, walker
        descriptor = Signal(self.layout)
        layers = self._rom(m, "layers")
        m.d.comb += [layers.addr_0.eq(sequencer.index), descriptor.eq(layers.data_0), self.state.eq(sequencer.index)]
        loading, unloading = Signal(), Signal()
        m.d.comb += [
            loading.eq(sequencer.index == 0),
            unloading.eq(sequencer.index == len(self.program.layers) + 1),
            walker.descriptor.eq(descriptor),
            walker.start.eq(sequencer.start),
            sequencer.done.eq(walker.done & walker.advance),
        ]
        coordinates = self._rom(m, "coordinates")
        m.d.comb += [
            coordinates.addr_0.eq(walker.coordinate_addr_0),
            coordinates.addr_1.eq(walker.coordinate_addr_1),
            walker.coordinate_data_0.eq(coordinates.data_0),
            walker.coordinate_data_1.eq(coordinates.data_1),
        ]
        gather = self._build_gather(m, descriptor)
        array = self._build_engine(m, descriptor, gather, sequencer.start & ~loading & ~unloading)
        post, drained = self._build_post(m, descriptor, array)
        accepted, sent = self._build_host(m, gather, loading, unloading)
        m.d.comb += walker.advance.eq(Mux(loading, accepted, Mux(unloading, sent, drained)))
        self._build_write(m, descriptor, gather, post, drained, accepted, loading)
        return m

    def _rom(self, m: Module, name: str) -> RomReader:
        reader = RomReader(self.program.rom(name))
        m.submodules[f"rom_{name}"] = reader
        return reader

    def _build_gather(self, m: Module, descriptor: data.View) -> Gather:
        program = self.program
        taps = program.rom("taps") if program.has_rom("taps") else None
        gather = Gather(program.config, self.layout, taps, program.rom("offsets"), self._tap_bits())
        m.submodules.gather = gather
        m.d.comb += gather.descriptor.eq(descriptor)
        offsets = self._rom(m, "offsets")
        m.d.comb += [
            offsets.addr_0.eq(gather.offset_addr_0),
            offsets.addr_1.eq(gather.offset_addr_1),
            gather.offset_data_0.eq(offsets.data_0),
            gather.offset_data_1.eq(offsets.data_1),
        ]
        if taps is not None:
            reader = self._rom(m, "taps")
            m.d.comb += [reader.addr_0.eq(gather.tap_addr), gather.tap_data.eq(reader.data_0)]
        return gather

    def _tap_bits(self) -> int:
        """Bits of a tap number or of a linear layer's input word."""
        program = self.program
        taps = program.rom("taps").depth if program.has_rom("taps") else 1
        slots = max((plan.fields.get("slot_last", 0) + 1 for plan in program.layers), default=1)
        return max(1, (max(taps, slots) - 1).bit_length())

    def _build_engine(self, m: Module, descriptor: data.View, gather: Gather, start: Value) -> Array:
        """The front end and the weight feed of the engine, and the array."""
        program, config = self.program, self.program.config
        array = Array(config, self.layout)
        m.submodules.array = array
        m.d.comb += [
            array.descriptor.eq(descriptor),
            array.flags.eq(gather.o_flags),
            array.activations.eq(gather.activations),
            gather.start.eq(start),
        ]
        if config.geometry.engine is Engine.DENSE:
            issue = Issue(self.layout, config.geometry.lanes, self._tap_bits())
            tap = (
                issue.pointer
                if not program.has_rom("taps")
                else issue.pointer + Mux(descriptor.identity, 0, descriptor.tap_base)
            )
            m.d.comb += [gather.flags.eq(issue.flags), gather.tap.eq(tap)]
            feed = DenseWeights(config, self.layout, program.rom("weights_0").depth)
            m.d.comb += [feed.flags.eq(gather.weight_flags), feed.start.eq(start)]
            for column in range(config.geometry.columns):
                reader = self._rom(m, f"weights_{column}")
                m.d.comb += [reader.addr_0.eq(feed.rom_addr[column]), feed.rom_data[column].eq(reader.data_0)]
        else:
            issue, feed = self._build_sparse_feed(m, descriptor, gather)
        m.submodules.issue, m.submodules.feed = issue, feed
        m.d.comb += [
            issue.descriptor.eq(descriptor),
            issue.start.eq(start),
            feed.descriptor.eq(descriptor),
            array.weights.eq(feed.weights),
        ]
        return array

    def _build_sparse_feed(self, m: Module, descriptor: data.View, gather: Gather) -> tuple[Issue, SparseWeights]:
        program, config = self.program, self.program.config
        weights, rows = program.rom("weights_0"), program.rom("rows")
        pointer_bits = max(1, (weights.depth - 1).bit_length()) + config.lane_bits
        row_bits = max(1, (rows.depth - 1).bit_length())
        issue = Issue(self.layout, config.geometry.lanes, pointer_bits, row_bits, rows.word_bits)
        reader, lengths = self._rom(m, "weights_0"), self._rom(m, "rows")
        position_bits = max(self._tap_bits(), config.word_address_bits)
        decoder = RelativeDecoder(config, self.layout, position_bits)
        m.submodules.decoder = decoder
        feed = SparseWeights(config, self.layout)
        m.d.comb += [
            lengths.addr_0.eq(issue.row_addr),
            issue.row_data.eq(lengths.data_0),
            reader.addr_0.eq(issue.pointer[config.lane_bits :]),
            decoder.word.eq(reader.data_0),
            decoder.slot.eq(delay(m, issue.pointer[: config.lane_bits], 1)),
            decoder.flags.eq(delay(m, issue.flags, 1, FLAGS)),
            decoder.descriptor.eq(descriptor),
            gather.flags.eq(decoder.o_flags),
            gather.tap.eq(decoder.positions[0]),
            feed.i.eq(decoder.weights),
        ]
        m.d.comb += [gather.lane_words[lane].eq(decoder.positions[lane]) for lane in range(config.geometry.lanes)]
        return issue, feed

    def _build_post(self, m: Module, descriptor: data.View, array: Array) -> tuple[PostProcessor, Value]:
        """Return the post-processor and the signal that a value has left the array."""
        bias = self.program.rom("bias")
        post = PostProcessor(self.program.config, self.layout, bias, len(self.walker.channel))
        m.submodules.post = post
        reader = self._rom(m, "bias")
        m.d.comb += [
            post.descriptor.eq(descriptor),
            post.i.eq(array.o),
            post.first_lane.eq(array.o_first_lane),
            post.channel.eq(self.walker.channel),
            reader.addr_0.eq(post.bias_addr),
            post.bias_data.eq(reader.data_0),
        ]
        if "sum_lanes" in self.layout.members:
            return post, array.o_valid & (~descriptor.sum_lanes | array.o_last_lane)
        return post, array.o_valid

    def _build_host(self, m: Module, gather: Gather, loading: Value, unloading: Value) -> tuple[Value, Value]:
        """The streams: accept a code a cycle; send each code when the read path has delivered it."""
        sequencer, walker = self.sequencer, self.walker
        wait = Walker.address_cycles + Gather.peek_cycles
        phase = Signal(range(wait + 1))
        accepted, sent, ready = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(loading & sequencer.running),
            accepted.eq(self.i.valid & self.i.ready),
            ready.eq(phase == wait),
            self.o.valid.eq(unloading & sequencer.running & ready),
            self.o.payload.eq(gather.activations[0][:8]),
            sent.eq(self.o.valid & self.o.ready),
            gather.peek.eq(unloading),
            gather.peek_addr.eq(walker.address),
        ]
        with m.If(sequencer.start | sent):
            m.d.sync += phase.eq(0)
        with m.Elif(~ready):
            m.d.sync += phase.eq(phase + 1)
        return accepted, sent

    def _build_write(
        self,
        m: Module,
        descriptor: data.View,
        gather: Gather,
        post: PostProcessor,
        drained: Value,
        accepted: Value,
        loading: Value,
    ) -> None:
        """The banks, and their write port: the post-processor's results or the host's codes."""
        config, walker = self.program.config, self.walker
        lane_bits, lanes = config.lane_bits, config.geometry.lanes
        late = PostProcessor.latency_cycles - Walker.address_cycles
        valid = delay(m, drained & walker.inside & ~loading, PostProcessor.latency_cycles)
        host_valid = delay(m, accepted, Walker.address_cycles)
        host_data = delay(m, self.i.payload, Walker.address_cycles)
        address, value, enable = Signal(config.position_bits), Signal(8), Signal()
        m.d.sync += [
            address.eq(Mux(loading, walker.address, delay(m, walker.address, late))),
            value.eq(Mux(loading, host_data, post.o)),
            enable.eq(Mux(loading, host_valid, valid)),
        ]
        for lane in range(lanes):
            bank = ActivationBank(config.activation_depth)
            m.submodules[f"bank_{lane}"] = bank
            mine = descriptor.replicated | (address[:lane_bits] == lane)
            m.d.comb += [
                bank.read_addr.eq(gather.bank_addr[lane]),
                gather.bank_data[lane].eq(bank.read_data),
                bank.write_addr.eq(Mux(descriptor.replicated, address, address[lane_bits:])),
                bank.write_data.eq(value),
                bank.write_en.eq(enable & mine),
            ]
        position = Cat(walker.channel, walker.y, walker.x)
        seen = delay(m, position, PostProcessor.latency_cycles)
        channel, y, x = Signal.like(walker.channel), Signal.like(walker.y), Signal.like(walker.x)
        m.d.comb += [
            Cat(channel, y, x).eq(seen),
            self.trace.valid.eq(valid),
            self.trace.layer.eq(self.sequencer.index - 1),
            self.trace.channel.eq(channel),
            self.trace.y.eq(y),
            self.trace.x.eq(x),
            self.trace.data.eq(post.o),
        ]
