"""The accelerator: front end, array, back end and the two sequencers, between two streams."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.program import Program
from zeroskip.compiler.spram import spram_count
from zeroskip.compiler.timing import post_cycles
from zeroskip.hw.back_end import BackEnd
from zeroskip.hw.boot import boot_signature
from zeroskip.hw.control import Control, RomReaders, address_bits
from zeroskip.hw.flash import flash_signature
from zeroskip.hw.front_end import FrontEnd
from zeroskip.hw.memory import DescriptorRom
from zeroskip.hw.paging import ParameterPages
from zeroskip.hw.pipeline import descriptor_layout
from zeroskip.hw.sequencer import BackSequencer, FrontSequencer
from zeroskip.hw.stream_ports import OutputBuffer
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
        entries = [
            *(["bias"] if self.config.has_scales else []),
            *(["thresholds_0"] if self.config.search_stages else []),
        ]
        entry_bits = max(address_bits(program.rom(name)) for name in entries)
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
        self.blocks = blocks = spram_count(program.roms)
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
        front_sequencer = FrontSequencer(self.layers, gap_bits)
        # the end of a layer is told one cycle late: it takes many comparisons to see
        back_sequencer = BackSequencer(self.layers, post_cycles(self.config))
        m.submodules.front_sequencer, m.submodules.back_sequencer = front_sequencer, back_sequencer
        front = self._descriptor(m, "front", self.front_layout, front_sequencer)
        back = self._descriptor(m, "back", self.back_layout, back_sequencer)
        control = Control(front_sequencer, back_sequencer, front, back, self.parameters)
        if self.parameters is not None:
            self._build_parameters(m, self.parameters, front_sequencer)
        roms = RomReaders(self.program, self.boot if self.blocks else None, self.parameters)
        array, gathers = FrontEnd(self.program, control, roms).build(m)
        back_end = BackEnd(self.program, control, roms, self.writer, i=self.i, o=self.o, trace=self.trace)
        buffer, complete = back_end.build(m, array, gathers)
        self._build_state(m, control, buffer, complete)
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

    def _build_parameters(self, m: Module, parameters: ParameterPages, sequencer: FrontSequencer) -> None:
        """Parameters from outside: what fills the buffers and holds issue."""
        m.submodules.parameters = parameters
        m.d.comb += parameters.begin.eq(sequencer.en & (sequencer.addr == 0))
        wiring.connect(m, parameters.state, wiring.flipped(self.pages))
        if self.from_flash:
            wiring.connect(m, parameters.flash, wiring.flipped(self.flash))

    def _build_state(self, m: Module, control: Control, buffer: OutputBuffer, complete: Value) -> None:
        """Say what the design does: of two inferences in flight, the later one."""
        front, sending = control.front_sequencer, Signal()
        m.d.sync += sending.eq(~buffer.free | complete)
        with m.If(front.en):
            m.d.sync += self.state.eq(front.addr + 1)
        with m.Elif(complete & (self.state == self.layers)):
            m.d.sync += self.state.eq(self.layers + 1)
        with m.Elif((self.state == self.layers + 1) & ~sending):
            m.d.sync += self.state.eq(0)
