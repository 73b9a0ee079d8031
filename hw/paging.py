"""Everything between the source of a design's parameters and its buffers: one block beside the datapath."""

from __future__ import annotations

from amaranth.hdl import Module, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from zeroskip.compiler.pages import image_bytes, paged_kinds
from zeroskip.compiler.program import Paging, Program, Rom
from zeroskip.compiler.timing import release_cycles
from zeroskip.hw.flash import FlashReader, flash_signature
from zeroskip.hw.memory import RomReader
from zeroskip.hw.pages import InputSplitter, PageGate, PageLoader, load_signature

__all__ = ["ParameterPages", "page_signature"]


def page_signature(paging: Paging) -> wiring.Signature:
    """Return the state of the pages: ``primed`` as many as fit came after reset, ``failed`` page ``number``'s CRC."""
    return wiring.Signature({"primed": Out(1), "failed": Out(1), "number": Out(range(max(len(paging.pages), 2)))})


class ParameterPages(wiring.Component):
    """Fill the buffers page by page, hold issue until a page is there, and say where an inference begins in them.

    The images follow one another through buffers whose depth they do not divide: ``weight_base`` and ``index_base`` are
    the slot addresses at which those of the present inference begin.

    Parameters
    ----------
    program : Program, with ``paging``

    Members
    -------
    begin : In(1), one cycle before the first layer's descriptor is valid
    weight_base, index_base : Out, added to those of a descriptor; the second one where there are indices
    group_end : In(1), hold : Out(1), as in :class:`zeroskip.hw.pages.PageGate`
    load_0, load_1 : Out(load_signature), of weights and of indices
    state : Out(page_signature)
    flash : Out(flash_signature()), where parameters come from there
    i : In(stream of 8 bits), inputs : Out(stream of 8 bits), where the host sends them behind the words of each input
    """

    def __init__(self, program: Program) -> None:
        if program.paging is None:
            raise ValueError("Program must have its parameters outside")
        self.program = program
        self.paging = program.paging
        self.kinds = paged_kinds(program)
        bases = {"weight_base": self.kinds[0][0], **({"index_base": self.kinds[1][0]} if self.kinds[1:] else {})}
        self.bases = {name: self._shift(rom) for name, rom in bases.items()}
        bytes_ = stream.Signature(unsigned(8))
        super().__init__(
            {
                "begin": In(1),
                **{
                    name: Out(
                        (size := rom.held << program.config.lane_bits).bit_length() - 1, init=-self.bases[name] % size
                    )
                    for name, rom in bases.items()
                },
                "group_end": In(1),
                "hold": Out(1),
                **{
                    f"load_{kind}": Out(load_signature(len(roms), roms[0].held, roms[0].word_bits))
                    for kind, roms in enumerate(self.kinds)
                },
                "state": Out(page_signature(self.paging)),
                **(
                    {"flash": Out(flash_signature())} if self.paging.flash else {"i": In(bytes_), "inputs": Out(bytes_)}
                ),
            }
        )

    def port(self, rom: Rom) -> tuple[wiring.PureInterface, int]:
        """Return the write port of an image's buffer, and the number of its enable."""
        for kind, roms in enumerate(self.kinds):
            names = [other.name for other in roms]
            if rom.name in names:
                return getattr(self, f"load_{kind}"), names.index(rom.name)
        raise ValueError(f"Image must be a paged one, not {rom.name!r}")

    def _shift(self, rom: Rom) -> int:
        """Return by how many slots an inference moves the begin of the next one."""
        return rom.depth % rom.held << self.program.config.lane_bits

    def elaborate(self, platform: object) -> Module:
        """Connect the source, the loader and the gate."""
        m = Module()
        program = self.program
        m.submodules.table = table = RomReader(program.rom("pages"))
        m.submodules.loader = loader = PageLoader(table.rom, self.kinds)
        m.submodules.gate = gate = PageGate(len(loader.group_last), release_cycles(program.config))
        m.d.comb += [
            table.addr_0.eq(loader.table_addr),
            loader.table_data.eq(table.data_0),
            loader.release.eq(gate.release),
            gate.push.eq(loader.push),
            gate.group_last.eq(loader.group_last),
            gate.group_end.eq(self.group_end),
            self.hold.eq(gate.hold),
            self.state.primed.eq(loader.primed),
            self.state.failed.eq(loader.failed),
            self.state.number.eq(loader.number),
        ]
        for kind in range(len(self.kinds)):
            wiring.connect(m, getattr(loader, f"load_{kind}"), wiring.flipped(getattr(self, f"load_{kind}")))
        with m.If(self.begin):
            m.d.sync += [getattr(self, name).eq(getattr(self, name) + shift) for name, shift in self.bases.items()]
        if self.paging.flash is not None:
            m.submodules.reader = reader = FlashReader(self.paging.flash, image_bytes(program))
            wiring.connect(m, reader.o, loader.i)
            wiring.connect(m, reader.pins, wiring.flipped(self.flash))
        else:
            source = program.model.tensors[program.model.input]
            m.submodules.splitter = splitter = InputSplitter(source.size)
            wiring.connect(m, wiring.flipped(self.i), splitter.i)
            wiring.connect(m, splitter.inputs, wiring.flipped(self.inputs))
            wiring.connect(m, splitter.pages, loader.i)
            m.d.comb += splitter.last.eq(loader.last)
        return m
