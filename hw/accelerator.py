"""The accelerator: operand feed, gathers, array, post-processors and the two sequencers, between two streams."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Program, Rom, Storage
from zeroskip.compiler.spram import spram_count, spram_roms
from zeroskip.compiler.timing import LATE_FIELDS, LOADER, READ, WINDOWED_ADDRESS, argmax_cycles, post_cycles
from zeroskip.hw.argmax import ArgMax
from zeroskip.hw.array import Array
from zeroskip.hw.boot import boot_signature
from zeroskip.hw.crossbar import Crossbar
from zeroskip.hw.decoders.index import IndexDecoder
from zeroskip.hw.flash import flash_signature
from zeroskip.hw.gather import WALKED, Gather, TileWalk
from zeroskip.hw.issue import Issue
from zeroskip.hw.memory import ActivationBank, DescriptorRom, RomReader
from zeroskip.hw.paging import ParameterPages
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout
from zeroskip.hw.postprocess import PostProcessor
from zeroskip.hw.sequencer import BackSequencer, FrontSequencer
from zeroskip.hw.sign_add import RunFlags
from zeroskip.hw.stream_ports import Loader, OutputBuffer
from zeroskip.hw.weights import WeightFeed
from zeroskip.hw.writer import Writer

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """A network in hardware: codes in, codes out, one inference after the other.

    Input codes arrive in C, H, W order, output codes leave in C, H, W order, one a transfer. The next input is loaded
    while the layers run, and the output leaves while the next inference runs. Reset must last 16 cycles or more: what
    travels beside the data is not reset, but flushed. What is generated follows from
    ``program.config`` and the ROM images; nothing else is specific to the network.

    Parameters
    ----------
    program : Program

    Members
    -------
    i : In(stream.Signature(8)); o : Out(stream.Signature(8))
    trace : every value written to a memory (for simulation; unconnected in synthesis): which of the ``results`` values
        are valid, whether their inference is an odd one, their layer, channel, first place and codes
    boot : In(boot_signature(blocks)), where ROMs lie in SPRAM: fills them during reset, in the order of their names
    pages : where parameters come from outside: ``primed`` two pages are there after reset, ``failed`` the CRC of page
        ``number`` was wrong and nothing goes on. From the host they come on ``i``, behind the words of every input
    flash : Out(flash_signature()), where they come from there
    state : Out, 0 waiting for input, 1 + layer, layers + 1 sending the output
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.config = program.config
        self.layers = len(program.layers)
        self.parameters = ParameterPages(program) if program.paging is not None else None
        self.from_flash = program.paging is not None and program.paging.flash is not None
        self.front_layout = self._front_layout()
        self.back_layout = descriptor_layout(program.rom("back").fields)
        self.post_cycles = post_cycles(self.config)
        self.thresholds = [program.rom(f"thresholds_{stage}") for stage in range(self.config.search_stages)]
        entries = [program.rom("bias")] if self.config.has_scales else []
        entry_bits = max(_address_bits(rom) for rom in (*entries, *self.thresholds[:1]))
        self.writer = Writer(self.config, self.back_layout, program.rom("places"), entry_bits)
        results = self.config.geometry.results
        trace = wiring.Signature(
            {
                "valid": Out(results),
                "odd": Out(1),
                "layer": Out(range(max(self.layers, 2))),
                "channel": Out(self.writer.channel.shape()),
                "place": Out(self.writer.position.shape()),
                "data": Out(8 * results),
            }
        )
        blocks = spram_count(program.roms)
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(8))),
                "o": Out(stream.Signature(unsigned(8))),
                "trace": Out(trace),
                "state": Out(range(self.layers + 2)),
                **({"boot": In(boot_signature(blocks))} if blocks else {}),
                **({"pages": Out(self.parameters.state.signature)} if self.parameters is not None else {}),
                **({"flash": Out(flash_signature())} if self.from_flash else {}),
            }
        )

    def _front_layout(self) -> data.StructLayout:
        """Return the layout of the front descriptor; bases are as wide as the buffers, where they are moved."""
        layout = descriptor_layout(self.program.rom("front").fields)
        if self.parameters is None:
            return layout
        bases = {name: len(getattr(self.parameters, name)) for name in self.parameters.bases}
        return data.StructLayout({**layout.members, **bases})

    def elaborate(self, platform: object) -> Module:
        """Connect the blocks."""
        m = Module()
        gap_bits = self.front_layout["gap"].width
        self.front_sequencer = FrontSequencer(self.layers, gap_bits)
        # the end of a layer is told one cycle late: it takes many comparisons to see
        self.back_sequencer = BackSequencer(self.layers, self.post_cycles)
        m.submodules.front_sequencer, m.submodules.back_sequencer = self.front_sequencer, self.back_sequencer
        self.front = self._descriptor(m, "front", self.front_layout, self.front_sequencer)
        self.back = self._descriptor(m, "back", self.back_layout, self.back_sequencer)
        if self.parameters is not None:
            self._build_parameters(m, self.parameters)
        array = self._build_front(m)
        self._build_back(m, array)
        self._build_state(m)
        return m

    def _descriptor(
        self, m: Module, name: str, layout: data.StructLayout, sequencer: FrontSequencer | BackSequencer
    ) -> data.View:
        rom = DescriptorRom(self.program.rom(name))
        m.submodules[f"rom_{name}"] = rom
        descriptor = Signal(layout, name=name)
        m.d.comb += [rom.addr.eq(sequencer.addr), rom.en.eq(sequencer.en)]
        if name == "front" and self.parameters is not None:
            stored = Signal(descriptor_layout(self.program.rom(name).fields), name="stored")
            m.d.comb += stored.eq(rom.data)
            for field, _ in layout:
                moved = field in self.parameters.bases
                value = stored[field] + getattr(self.parameters, field) if moved else stored[field]
                m.d.comb += descriptor[field].eq(value)
        else:
            m.d.comb += descriptor.eq(rom.data)
        return descriptor

    def _build_parameters(self, m: Module, parameters: ParameterPages) -> None:
        """Parameters from outside: what fills the buffers and holds issue."""
        m.submodules.parameters = parameters
        sequencer = self.front_sequencer
        m.d.comb += parameters.begin.eq(sequencer.en & (sequencer.addr == 0))
        wiring.connect(m, parameters.state, wiring.flipped(self.pages))
        if self.from_flash:
            wiring.connect(m, parameters.flash, wiring.flipped(self.flash))

    def _rom(self, m: Module, name: str, copy: int | None = None) -> RomReader:
        reader = RomReader(self.program.rom(name))
        m.submodules[f"rom_{name}" if copy is None else f"rom_{name}_{copy}"] = reader
        if reader.rom.style == "spram":
            before = [rom for rom in spram_roms(self.program.roms) if rom.name < name]
            m.d.comb += [
                reader.boot.en.eq(self.boot.en[spram_count(before) :]),
                reader.boot.addr.eq(self.boot.addr),
                reader.boot.data.eq(self.boot.data),
            ]
        if self.parameters is not None and reader.rom.style == "paged":
            load, number = self.parameters.port(reader.rom)
            m.d.comb += [
                reader.load_en.eq(load.en[number]),
                reader.load_addr.eq(load.addr),
                reader.load_data.eq(load.data),
            ]
        return reader

    def _build_front(self, m: Module) -> Array:
        """Issue, decoders, gathers, banks and weights, up to the array."""
        config, program, front = self.config, self.program, self.front
        geometry = config.geometry
        sequencer = self.front_sequencer
        issue, positions, fillers, flags = self._build_issue(m)
        m.d.comb += [
            issue.descriptor.eq(front),
            issue.start.eq(sequencer.start),
            sequencer.done.eq(issue.done),
            sequencer.gap.eq(front.gap),
        ]
        if self.parameters is not None:
            group_end = issue.flags.valid & issue.flags.group_last
            m.d.comb += [self.parameters.group_end.eq(group_end), issue.hold.eq(self.parameters.hold)]
        walk = self._build_walk(m, flags)
        before_address = self._address_flags(m, flags, walk)
        at_address = delay(m, before_address, 1, FLAGS)
        late = {
            "linear": delay(m, front.linear, LATE_FIELDS),
            "zero_excluded": delay(m, front.zero_excluded, LATE_FIELDS),
            "signed": delay(m, front.in_signed, LATE_FIELDS),
            "codebook": delay(m, front.codebook, LATE_FIELDS) if config.codebooks else Const(0),
            "pad": delay(m, front.pad_code, LATE_FIELDS) if config.has_padding else Const(0, signed(9)),
        }
        value_bits = program.rom("functions").word_bits if config.has_functions else 0
        array = Array(config, self.back_layout, value_bits)
        m.submodules.array = array
        m.d.comb += array.descriptor.eq(self.back)
        flags = delay(m, at_address, READ, FLAGS)
        if geometry.sign_adds > 1:
            m.submodules.run_flags = runs = RunFlags(geometry.sign_adds)
            m.d.comb += [runs.i.eq(flags), array.flags.eq(runs.o), array.begin.eq(runs.begin)]
        else:
            m.d.comb += array.flags.eq(flags)
        if config.drain_delay:
            m.d.comb += array.one_column.eq(delay(m, front.one_column, LATE_FIELDS + 1))
        self.gathers = []
        for core in range(geometry.cores):
            gather = self._build_gather(m, core, walk, positions[core], late)
            self.gathers.append(gather)
            for lane in range(geometry.lanes):
                m.d.comb += array.activations[core * geometry.lanes + lane].eq(gather.activations[lane])
        if config.has_functions:
            self._build_functions(m, array)
        feed = WeightFeed(config, self.front_layout, program.rom("weights_0").held)
        m.submodules.feed = feed
        m.d.comb += [
            feed.descriptor.eq(front),
            feed.start.eq(sequencer.start),
            feed.flags.eq(before_address),
            feed.late_linear.eq(late["linear"]),
            feed.late_zero_excluded.eq(late["zero_excluded"]),
            feed.late_codebook.eq(late["codebook"]),
            array.weights.eq(feed.weights),
        ]
        if geometry.sign_adds > 1:
            m.d.comb += array.magnitudes.eq(feed.magnitudes)
        m.d.comb += [feed.fillers[core].eq(self._late_fillers(m, fillers[core], late)) for core in range(len(fillers))]
        for unit in range(geometry.units):
            reader = self._rom(m, f"weights_{unit}")
            m.d.comb += [reader.addr_0.eq(feed.rom_addr[unit]), feed.rom_data[unit].eq(reader.data_0)]
        return array

    def _build_functions(self, m: Module, array: Array) -> None:
        """A table a lane that gives the operands of an addition by their codes, as fast as the multiplier."""
        front = self.front
        # these stages come one and three cycles after those that the late fields are made for, and later with runs
        late = self.config.product_cycles - RomReader.latency_cycles
        table = delay(m, front.function_table, LATE_FIELDS + 1)
        m.d.comb += array.use_values.eq(delay(m, front.function, LATE_FIELDS + 3 + late))
        for index in range(self.config.geometry.lanes * self.config.geometry.cores):
            reader = RomReader(self.program.rom("functions"))
            m.submodules[f"rom_functions_{index}"] = reader
            code = array.activations[index][:8]
            m.d.comb += [
                reader.addr_0.eq(delay(m, Cat(code, ~array.flags.first, table), late)),
                array.values[index].eq(reader.data_0),
            ]

    def _position_bits(self) -> int:
        """Bits of a tap number or of an input's word."""
        program = self.program
        taps = program.rom("taps").depth if program.has_rom("taps") else 1
        slots = max(length for plan in program.layers for length in plan.schedule.lengths)
        return max(1, (max(taps, slots) - 1).bit_length(), self.config.word_address_bits)

    def _build_issue(self, m: Module) -> tuple[Issue, list[list[Value]], list[Value], Value]:
        """Return the front end and, a core each, the positions of the lanes and which of them are escapes."""
        config, program = self.config, self.program
        lanes, bits = config.geometry.lanes, self._position_bits()
        paged = self.parameters is not None
        if not config.indexed:
            issue = Issue(self.front_layout, lanes, bits, run=config.geometry.sign_adds, paged=paged)
            m.submodules.issue = issue
            words: list[Value] = [issue.position]
            if config.has_linear:
                count = lanes if config.has_split else 1
                words = [
                    issue.position,
                    *((issue.position + self.front[f"lane_base_{n}"])[:bits] for n in range(count)),
                ]
            return issue, [words] * config.geometry.cores, [], issue.flags
        rows, indices = program.rom("rows"), program.rom("index_0")
        pointer_bits = _address_bits(indices) + config.lane_bits
        issue = Issue(
            self.front_layout,
            lanes,
            bits,
            pointer_bits,
            _address_bits(rows),
            rows.word_bits,
            config.element_bits,
            config.geometry.sign_adds,
            paged,
        )
        m.submodules.issue = issue
        lengths = self._rom(m, "rows")
        m.d.comb += [lengths.addr_0.eq(issue.row_addr), issue.row_data.eq(lengths.data_0)]
        # a mask word stays a cycle to be the present one; flags and the pointer of other layers wait for it
        rom_cycles = RomReader.latency_cycles
        wait = 1 if config.mask_bits else 0
        early_flags = delay(m, issue.flags, wait + rom_cycles, FLAGS)
        pointer: Value = delay(m, issue.pointer, wait)
        # a linear layer's pointer stands at the first slot of a word
        early_slot = delay(m, pointer[: config.lane_bits], rom_cycles)
        positions, fillers = [], []
        flags: Value = issue.flags
        for core in range(config.geometry.cores):
            decoder = IndexDecoder(config, self.front_layout, bits, pointer_bits)
            m.submodules[f"decoder_{core}"] = decoder
            reader = self._rom(m, f"index_{core}")
            address, slot = pointer, early_slot
            if config.mask_bits:
                address = Mux(self.front.masked, decoder.mask_pointer, pointer)
                slot = delay(m, address[: config.lane_bits], rom_cycles)
            m.d.comb += [
                reader.addr_0.eq(address[config.lane_bits :]),
                decoder.word.eq(reader.data_0),
                decoder.slot.eq(slot),
                decoder.flags.eq(early_flags),
                decoder.descriptor.eq(self.front),
                decoder.start.eq(self.front_sequencer.start),
            ]
            if config.element_bits:
                m.d.comb += [
                    decoder.element.eq(delay(m, issue.element, wait + rom_cycles)),
                    decoder.element_last.eq(delay(m, issue.element_last, wait + rom_cycles)),
                ]
            # a register between the cursors' sum and the tap ROM's address
            late = [delay(m, decoder.positions[lane], 1) for lane in range(lanes)]
            positions.append([late[0], *late])
            fillers.append(delay(m, decoder.fillers, 1))
            flags = decoder.o_flags
        flags = delay(m, flags, 1, FLAGS)
        return issue, positions, fillers, flags

    def _build_walk(self, m: Module, flags: Value) -> TileWalk | None:
        config, program = self.config, self.program
        if not config.has_windowed:
            return None
        front = self.front
        taps = descriptor_layout(program.rom("taps").fields)
        masks = [_address_bits(program.rom(f"mask_{axis}")) if config.has_padding else 1 for axis in "yx"]
        window_bits = max(taps["y"].width, taps["x"].width) + len(front.window_y_last) + len(front.window_x_last) + 4
        walk = TileWalk(config, self.front_layout, _address_bits(program.rom("offsets")), window_bits, *masks)
        m.submodules.walk = walk
        m.d.comb += [walk.descriptor.eq(front), walk.start.eq(self.front_sequencer.start), walk.flags.eq(flags)]
        if config.has_linear:
            # a linear slot must not come out of these stages when a windowed layer has begun
            m.d.comb += walk.flags.valid.eq(flags.valid & ~front.linear)
        return walk

    def _address_flags(self, m: Module, flags: Value, walk: TileWalk | None) -> Value:
        """Return the flags a cycle before the bank address: after the windowed stages, or at once when linear."""
        config = self.config
        before = Signal(FLAGS, name="before_address")
        linear = delay(m, flags, 2, FLAGS) if config.has_keep else flags
        if walk is None:
            m.d.comb += before.eq(linear)
        elif config.has_linear:
            # a copy of its own: the pointers that follow are far from the descriptor
            m.d.comb += before.eq(Mux(delay(m, self.front.linear, 1), linear.as_value(), walk.o_flags.as_value()))
        else:
            m.d.comb += before.eq(walk.o_flags)
        return before

    def _late_fillers(self, m: Module, fillers: Value, late: dict[str, Value]) -> Value:
        """Bring the escapes of a core to its weights: one for all lanes in a windowed layer, one a lane otherwise."""
        config = self.config
        linear = delay(m, fillers, READ + (2 if config.has_keep else 0)) if config.has_linear else None
        if not config.has_windowed:
            if linear is None:
                raise ValueError("A program must have layers")
            return linear
        shared = delay(m, fillers[0], WINDOWED_ADDRESS + READ - 1).replicate(config.geometry.lanes)
        return shared if linear is None else Mux(late["linear"], linear, shared)

    def _build_gather(
        self, m: Module, core: int, walk: TileWalk | None, positions: list[Value], late: dict[str, Value]
    ) -> Gather:
        config, program = self.config, self.program
        names = ("taps", "offsets", "mask_y", "mask_x")
        roms = {name: program.rom(name) for name in names if program.has_rom(name)}
        gather = Gather(config, self.front_layout, core, roms, walk, self._position_bits())
        m.submodules[f"gather_{core}"] = gather
        m.d.comb += [
            gather.descriptor.eq(self.front),
            gather.late_linear.eq(late["linear"]),
            gather.late_signed.eq(late["signed"]),
            gather.late_pad.eq(late["pad"]),
            gather.position.eq(positions[0]),
        ]
        if config.has_linear:
            words = positions[1:]
            for lane in range(config.geometry.lanes):
                m.d.comb += gather.words[lane].eq(words[lane] if len(words) > 1 else words[0])
        if walk is not None:
            m.d.comb += [getattr(gather, f"walk_{name}").eq(getattr(walk, name)) for name in WALKED]
        for name, rom in roms.items():
            reader = self._rom(m, name, core)
            for port in range(rom.ports):
                suffix = f"_{port}" if rom.ports > 1 else ""
                m.d.comb += [
                    getattr(reader, f"addr_{port}").eq(getattr(gather, f"{name}_addr{suffix}")),
                    getattr(gather, f"{name}_data{suffix}").eq(getattr(reader, f"data_{port}")),
                ]
        return gather

    def _build_back(self, m: Module, array: Array) -> None:
        """Drain to memory: writer, post-processors, loader, banks and output buffer."""
        config, writer, back = self.config, self.writer, self.back
        m.submodules.writer = writer
        places = self._rom(m, "places")
        m.d.comb += [
            writer.descriptor.eq(back),
            writer.start.eq(self.back_sequencer.start),
            writer.advance.eq(array.o_valid),
            places.addr_0.eq(writer.place_addr),
            writer.place_data.eq(places.data_0),
            self.back_sequencer.done.eq(delay(m, writer.done & writer.advance, 1)),
        ]
        values = self._build_posts(m, array)
        late = self.post_cycles - Writer.address_cycles
        addresses = [delay(m, writer.address[index], late) for index in range(config.geometry.results)]
        valid = delay(m, writer.inside, late)
        loader = self._build_loader(m, array.o_valid)
        self._build_banks(m, addresses, values, valid, loader)
        self._build_output(m, addresses[0], values, valid)
        odd = Signal()
        with m.If(self.back_sequencer.finished):
            m.d.sync += odd.eq(~odd)
        m.d.comb += [
            self.trace.odd.eq(odd),
            self.trace.valid.eq(valid),
            self.trace.layer.eq(self.back_sequencer.index),
            self.trace.channel.eq(delay(m, writer.channel, self.post_cycles)),
            self.trace.place.eq(delay(m, writer.position, self.post_cycles)),
            self.trace.data.eq(Cat(*values)),
        ]

    def _build_posts(self, m: Module, array: Array) -> list[Value]:
        """Build the post-processors and their images.

        Results that leave together belong to one channel, or each has an entry of its own in the bias word.
        """
        program, config, writer = self.program, self.config, self.writer
        bias = program.rom("bias") if config.has_scales else None
        entry = self._rom(m, "bias") if config.has_scales else None
        if entry is not None:
            m.d.comb += entry.addr_0.eq(writer.bias_addr)
        readers: list[RomReader] = []
        values = []
        for index in range(config.geometry.results):
            post = PostProcessor(config, self.back_layout, bias, self.thresholds, len(writer.bias_addr))
            m.submodules[f"post_{index}"] = post
            m.d.comb += [post.descriptor.eq(self.back), post.i.eq(array.o[index]), post.first.eq(writer.first)]
            if entry is not None:
                slot = index if config.has_row_words else 0
                m.d.comb += post.entry.eq(entry.data_0.word_select(slot, len(post.entry)))
            if self.thresholds:
                m.d.comb += post.channel.eq(writer.bias_addr)
                # all results compare with the first threshold of their channel, then each with its own
                shared = readers[:1]
                readers = [*shared, *(self._rom(m, rom.name, index) for rom in self.thresholds[len(shared) :])]
            for stage, reader in enumerate(readers):
                if stage or not index:
                    m.d.comb += reader.addr_0.eq(getattr(post, f"addr_{stage}"))
                m.d.comb += getattr(post, f"data_{stage}").eq(reader.data_0)
            values.append(post.o)
        return values

    def _build_loader(self, m: Module, drained: Value) -> Loader:
        program, config = self.program, self.config
        layout = program.layouts[program.model.input]
        tensor = program.model.tensors[program.model.input]
        names = [name for name in ("arrival_rows", "arrival_columns") if program.has_rom(name)]
        tables = {name: program.rom(name) for name in names}
        loader = Loader(layout, tensor.shape[0], config.geometry.lanes, config.position_bits, tables)
        m.submodules.loader = loader
        sequencer = self.front_sequencer
        if self.parameters is not None and not self.from_flash:
            # the host sends both
            wiring.connect(m, wiring.flipped(self.i), self.parameters.i)
            wiring.connect(m, self.parameters.inputs, loader.i)
        else:
            wiring.connect(m, wiring.flipped(self.i), loader.i)
        m.d.comb += [
            loader.release.eq(sequencer.ended & self.front.release_input),
            loader.take.eq(sequencer.start & (sequencer.index == 0)),
            loader.busy.eq(delay(m, drained, self.post_cycles - LOADER)),
            sequencer.loaded.eq(loader.loaded),
        ]
        for name in names:
            reader = self._rom(m, name)
            m.d.comb += [
                reader.addr_0.eq(getattr(loader, f"{name}_addr")),
                getattr(loader, f"{name}_data").eq(reader.data_0),
            ]
        return loader

    def _build_banks(
        self, m: Module, addresses: list[Value], values: list[Value], valid: Value, loader: Loader
    ) -> None:
        """Every core's copy of the banks, and the crossbar in front of them."""
        config, back = self.config, self.back
        source = self.program.layouts[self.program.model.input]
        slow = back.slow if config.has_slow else 0
        # copies of their own: the descriptor is far from the banks, and still that of the values that pass
        to_output, replicated = delay(m, back.to_output, 1), delay(m, back.replicated, 1)
        crossbar = Crossbar(config, replicated_input=source.storage is Storage.REPLICATED)
        m.submodules.crossbar = crossbar
        m.d.comb += [
            crossbar.valid.eq(valid & ~to_output.replicate(config.geometry.results)),
            crossbar.replicated.eq(replicated),
            *([crossbar.wide.eq(delay(m, back.replicated & ~slow, 1))] if config.has_wide_writes else []),
            crossbar.load.eq(loader.valid),
            crossbar.load_address.eq(loader.address),
            crossbar.load_value.eq(loader.data),
        ]
        for index, (address, value) in enumerate(zip(addresses, values, strict=True)):
            m.d.comb += [crossbar.address[index].eq(address), crossbar.value[index].eq(value)]
        for lane in range(config.geometry.lanes):
            for core, gather in enumerate(self.gathers):
                bank = ActivationBank(config.activation_depth, config.bank_bytes)
                m.submodules[f"bank_{core}_{lane}"] = bank
                m.d.comb += [
                    bank.read_addr.eq(gather.bank_addr[lane]),
                    gather.bank_data[lane].eq(bank.read_data),
                    bank.write_addr.eq(crossbar.write_addr[lane]),
                    bank.write_data.eq(crossbar.write_data[lane]),
                    bank.write_en.eq(crossbar.write_en[lane]),
                ]

    def _build_output(self, m: Module, address: Value, values: list[Value], valid: Value) -> None:
        """Buffer the output: a value or, of a wide output, all results of a cycle at the first one's address."""
        parts = self.config.geometry.results if self.config.has_wide_output else 1
        size, finished = self.config.output_size, self.back_sequencer.finished
        buffer = OutputBuffer(size, size if self.config.argmax_size else parts)
        m.submodules.output_buffer = buffer
        self.output_buffer = buffer
        wiring.connect(m, buffer.o, wiring.flipped(self.o))
        # with the last result, or with the number of the largest
        self.complete: Value = delay(m, finished, argmax_cycles(self.config))
        # from the last layer's start the buffer belongs to its inference, though nothing is in it yet
        sequencer, filling = self.front_sequencer, Signal()
        with m.If(self.complete):
            m.d.sync += filling.eq(0)
        with m.Elif(sequencer.start & (sequencer.index == self.layers - 1)):
            m.d.sync += filling.eq(1)
        en = valid[:parts] & self.back.to_output.replicate(parts)
        if self.config.argmax_size:
            self._build_argmax(m, en, address, values[:parts])
        else:
            m.d.comb += [
                buffer.write_en.eq(delay(m, en, 1)),
                buffer.write_addr.eq(delay(m, address[(parts - 1).bit_length() :], 1)),
                buffer.write_data.eq(delay(m, Cat(*values[:parts]), 1)),
            ]
        m.d.comb += [buffer.start.eq(self.complete), sequencer.output_free.eq(buffer.free & ~filling)]

    def _build_argmax(self, m: Module, en: Value, address: Value, values: list[Value]) -> None:
        """Find the largest result and write its number as soon as it is known."""
        model, buffer = self.program.model, self.output_buffer
        argmax = ArgMax(self.config.argmax_size, len(values), is_signed=model.tensors[model.results].signed)
        m.submodules.argmax = argmax
        m.d.comb += [
            argmax.en.eq(en),
            argmax.number.eq(address),
            argmax.data.eq(Cat(*values)),
            argmax.take.eq(self.complete),
            buffer.write_en.eq(self.complete.replicate(self.config.output_size)),
            buffer.write_data.eq(argmax.index),
        ]

    def _build_state(self, m: Module) -> None:
        """Say what the design does: of two inferences in flight, the later one."""
        front, buffer = self.front_sequencer, self.output_buffer
        sending = Signal()
        m.d.sync += sending.eq(~buffer.free | self.complete)
        with m.If(front.en):
            m.d.sync += self.state.eq(front.addr + 1)
        with m.Elif(self.complete & (self.state == self.layers)):
            m.d.sync += self.state.eq(self.layers + 1)
        with m.Elif((self.state == self.layers + 1) & ~sending):
            m.d.sync += self.state.eq(0)


def _address_bits(rom: Rom) -> int:
    return max(1, (rom.held - 1).bit_length())
