"""The front end of the accelerator: issue, index decoders, gathers and weights, up to the array."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from zeroskip.compiler.program import Program
from zeroskip.compiler.timing import LATE_FIELDS, READ, WINDOWED_ADDRESS
from zeroskip.hw.array import Array
from zeroskip.hw.control import Control, RomReaders, address_bits
from zeroskip.hw.decoders.index import IndexDecoder
from zeroskip.hw.gather import WALKED, Gather, TileWalk
from zeroskip.hw.issue import Issue
from zeroskip.hw.memory import RomReader
from zeroskip.hw.pipeline import FLAGS, delay, descriptor_layout
from zeroskip.hw.sign_add import RunFlags
from zeroskip.hw.weights import WeightFeed

__all__ = ["FrontEnd"]


class FrontEnd:
    """From a layer's descriptor to the operands of every product, in the module of the accelerator.

    Parameters
    ----------
    program : Program
    control : Control
    roms : RomReaders
    """

    def __init__(self, program: Program, control: Control, roms: RomReaders) -> None:
        self.program = program
        self.config = program.config
        self.control = control
        self.roms = roms
        self.layout = control.front.shape()

    def build(self, m: Module) -> tuple[Array, list[Gather]]:
        """Add the blocks; return the array, and the gathers (a core each) whose banks the back end writes."""
        config, program, front = self.config, self.program, self.control.front
        geometry = config.geometry
        sequencer = self.control.front_sequencer
        issue, positions, fillers, flags = self._build_issue(m)
        m.d.comb += [
            issue.descriptor.eq(front),
            issue.start.eq(sequencer.start),
            sequencer.done.eq(issue.done),
            sequencer.gap.eq(front.gap),
        ]
        if self.control.parameters is not None:
            group_end = issue.flags.valid & issue.flags.group_last
            m.d.comb += [self.control.parameters.group_end.eq(group_end), issue.hold.eq(self.control.parameters.hold)]
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
        array = Array(config, self.control.back.shape(), value_bits)
        m.submodules.array = array
        m.d.comb += array.descriptor.eq(self.control.back)
        flags = delay(m, at_address, READ, FLAGS)
        if geometry.sign_adds > 1:
            m.submodules.run_flags = runs = RunFlags(geometry.sign_adds)
            m.d.comb += [runs.i.eq(flags), array.flags.eq(runs.o), array.begin.eq(runs.begin)]
        else:
            m.d.comb += array.flags.eq(flags)
        if config.drain_delay:
            m.d.comb += array.one_column.eq(delay(m, front.one_column, LATE_FIELDS + 1))
        gathers = []
        for core in range(geometry.cores):
            gather = self._build_gather(m, core, walk, positions[core], late)
            gathers.append(gather)
            for lane in range(geometry.lanes):
                m.d.comb += array.activations[core * geometry.lanes + lane].eq(gather.activations[lane])
        if config.has_functions:
            self._build_functions(m, array)
        feed = WeightFeed(config, self.layout, program.rom("weights_0").held)
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
            reader = self.roms.add(m, f"weights_{unit}")
            m.d.comb += [reader.addr_0.eq(feed.rom_addr[unit]), feed.rom_data[unit].eq(reader.data_0)]
        return array, gathers

    def _build_functions(self, m: Module, array: Array) -> None:
        """Give the operands of an addition by their codes, as fast as the multiplier; two lanes share a table."""
        front = self.control.front
        # these stages come one and three cycles after those that the late fields are made for, and later with runs
        late = self.config.product_cycles - RomReader.latency_cycles
        table = delay(m, front.function_table, LATE_FIELDS + 1)
        m.d.comb += array.use_values.eq(delay(m, front.function, LATE_FIELDS + 3 + late))
        rom = self.program.rom("functions")
        lanes = self.config.geometry.lanes * self.config.geometry.cores
        for first in range(0, lanes, rom.ports):
            reader = RomReader(rom)
            m.submodules[f"rom_functions_{first // rom.ports}"] = reader
            for port in range(min(rom.ports, lanes - first)):
                code = array.activations[first + port][:8]
                m.d.comb += [
                    getattr(reader, f"addr_{port}").eq(delay(m, Cat(code, ~array.flags.first, table), late)),
                    array.values[first + port].eq(getattr(reader, f"data_{port}")),
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
        paged = self.control.parameters is not None
        if not config.indexed:
            issue = Issue(self.layout, lanes, bits, run=config.geometry.sign_adds, paged=paged)
            m.submodules.issue = issue
            words: list[Value] = [issue.position]
            if config.has_linear:
                count = lanes if config.has_split else 1
                words = [
                    issue.position,
                    *((issue.position + self.control.front[f"lane_base_{n}"])[:bits] for n in range(count)),
                ]
            return issue, [words] * config.geometry.cores, [], issue.flags
        rows, indices = program.rom("rows"), program.rom("index_0")
        pointer_bits = address_bits(indices) + config.lane_bits
        issue = Issue(
            self.layout,
            lanes,
            bits,
            pointer_bits,
            address_bits(rows),
            rows.word_bits,
            config.element_bits,
            config.geometry.sign_adds,
            paged,
        )
        m.submodules.issue = issue
        lengths = self.roms.add(m, "rows")
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
            decoder = IndexDecoder(config, self.layout, bits, pointer_bits)
            m.submodules[f"decoder_{core}"] = decoder
            reader = self.roms.add(m, f"index_{core}")
            address, slot = pointer, early_slot
            if config.mask_bits:
                address = Mux(self.control.front.masked, decoder.mask_pointer, pointer)
                slot = delay(m, address[: config.lane_bits], rom_cycles)
            m.d.comb += [
                reader.addr_0.eq(address[config.lane_bits :]),
                decoder.word.eq(reader.data_0),
                decoder.slot.eq(slot),
                decoder.flags.eq(early_flags),
                decoder.descriptor.eq(self.control.front),
                decoder.start.eq(self.control.front_sequencer.start),
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
        front = self.control.front
        taps = descriptor_layout(program.rom("taps").fields)
        masks = [address_bits(program.rom(f"mask_{axis}")) if config.has_padding else 1 for axis in "yx"]
        window_bits = max(taps["y"].width, taps["x"].width) + len(front.window_y_last) + len(front.window_x_last) + 4
        walk = TileWalk(config, self.layout, address_bits(program.rom("offsets")), window_bits, *masks)
        m.submodules.walk = walk
        m.d.comb += [walk.descriptor.eq(front), walk.start.eq(self.control.front_sequencer.start), walk.flags.eq(flags)]
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
            m.d.comb += before.eq(
                Mux(delay(m, self.control.front.linear, 1), linear.as_value(), walk.o_flags.as_value())
            )
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
        gather = Gather(config, self.layout, core, roms, walk, self._position_bits())
        m.submodules[f"gather_{core}"] = gather
        m.d.comb += [
            gather.descriptor.eq(self.control.front),
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
            reader = self.roms.add(m, name, core)
            for port in range(rom.ports):
                suffix = f"_{port}" if rom.ports > 1 else ""
                m.d.comb += [
                    getattr(reader, f"addr_{port}").eq(getattr(gather, f"{name}_addr{suffix}")),
                    getattr(gather, f"{name}_data{suffix}").eq(getattr(reader, f"data_{port}")),
                ]
        return gather
